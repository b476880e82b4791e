//go:build deep

package crash_test

import (
	"bytes"
	"encoding/json"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	tandem "github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/child"
	"github.com/tandemgw/tandem/test/rig"
)

// TestRotationOfTheKeyringSurvivesKills kills the command or the server at random moments of a rotation. Nothing
// becomes unreadable, and a token from before the first rotation stays valid.
func TestRotationOfTheKeyringSurvivesKills(t *testing.T) {
	t.Parallel()
	bin, data := rig.Binary(t), t.TempDir()
	var log bytes.Buffer
	serve := func() (*child.Process, string) {
		t.Helper()
		p, err := child.Start(&log, []string{bin}, "--data", data, "--free-ports")
		if err != nil {
			t.Fatal(err)
		}
		at, err := p.Ready(t.Context())
		if err != nil {
			t.Fatalf("%v\n%s", err, &log)
		}
		return p, at.Management
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(bin, append(args, "--data", data)...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return string(out)
	}
	p, _ := serve()
	token := strings.TrimSpace(run("token", "--role", "Management.Read"))
	p.Kill()
	cut := 0
	for round := range rounds(t) {
		online := round%2 == 1
		if online {
			p, _ = serve()
		}
		cmd := exec.Command(bin, "secret", "rotate", "--data", data)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The moment is random: this is not synchronisation.
		<-time.After(time.Duration(mrand.IntN(100)) * time.Millisecond)
		if online {
			p.Kill()
		} else {
			_ = cmd.Process.Signal(os.Kill) // fails if the command was quick
		}
		if cmd.Wait() != nil {
			cut++
		}
	}
	var k api.Keyring
	if err := json.Unmarshal([]byte(run("secret", "rotate", "--output", "json")), &k); err != nil ||
		k.Added != 0 || k.Sealed == 0 || k.Unreadable > 0 {
		t.Errorf("at the end: %+v, %v", k, err)
	}
	p, url := serve()
	defer p.Kill()
	c, err := tandem.New(url, tandem.Options{Tokens: tandem.StaticToken(token)})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := c.Health(t.Context()); err != nil || !h.Replica.Loaded {
		t.Errorf("with a token from before: %+v, %v", h, err)
	}
	t.Logf("%d rotations cut by a kill", cut)
}
