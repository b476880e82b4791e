package update_test

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/update"
)

// Each refusal of BIND is an error that says what to do, and none of it is a success.
func TestRefusalsOfBIND(t *testing.T) {
	t.Parallel()
	p := bind(t, "")
	for what, c := range map[string]struct {
		change func(*update.Config)
		want   string
	}{
		"another secret": {func(c *update.Config) {
			c.Key.SecretFile = filepath.Join(t.TempDir(), "other")
			text := base64.StdEncoding.EncodeToString([]byte("another secret of the same bytes"))
			if err := os.WriteFile(c.Key.SecretFile, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "has another secret for the key update.operator.example. (BADSIG)"},
		"another key": {func(c *update.Config) { c.Key.Name = "other.example" },
			"has no key other.example. with algorithm hmac-sha256. (BADKEY)"},
		"another algorithm": {func(c *update.Config) { c.Key.Algorithm = "hmac-sha512" }, "(BADKEY)"},
		"another zone": {func(c *update.Config) { c.Zone = base },
			"NOTAUTH: it is not the primary name server of gw.operator.example."},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, p.Addr)
			c.change(&cfg)
			n := newNode(t, sqlite(t), cfg).run()
			n.publish("account:a", address("acme.1r1", 60, "192.0.2.1"))
			n.until(c.want, func() bool { return strings.Contains(n.u.Problem(), c.want) })
		})
	}
}

// impostor is a server that answers as told.
func impostor(t *testing.T, answer func(w dns.ResponseWriter, r *dns.Msg)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{Listener: l, TsigSecret: map[string]string{keyName: base64.StdEncoding.EncodeToString(secret)},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
		Handler:       dns.HandlerFunc(answer)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.ActivateAndServe() // ends with Shutdown
	}()
	t.Cleanup(func() {
		_ = s.Shutdown()
		<-done
	})

	return l.Addr().(*net.TCPAddr).AddrPort()
}

// Other answers of servers, also those that are not signed as they must be.
func TestAnswers(t *testing.T) {
	t.Parallel()
	signed := func(code int, change func(*dns.TSIG)) func(dns.ResponseWriter, *dns.Msg) {
		return func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg).SetRcode(r, code)
			m.SetTsig(keyName, dns.HmacSHA256, 300, time.Now().Unix())
			if change != nil {
				change(m.IsTsig())
			}
			_ = w.WriteMsg(m)
		}
	}
	for what, c := range map[string]struct {
		answer func(dns.ResponseWriter, *dns.Msg)
		want   string
		ours   int // entries of records that may have been added
	}{
		"NOTZONE": {signed(dns.RcodeNotZone, nil),
			"NOTZONE: a name is not in the zone operator.example.; set zone.update.zone", 0},
		"SERVFAIL": {signed(dns.RcodeServerFailure, nil), "SERVFAIL: it failed, and its log says why", 0},
		"NOTIMP":   {signed(dns.RcodeNotImplemented, nil), "NOTIMP: it does not support updates", 0},
		"FORMERR":  {signed(dns.RcodeFormatError, nil), "FORMERR: it does not accept the form", 0},
		"BADTIME": {signed(dns.RcodeNotAuth, func(t *dns.TSIG) { t.Error = dns.RcodeBadTime }),
			"differ by more than 5 minutes (BADTIME); set them", 0},
		"a success without a signature": {func(w dns.ResponseWriter, r *dns.Msg) {
			_ = w.WriteMsg(new(dns.Msg).SetReply(r))
		}, "is not signed with the key", 1},
		"a refusal without a signature": {func(w dns.ResponseWriter, r *dns.Msg) {
			_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeRefused))
		}, "REFUSED: it does not permit the key update.operator.example.", 1},
		"a success that changed nothing": {signed(dns.RcodeSuccess, nil),
			"accepted the record 192.0.2.1 and does not have it", 1},
		"no answer": {func(w dns.ResponseWriter, _ *dns.Msg) { _ = w.Close() }, "no answer from", 1},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, sqlite(t), config(t, impostor(t, func(w dns.ResponseWriter, r *dns.Msg) {
				if r.Opcode == dns.OpcodeUpdate {
					c.answer(w, r)
					return
				}
				m := new(dns.Msg).SetReply(r)
				m.Authoritative = true
				m.SetTsig(keyName, dns.HmacSHA256, 300, time.Now().Unix())
				_ = w.WriteMsg(m)
			}))).run()
			n.publish("account:a", address("acme.1r1", 60, "192.0.2.1"))
			n.until(c.want, func() bool { return strings.Contains(n.u.Problem(), c.want) })
			if got := n.table(); len(got) != c.ours {
				t.Errorf("table %q, want %d entries", got, c.ours)
			}
		})
	}
}

// picky is a server that refuses all updates of names that begin with "bad", and takes others. It has one record of a
// name at most.
type picky struct {
	mu   sync.Mutex
	have map[string]dns.RR
	at   netip.AddrPort
}

func newPicky(t *testing.T) *picky {
	t.Helper()
	p := &picky{have: map[string]dns.RR{}}
	p.at = impostor(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		m.Authoritative = true
		m.SetTsig(keyName, dns.HmacSHA256, 300, time.Now().Unix())
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case r.Opcode == dns.OpcodeQuery:
			if rr := p.have[r.Question[0].Name]; rr != nil {
				m.Answer = append(m.Answer, rr)
			}
		case slices.ContainsFunc(r.Ns, func(rr dns.RR) bool { return strings.HasPrefix(rr.Header().Name, "bad") }):
			m.Rcode = dns.RcodeRefused
		default:
			for _, rr := range r.Ns {
				p.have[rr.Header().Name] = rr
			}
		}
		_ = w.WriteMsg(m)
	})

	return p
}

// What is refused for good does not keep the updater from putting back what somebody removed, however much there is.
func TestRefusedBesideRemoved(t *testing.T) {
	t.Parallel()
	p, d := newPicky(t), sqlite(t)
	c := config(t, p.at)
	n := newNode(t, d, c)
	var rs []zone.Record
	for i := range 600 {
		rs = append(rs, address(fmt.Sprintf("c%03d.1r1", i), 60, "192.0.2.1"))
	}
	n.publish("good", rs...)
	n.run().settled()
	for i := range 25 {
		rs = append(rs, address(fmt.Sprintf("bad%d.1r1", i), 60, "192.0.2.1"))
	}
	n.publish("good", rs...)
	n.until("refused", func() bool { return strings.Contains(n.u.Problem(), "REFUSED") })

	gone := "c599.1r1." + base + "."
	p.mu.Lock()
	delete(p.have, gone)
	p.mu.Unlock()
	n.again(d, c).until("it is back", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()

		return p.have[gone] != nil
	})
}
