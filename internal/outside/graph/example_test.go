package graph_test

import (
	"context"
	"fmt"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
)

// The app acts on its own in a tenant that consented: it reads all users, then assigns a number and follows it.
func Example() {
	ctx, tenant := context.Background(), "22222222-aaaa-4bbb-8ccc-000000000002"
	app, err := entra.New(entra.Config{ClientID: "11111111-aaaa-4bbb-8ccc-000000000001"}) // and a certificate
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := graph.New(graph.Config{Tenant: tenant, Budget: graph.NewBudget(), UserAgent: "Tandem/1",
		Tokens: app.Connect(tenant, nil, time.Time{}).Source("https://graph.microsoft.com", "User.Read.All")})
	if err != nil {
		fmt.Println(err)
		return
	}

	users := graph.Users(graph.Query{Select: graph.UserFields, Top: 999})
	for page, err := range users.Pages(ctx, client, "") {
		if fault.HasCode(err, graph.CodePageExpired) {
			return // begin again; what was read so far deletes nobody
		}
		fmt.Println(len(page.Items), "users; next:", page.Next)
	}

	id, err := graph.AssignNumber("+441632960123", "44444444-aaaa-4bbb-8ccc-000000000004").Do(ctx, client)
	if fault.HasCode(err, graph.CodeUnknown) {
		return // read the number back before assigning it again
	}
	operation, err := graph.GetOperation(id).Do(ctx, client)
	fmt.Println(operation.Waiting(), err)
}
