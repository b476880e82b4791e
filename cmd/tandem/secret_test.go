package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

// keyring runs a secret command and returns the state that it prints. Nothing may be unreadable.
func keyring(t *testing.T, data string, args ...string) (k api.Keyring) {
	t.Helper()
	text := must(t, data, append(append([]string{"secret"}, args...), "--output", "json")...)
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, v := range k.Values {
		if v.Unreadable > 0 {
			t.Errorf("secret %v: %+v", args, k)
		}
	}
	return k
}

// TestTheKeyringIsRotatedByCommand: while the server runs and without one, with a keyring in an environment variable as
// the runbook says, and not by a program that could not keep the new key.
func TestTheKeyringIsRotatedByCommand(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := serve(t, data)
	c := provisioningClient(t, p, token(t, data, "Read"))
	works := func(when string) {
		t.Helper()
		if _, err := c.Account(t.Context(), "none"); !client.IsNotFound(err) {
			t.Errorf("%s, a token from before: %v", when, err)
		}
	}
	first := keyring(t, data, "status")
	if len(first.Older)+len(first.Added) > 0 || len(first.Values) != 3 {
		t.Errorf("at the start: %+v", first)
	}
	if k := keyring(t, data, "rotate"); k.Primary == first.Primary || len(k.Older) != 1 {
		t.Errorf("rotate: %+v", k)
	}
	works("rotated")
	if out := must(t, data, "secret", "status"); !strings.Contains(out, "tandem secret prune removes them") {
		t.Errorf("status does not say what to do next:\n%s", out)
	}
	if k := keyring(t, data, "prune"); len(k.Older) > 0 {
		t.Errorf("prune: %+v", k)
	}
	works("pruned")
	p.stop()
	p.wait()

	second := keyring(t, data, "status")
	if k := keyring(t, data, "rotate"); k.Primary == second.Primary || len(k.Older) != 1 {
		t.Errorf("rotate without a server: %+v", k)
	}
	ring, err := os.ReadFile(data + "/keyring.json")
	if err != nil {
		t.Fatal(err)
	}
	_, stderr, code := command(t, data, "secret", "rotate", "--set", "secrets.keyEnvironment=TANDEM_TEST_KEYRING")
	if code != 6 || !strings.Contains(stderr, "TANDEM_TEST_KEYRING is empty") {
		t.Errorf("with an empty variable: exit %d, %s", code, stderr)
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/keyring.json", ring, 0o600); err != nil {
		t.Fatal(err)
	}
	if k := keyring(t, data, "rotate", "--set", "secrets.keyEnvironment=", "--set", "secrets.keyFile="+dir+
		"/keyring.json"); len(k.Older) != 2 {
		t.Errorf("rotate of a copy: %+v", k)
	}
	if b, err := os.ReadFile(data + "/keyring.json"); err != nil || string(b) != string(ring) {
		t.Errorf("the keyring in the data directory changed: %v", err)
	}
}
