package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

// rotate runs tandem secret rotate and returns what it prints. Nothing may be unreadable.
func rotate(t *testing.T, data string, args ...string) (k api.Keyring) {
	t.Helper()
	text := must(t, data, append([]string{"secret", "rotate", "--output", "json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if k.Primary == 0 || k.Added != 0 || k.Sealed != 1 || k.Unreadable != 0 {
		t.Errorf("secret rotate %v: %+v", args, k)
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
	first := rotate(t, data)
	works("rotated")
	if out := must(t, data, "secret", "rotate"); !strings.Contains(out, "encrypted    secrets in the database: 1") {
		t.Errorf("rotate prints:\n%s", out)
	}
	works("rotated again")
	p.stop()
	p.wait()

	second := rotate(t, data)
	if second.Primary == first.Primary {
		t.Errorf("rotate without a server kept the key: %+v", second)
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
	if k := rotate(t, data, "--set", "secrets.keyEnvironment=", "--set", "secrets.keyFile="+dir+
		"/keyring.json"); k.Primary == second.Primary {
		t.Errorf("rotate of a copy: %+v", k)
	}
	if b, err := os.ReadFile(data + "/keyring.json"); err != nil || string(b) != string(ring) {
		t.Errorf("the keyring in the data directory changed: %v", err)
	}
}
