package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/testkit"
)

// TestCallsAreRoutedWithoutTheDatabase runs a node on PostgreSQL, stops the server, restarts the node without it, and
// starts the server again: calls are routed throughout, also by the last change, writes get 503, and afterwards nothing
// needs a restart.
func TestCallsAreRoutedWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	cluster := testkit.NewCluster(t, testkit.ClusterOptions{})
	cluster.CreateDatabase(t, "tandem")
	args := append([]string{"--set", "database.driver=postgres", "--set", "database.url=" + cluster.URL("tandem"),
		"--set", "database.allowUnsafeDurability=true", "--set", "provisioning.requestsPerMinute=10000"}, group...)
	data := t.TempDir()
	const number = "+442079460123"

	p := serve(t, data, args...)
	c := provisioningClient(t, p, token(t, data, "Admin"))
	if _, err := c.PutAccount(t.Context(), &client.Account{Name: "contoso", ServiceDetails: &client.AccountServices{
		TeamsDirectRouting: &client.DirectRoutingAccount{Enabled: true,
			Configuration: &client.DirectRoutingConfig{Subdomain: "contoso",
				SubdomainTokens: client.SubdomainTokens{Region1Token: "MS=ms1", Region2Token: "MS=ms2"}}}}},
		client.Condition{}); err != nil {
		t.Fatal(err)
	}
	put := func(c *client.Client, n string) error {
		_, err := c.PutNumber(t.Context(), &client.Number{TelephoneNumber: n, AccountName: "contoso",
			ServiceDetails: client.NumberServices{TeamsDirectRouting: &client.NumberService{Enabled: true}}},
			client.Condition{})
		return err
	}
	if err := put(c, number); err != nil {
		t.Fatal(err)
	}
	routed := func(n string) bool {
		var e api.Explanation
		if err := json.Unmarshal([]byte(must(t, data, "explain", "--from", "+15550100", "--to", n, "--peer", "core",
			"--output", "json")), &e); err != nil {
			t.Fatal(err)
		}
		return e.Service == "teamsDirectRouting"
	}
	eventually(t, "the number is routed", func() bool { return routed(number) })

	cluster.Stop(t)
	var e *client.Error
	eventually(t, "writes get 503", func() bool {
		return errors.As(put(c, "+442079460124"), &e) && e.Status == http.StatusServiceUnavailable
	})
	if e.RetryAfter == 0 || e.Code == "" {
		t.Errorf("the 503 has Retry-After %v and code %q", e.RetryAfter, e.Code)
	}
	base := strings.TrimSuffix(p.ready.Metrics, "/metrics")
	eventually(t, "the role api is not ready", func() bool {
		status, body := get(t, base+"/readyz?role=api")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "database")
	})
	if status, body := get(t, base+"/readyz?role=edge"); status != http.StatusOK {
		t.Errorf("the edge is not ready without the database: %d %s", status, body)
	}
	if status, body := get(t, base+"/readyz"); status != http.StatusOK || !strings.Contains(body, "database") {
		t.Errorf("the node: %d %s, want ready with a warning", status, body)
	}
	if !routed(number) {
		t.Error("the number is not routed without the database")
	}
	if code := p.wait(); code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.log)
	}

	p = serve(t, data, args...) // becomes ready although the database is unavailable
	if !routed(number) {
		t.Error("the number is not routed after a restart without the database")
	}
	if out := must(t, data, "status"); !strings.HasPrefix(out, "ready ") || !strings.Contains(out, "unavailable") {
		t.Errorf("status:\n%s", out)
	}

	cluster.Start(t)
	var c2 *client.Client
	eventually(t, "tokens are issued again", func() bool {
		out, _, code := command(t, data, "token", "--role", "Admin")
		if code == 0 {
			c2 = provisioningClient(t, p, strings.TrimSpace(out))
		}
		return code == 0
	})
	eventually(t, "writes go through again", func() bool { return put(c2, "+442079460124") == nil })
	eventually(t, "the new number is routed", func() bool { return routed("+442079460124") })
}

// TestEdgeWithoutAnyIndexIsNotReady starts a node whose database was never reachable: it runs, reports why it is not
// ready, and routes nothing.
func TestEdgeWithoutAnyIndexIsNotReady(t *testing.T) {
	t.Parallel()
	p := serveNotReady(t, "--set", "database.driver=postgres", "--set",
		"database.url=postgres://nobody@127.0.0.1:1/none?sslmode=disable&connect_timeout=1")
	eventually(t, "the node reports why it is not ready", func() bool {
		out, _, code := command(t, p.data, "status")
		return code == 1 && strings.HasPrefix(out, "notReady ") && strings.Contains(out, "index")
	})
	if _, errs, code := command(t, p.data, "explain", "--from", "+15550100", "--to", "+15550101", "--peer",
		"core"); code != 6 || !strings.Contains(errs, "503") {
		t.Errorf("explain: exit code %d %s", code, errs)
	}
}

// TestRolesOnTwoNodesShareADatabase provisions on one node and routes on another.
func TestRolesOnTwoNodesShareADatabase(t *testing.T) {
	t.Parallel()
	c := testkit.PostgresConfig(t)
	args := append([]string{"--set", "database.driver=postgres", "--set", "database.url=" + c.URL,
		"--set", "database.allowUnsafeDurability=true"}, group...)
	apiData, edgeData := t.TempDir(), t.TempDir()
	front := serve(t, apiData, append([]string{"--roles", "api,worker"}, args...)...)
	back := serve(t, edgeData, append([]string{"--roles", "edge", "--set", "calls.node=n2"}, args...)...)
	if front.ready.Provisioning == "" || back.ready.Provisioning != "" || front.ready.SIP["udp"] != "" ||
		back.ready.SIP["udp"] == "" {
		t.Errorf("the addresses served do not match the roles: %s%s", front.line, back.line)
	}
	pc := provisioningClient(t, front, token(t, apiData, "Admin"))
	if _, err := pc.PutAccount(t.Context(),
		&client.Account{Name: "zoomers",
			ServiceDetails: &client.AccountServices{ZoomPhoneCloudPeering: &client.AccountService{Enabled: true}}},
		client.Condition{}); err != nil {
		t.Fatal(err)
	}
	if _, err := pc.PutNumber(t.Context(), &client.Number{TelephoneNumber: "+442079460150", AccountName: "zoomers",
		ServiceDetails: client.NumberServices{ZoomPhoneCloudPeering: &client.NumberService{Enabled: true}}},
		client.Condition{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other node knows the number", func() bool {
		return strings.Contains(must(t, edgeData, "explain", "--from", "+15550100", "--to", "+442079460150", "--peer",
			"core"), "zoomers")
	})
	if _, errs, code := command(t, edgeData, "account", "list"); code != 3 {
		t.Errorf("a node without the role api lists accounts: %d %s", code, errs)
	}
	// The server of this directory uses PostgreSQL: a command without its configuration must not create another
	// database.
	if code := front.wait(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if _, errs, code := command(t, apiData, "token", "--role", "Read"); code == 0 ||
		!strings.Contains(errs, "keeps its data in postgres") {
		t.Errorf("a token without the server's configuration: %d %s", code, errs)
	}
}

func provisioningClient(t *testing.T, p *process, token string) *client.Client {
	t.Helper()
	c, err := client.New(p.ready.Provisioning, client.Options{Tokens: client.StaticToken(token), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
