package update_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/platform/flow"
	allstores "github.com/tandemgw/tandem/internal/store"
	store "github.com/tandemgw/tandem/internal/store/zone"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/update"
)

// told is what a child process is told: a node that publishes records until it is killed.
type told struct {
	File   string // of the database
	Config update.Config
	Want   []zone.Record
}

func TestMain(m *testing.M) {
	if text := os.Getenv("TANDEM_TEST_CHILD"); text != "" {
		fmt.Fprintln(os.Stderr, "child ended:", child(text))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// child is the node that is killed.
func child(text string) error {
	var o told
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	ctx, log := context.Background(), slog.New(slog.NewTextHandler(os.Stderr, nil))
	c := db.Default()
	c.File = o.File
	d, err := db.Open(ctx, c, log, nil, allstores.Schemas()...)
	if err != nil {
		return err
	}
	q := flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, log, nil)
	s := store.New(d, outbox.New(d, outbox.Default(), log, nil), q)
	if err := zone.Publish(ctx, s, base, map[string][]zone.Record{"account:a": o.Want}); err != nil {
		return err
	}
	u, err := update.New(o.Config, base, s, log, nil)
	if err != nil {
		return err
	}

	return q.Run(ctx, []*flow.Kind{u.Kind()})
}

// gate passes requests on to a server, until an update comes: it then reports it, and passes it on only if told so. The
// answer never reaches the node.
func gate(t *testing.T, to string, pass bool) (at string, reached chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	reached = make(chan struct{}, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				s, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer s.Close()
				for {
					request, err := message(c)
					if err != nil {
						return
					}
					update := request[4]>>3&0xF == dns.OpcodeUpdate
					if !update || pass {
						_, _ = s.Write(request)
						answer, err := message(s)
						if err != nil {
							return
						}
						if !update {
							_, _ = c.Write(answer)
						}
					}
					if update {
						reached <- struct{}{}
						_, _ = io.Copy(io.Discard, c) // until the node is killed
						return
					}
				}
			}()
		}
	}()

	return l.Addr().String(), reached
}

// message reads a message with its length.
func message(c net.Conn) ([]byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head))
	_, err := io.ReadFull(c, body)

	return append(head, body...), err
}

// A node that is killed before its update is sent, or after the server has carried it out, leaves neither orphans nor
// missing records, whatever is wanted when the next one starts.
func TestKilled(t *testing.T) {
	t.Parallel()
	first, second := address("acme.1r1", 60, "192.0.2.1"), address("acme.1r1", 60, "192.0.2.2")
	for _, c := range []struct {
		what         string
		before, then []zone.Record // wanted when the node is killed, and by the next one
		pass         bool
		want         []string
	}{
		{"adding, not sent, still wanted", nil, []zone.Record{first}, false, []string{"60 192.0.2.1"}},
		{"adding, sent, still wanted", nil, []zone.Record{first}, true, []string{"60 192.0.2.1"}},
		{"adding, not sent, no longer wanted", nil, nil, false, nil},
		{"adding, sent, no longer wanted", nil, nil, true, nil},
		{"changing, not sent", []zone.Record{second}, []zone.Record{first}, false, []string{"60 192.0.2.1"}},
		{"changing, sent", []zone.Record{second}, []zone.Record{first}, true, []string{"60 192.0.2.1"}},
		{"changing, sent, changed back", []zone.Record{second}, []zone.Record{second}, true, []string{"60 192.0.2.2"}},
		{"changing, not sent, no longer wanted", []zone.Record{second}, nil, false, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			p := bind(t, `acme.1r1.gw.operator.example. 60 TXT "foreign"`+"\n")
			cfg := testkit.SQLiteConfig(t)
			direct := config(t, p.Addr)
			t.Run("before", func(t *testing.T) { // its end closes the database
				n := newNode(t, testkit.Open(t, cfg), direct).run()
				n.publish("account:a", c.before...)
				n.settled()
			})

			behind := direct
			var reached chan struct{}
			behind.Server, reached = gate(t, p.Addr.String(), c.pass)
			text, err := json.Marshal(told{File: cfg.File, Config: behind, Want: []zone.Record{first}})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "TANDEM_TEST_CHILD="+string(text))
			cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-reached:
			case <-time.After(time.Minute):
				t.Error("the child sends no update")
			}
			_ = cmd.Process.Kill() // signal 9
			_ = cmd.Wait()         // killed
			if got := len(has(t, p, "acme.1r1", "A")) > 0; got != (c.pass || c.before != nil) {
				t.Errorf("records when the node was killed: %t", got)
			}

			n := newNode(t, testkit.Open(t, cfg), direct)
			n.publish("account:a", c.then...)
			n.run()
			n.settled()
			expect(t, p, "acme.1r1", "A", c.want...)
			expect(t, p, "acme.1r1", "TXT", `60 "foreign"`)
			if got := n.table(); len(got) != len(c.want) {
				t.Errorf("table %q, want %d entries", got, len(c.want))
			}
			n.publish("account:a")
			n.settled()
			expect(t, p, "acme.1r1", "A")
			if got := n.table(); !slices.Equal(got, []string{}) {
				t.Errorf("table %q after everything was removed", got)
			}
		})
	}
}
