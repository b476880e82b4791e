package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

// TestRevokingAClientEndsTheTokensItMade: a client that may create tokens over the URL must not keep access by them.
func TestRevokingAClientEndsTheTokensItMade(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := serve(t, data)
	remote := func(tok client.TokenSource) *client.Client {
		c, err := client.New(p.ready.Management, client.Options{Tokens: tok, Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var mgr api.CreatedClient
	if err := json.Unmarshal([]byte(must(t, data, "client", "create", "mgr", "--role", "Management.Admin", "--output",
		"json")), &mgr); err != nil {
		t.Fatal(err)
	}
	first := remote(&client.Credentials{TokenURL: p.ready.Provisioning + "/oauth2/v2.0/token",
		ClientID: mgr.Client.ID, ClientSecret: mgr.Secret, Scope: "api://tandem-provisioning/.default"})
	before, err := first.VerifyAudit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := api.TokenRequest{Roles: []string{"Management.Admin"}}
	second, err := first.CreateToken(t.Context(), ask)
	if err != nil {
		t.Fatalf("a client cannot create a token: %v", err)
	}
	third, err := remote(client.StaticToken(second.AccessToken)).CreateToken(t.Context(), ask)
	if err != nil {
		t.Fatalf("nor with a token that it created: %v", err)
	}
	after, err := first.VerifyAudit(t.Context())
	if err != nil || !after.OK || after.Rows != before.Rows+2 {
		t.Errorf("two tokens were created and the audit log went from %d rows to %+v (%v)", before.Rows, after, err)
	}

	must(t, data, "client", "revoke", mgr.Client.ID)
	for _, tok := range []string{second.AccessToken, third.AccessToken} {
		c := remote(client.StaticToken(tok))
		if _, err := c.CreateToken(t.Context(), ask); !client.HasCode(err, "InvalidAuthenticationToken") {
			t.Errorf("a token created by a revoked client creates another: %v", err)
		}
		if _, err := c.Health(t.Context()); !client.HasCode(err, "InvalidAuthenticationToken") {
			t.Errorf("a token created by a revoked client is accepted by the management API: %v", err)
		}
	}

	// The local administrator's tokens cannot be revoked, so they must not create others.
	local := remote(client.StaticToken(token(t, data, "Management.Admin")))
	if _, err := local.Health(t.Context()); err != nil {
		t.Errorf("the local administrator's token: %v", err)
	}
	if _, err := local.CreateToken(t.Context(), ask); !client.HasCode(err, "NotAClient") {
		t.Errorf("a token of no client creates another: %v", err)
	}
	// Two more rows: the revocation and the local token.
	if end, err := local.VerifyAudit(t.Context()); err != nil || !end.OK || end.Rows != after.Rows+2 {
		t.Errorf("audit log at the end: %+v, %v; want %d rows", end, err, after.Rows+2)
	}
}

// TestALostKeyringStopsNoClient: clients and tokens work without the keyring as before.
func TestALostKeyringStopsNoClient(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := serve(t, data, "--lab")
	var bss api.CreatedClient
	if err := json.Unmarshal([]byte(must(t, data, "client", "create", "bss", "--role", "Read", "--output", "json")),
		&bss); err != nil {
		t.Fatal(err)
	}
	before := client.StaticToken(token(t, data, "Read"))
	if code := p.wait(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if err := os.Remove(filepath.Join(data, "keyring.json")); err != nil {
		t.Fatal(err)
	}
	p = serve(t, data)
	credentials := &client.Credentials{TokenURL: p.ready.Provisioning + "/oauth2/v2.0/token",
		ClientID: bss.Client.ID, ClientSecret: bss.Secret, Scope: "api://tandem-provisioning/.default"}
	for _, tokens := range []client.TokenSource{before, credentials} {
		c, err := client.New(p.ready.Provisioning, client.Options{Tokens: tokens, Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Account(t.Context(), "contoso"); err != nil {
			t.Errorf("without the old keyring, with a %T: %v", tokens, err)
		}
	}
	if !strings.Contains(p.log.String(), "no signing key opens with this node's keyring") {
		t.Errorf("the log does not report it:\n%s", p.log)
	}
}
