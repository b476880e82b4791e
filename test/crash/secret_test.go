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

// TestRotationOfTheKeyringSurvivesKills kills the command or the server at random moments of a rotation and of the
// removal of older keys. Nothing becomes unreadable, and a token from before the first rotation stays valid.
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
	state := func(when string, args ...string) (k api.Keyring) {
		t.Helper()
		out := run(append([]string{"secret", "--output", "json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &k); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		for _, v := range k.Values {
			if v.Unreadable > 0 || v.Primary+v.Older == 0 {
				t.Errorf("%s: %+v", when, k)
			}
		}
		return k
	}

	p, _ := serve()
	token := strings.TrimSpace(run("token", "--role", "Management.Read"))
	p.Kill()
	cut := map[string]int{}
	for round := range rounds(t) {
		args := [][]string{{"secret", "rotate"}, {"secret", "rotate"}, {"secret", "prune"}}[round%3]
		online := round%2 == 1
		if online {
			p, _ = serve()
		}
		cmd := exec.Command(bin, append(args, "--data", data)...)
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
			cut[args[1]]++
		}
		state("after a kill", "status")
	}
	if k := state("at the end", "rotate"); len(k.Added) > 0 {
		t.Errorf("at the end: %+v", k)
	}
	if k := state("at the end", "prune"); len(k.Older) > 0 {
		t.Errorf("at the end: %+v", k)
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
	t.Logf("cut by a kill: %v", cut)
}
