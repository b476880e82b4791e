package client_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

// A BSS provisions a customer with one Direct Routing number.
func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{}`)
	}))
	defer server.Close()

	ctx := context.Background()
	c, err := client.New(server.URL, client.Options{Tokens: client.StaticToken("token")})
	if err != nil {
		panic(err)
	}
	_, err = c.PutAccount(ctx, &client.Account{Name: "contoso", ServiceDetails: &client.AccountServices{
		TeamsDirectRouting: &client.DirectRoutingAccount{Enabled: true,
			Configuration: &client.DirectRoutingConfig{Subdomain: "contoso",
				SubdomainTokens: client.SubdomainTokens{Region1Token: "ms1", Region2Token: "ms2"}}},
	}}, client.Condition{})
	if err != nil {
		panic(err)
	}
	_, err = c.PutNumber(ctx, &client.Number{TelephoneNumber: "+442079460123", AccountName: "contoso",
		ServiceDetails: client.NumberServices{TeamsDirectRouting: &client.NumberService{Enabled: true}}},
		client.Condition{})
	if err != nil {
		panic(err)
	}
	// Output:
	// PUT /accounts/contoso
	// PUT /accounts/contoso/numbers/+442079460123
}

// A list is read page by page while the loop runs.
func ExampleClient_Numbers() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			fmt.Fprintf(w, `{"value":[{"telephoneNumber":"+442079460123"}],"nextLink":"http://%s/numbers?cursor=2"}`,
				r.Host)
		} else {
			fmt.Fprint(w, `{"value":[{"telephoneNumber":"+442079460124"}]}`)
		}
	}))
	defer server.Close()

	c, err := client.New(server.URL, client.Options{})
	if err != nil {
		panic(err)
	}
	for n, err := range c.Numbers(context.Background(), "", client.List{}) {
		if err != nil {
			panic(err)
		}
		fmt.Println(n.TelephoneNumber)
	}
	// Output:
	// +442079460123
	// +442079460124
}

// Explain shows where a call would go, and why.
func ExampleClient_Explain() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"outcome":"rejected","rule":"default-service",
			"text":"404: +442079460123 is not provisioned","steps":[]}`)
	}))
	defer server.Close()

	c, err := client.New(server.URL, client.Options{})
	if err != nil {
		panic(err)
	}
	e, err := c.Explain(context.Background(), api.Question{From: "+15550100", To: "+442079460123", Peer: "core"})
	if err != nil {
		panic(err)
	}
	fmt.Println(e.Outcome, e.Text)
	// Output: rejected 404: +442079460123 is not provisioned
}
