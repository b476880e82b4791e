package certificate_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/store"
	certificates "github.com/tandemgw/tandem/internal/store/certificate"
	"github.com/tandemgw/tandem/internal/testkit"
)

// orders is what a child process is told: a node that publishes the values of an order and waits for the name servers
// until it is killed.
type orders struct {
	Dir       string // of the database and the keyring
	Directory string
	Control   string // the parent's zone
	Roots     []byte // PEM
	Offset    time.Duration
}

// remote is a Challenger in the parent process. As a Checker it never ends.
type remote struct{ control string }

func (r remote) call(ctx context.Context, what string, path []string, value string) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.control+"/"+what+"?"+
		url.Values{"path": path, "value": {value}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer []string
	return answer, json.NewDecoder(resp.Body).Decode(&answer)
}

func (r remote) Path(ctx context.Context, name string) ([]string, error) {
	return r.call(ctx, "path", []string{name}, "")
}

func (r remote) Add(ctx context.Context, path []string, value string) error {
	_, err := r.call(ctx, "add", path, value)
	return err
}

func (r remote) Remove(ctx context.Context, path []string, value string) error {
	_, err := r.call(ctx, "remove", path, value)
	return err
}

func (r remote) Check(ctx context.Context, _ []string, _ string) ([]certificate.Answer, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// child is the node that is killed. It does not return.
func child(told string) {
	err := func() error {
		var o orders
		if err := json.Unmarshal([]byte(told), &o); err != nil {
			return err
		}
		ctx, log := context.Background(), slog.New(slog.NewTextHandler(os.Stderr, nil))
		ring, err := secret.Open(o.Dir, secret.Default(), os.Getenv)
		if err != nil {
			return err
		}
		c := db.Default()
		c.File = filepath.Join(o.Dir, "tandem.db")
		d, err := db.Open(ctx, c, log, nil, store.Schemas()...)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(o.Roots)
		q := flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, log, nil)
		m := certificate.New(config(&authority{directory: o.Directory}), []certificate.Wanted{r1}, certificate.Parts{
			Store:      certificates.New(d, ring, q),
			Cache:      certificates.Disk{Path: filepath.Join(o.Dir, "cache"), Ring: ring},
			Challenger: remote{o.Control}, Checker: remote{}, Log: log,
			Transport: (&dials{seen: map[string]int{}}).transport(roots)})
		m.SetClock(func() time.Time { return time.Now().Add(o.Offset) })
		return q.Run(ctx, []*flow.Kind{m.Kind()})
	}()
	fmt.Fprintln(os.Stderr, "child ended:", err)
	os.Exit(1)
}

// A node that is killed while its values are in the DNS leaves them there until the next one starts, which removes them
// and nothing else, wherever CNAMEs lead now, and does not order at once.
func TestKilledWithValuesPublished(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := newAuthority(t, z)
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value := r.FormValue("value") // and parses the form
		path := r.Form["path"]
		switch r.URL.Path {
		case "/path":
			path, _ = z.Path(r.Context(), path[0])
		case "/add":
			_ = z.Add(r.Context(), path, value)
		default:
			_ = z.Remove(r.Context(), path, value)
		}
		_ = json.NewEncoder(w).Encode(path) // the peer may be gone
	}))
	t.Cleanup(control.Close)
	places := []string{challengeName, "a.challenges.example", "b.challenges.example"}
	for _, place := range places {
		_ = z.Add(t.Context(), []string{place}, "foreign")
		<-z.added
	}

	o := orders{Dir: t.TempDir(), Directory: a.directory, Control: control.URL, Roots: a.RootsPEM}
	for _, place := range places {
		if z.alias(""); place != challengeName {
			z.alias(place)
		}
		told, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TANDEM_TEST_CHILD="+string(told))
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			select {
			case <-z.added:
			case <-time.After(patience):
				_ = cmd.Process.Kill()
				t.Fatal("the child publishes no values")
			}
		}
		if err := cmd.Process.Kill(); err != nil { // signal 9
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if now, _ := z.values(place); len(now) != 3 {
			t.Errorf("%q are at %s when the node is killed, want two values and the foreign one", now, place)
		}
		o.Offset += time.Hour // the next one may order again
	}
	if got := a.orderCount(); got != len(places) {
		t.Fatalf("%d orders of killed nodes, want %d", got, len(places))
	}
	z.alias("c.challenges.example")

	ring, err := secret.Open(o.Dir, secret.Default(), os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	c := db.Default()
	c.File = filepath.Join(o.Dir, "tandem.db")
	d := testkit.Open(t, c)
	n := start(t, d, z, a.roots, settings{cfg: config(a), ring: ring})
	n.advance(o.Offset - time.Hour + time.Minute) // a minute after the last order began
	n.run()
	n.work()
	for _, place := range places {
		if now, _ := z.values(place); len(now) != 1 || now[0] != "foreign" {
			t.Errorf("%q left at %s after the restart, want the foreign value only", now, place)
		}
	}
	if s := n.one(); a.orderCount() != len(places) || s.Cause != "interrupted" || s.Failed != len(places) {
		t.Errorf("after the restart: %d orders, status %+v; want no new order within a minute", a.orderCount(), s)
	}
	n.advance(2 * time.Hour)
	n.work()
	if s := n.one(); s.Failed != 0 || n.served() == nil {
		t.Errorf("at the next attempt: %+v", s)
	}
}
