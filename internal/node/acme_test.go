package node

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/check"
	"github.com/tandemgw/tandem/internal/zone/tsig"
	"github.com/tandemgw/tandem/internal/zone/update"
)

// listedServer is a name server that follows CNAMEs in what it has.
type listedServer struct {
	at      string
	records atomic.Pointer[string] // as in a zone file
}

func newListedServer(t *testing.T) *listedServer {
	t.Helper()
	s := &listedServer{at: dnspeer.Address(t).String()}
	pc, err := net.ListenPacket("udp", s.at)
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		m.Authoritative = true
		q := r.Question[0]
		p := dns.NewZoneParser(strings.NewReader(*s.records.Load()), ".", "")
		for rr, ok := p.Next(); ok; rr, ok = p.Next() {
			x, alias := rr.(*dns.CNAME)
			if h := rr.Header(); h.Name == q.Name && (h.Rrtype == q.Qtype || alias) {
				if m.Answer = append(m.Answer, rr); alias && q.Qtype != dns.TypeCNAME {
					q.Name = x.Target
				}
			}
		}
		_ = w.WriteMsg(m) // the peer may be gone
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe() // ends with Shutdown
	}()
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})

	return s
}

func (s *listedServer) has(records ...string) {
	text := strings.Join(records, "\n") + "\n"
	s.records.Store(&text)
}

// A value counts for a name only at the name, or at the place to which the name's own CNAME leads: there the name
// servers of the name must have the CNAME, and those of the place and the update server the value.
func TestCheckOfChallenges(t *testing.T) {
	t.Parallel()
	const (
		name  = "_acme-challenge.1r1.gw.example.com"
		place = "1r1.acme.example"
		key   = "update.example."
	)
	secret := []byte("0123456789abcdef0123456789abcdef")
	bind := dnspeer.BINDUpdated(t, dnspeer.Primary{Zone: "acme.example.", Key: key, Secret: secret}, `$TTL 60
acme.example. SOA ns1.example.net. dns.example.net. 1 3600 600 86400 60
acme.example. NS NS1.example.net.
`, "grant "+key+" zonesub TXT;")
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(secret)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := &config.Zone{Publish: config.PublishNone, Update: update.Config{Server: bind.Addr.String(),
		Key: tsig.Config{Name: key, SecretFile: file}}}
	one, two := newListedServer(t), newListedServer(t)
	cfg.Names.NameServers = []zone.Host{{Name: "ns1.example.net", CheckAt: []string{one.at}},
		{Name: "ns2.example.net", CheckAt: []string{two.at}}}
	if errs := cfg.Update.Validate("gw.example.com"); len(errs) > 0 {
		t.Fatal(errs)
	}
	aliases, err := update.NewAliases(cfg.Update)
	if err != nil {
		t.Fatal(err)
	}
	c := challenges{base: "gw.example.com", zone: cfg, servers: check.NewServers(cfg.Names.NameServers, nil),
		aliases: aliases, log: slog.New(slog.DiscardHandler)}

	const (
		direct  = name + `. 60 TXT "other" "wise"` + "\n" + name + `. 60 TXT "val" "ue"`
		alias   = name + ". 60 CNAME " + place + "."
		there   = "\n" + place + `. 60 TXT "value"`
		first   = name + ". 60 CNAME x.example.org."
		foreign = name + ". 60 CNAME www.example.org.\n" + `www.example.org. 60 TXT "value"`
	)
	at := "ns1.example.net (" + one.at + ") about " + place
	self, followed, chain := []string{name}, []string{name, place}, []string{name, "x.example.org", place}
	for what, x := range map[string]struct {
		path     []string
		one, two string
		put      bool   // the update server has the value
		lacking  string // in the name of the server that does not answer as it must; empty for none
	}{
		"at the name":              {self, direct, direct, false, ""},
		"nowhere":                  {self, direct, "", false, "ns2"},
		"behind a wildcard":        {self, direct, foreign, false, two.at + "), with a CNAME to www.example.org"},
		"at the place":             {followed, alias + there, alias, true, ""},
		"not at the name server":   {followed, alias, alias, true, at},
		"not at the update server": {followed, alias + there, alias, false, cfg.Update.Server + " about " + place},
		"no CNAME":                 {followed, alias + there, direct, true, "ns2"},
		"another CNAME":            {followed, alias + there, foreign, true, "with a CNAME to www.example.org"},
		"the first of two CNAMEs":  {chain, first + there, first, true, ""},
	} {
		one.has(x.one)
		two.has(x.two)
		act := c.Remove
		if x.put {
			act = c.Add
		}
		if err := act(t.Context(), []string{name, place}, "value"); err != nil {
			t.Fatal(err)
		}
		answers, err := c.Check(t.Context(), x.path, "value")
		var lacking []string
		for _, a := range answers {
			if !a.Has || a.NoAnswer != nil {
				lacking = append(lacking, a.Server)
			}
		}
		if err != nil || len(answers) < 2 || len(lacking) != min(len(x.lacking), 1) ||
			!slices.ContainsFunc(append(lacking, ""), func(s string) bool { return strings.Contains(s, x.lacking) }) {
			t.Errorf("%s: %+v, %v; want none but %q to lack it", what, answers, err, x.lacking)
		}
	}

	// The operator publishes the name: its CNAME is asked of the listed servers.
	one.has("")
	two.has(alias)
	if got, err := c.Path(t.Context(), name); err != nil || !slices.Equal(got, []string{name, place}) {
		t.Errorf("Path = %q, %v", got, err)
	}
	two.has(direct)
	if got, err := c.Path(t.Context(), name); err == nil ||
		!strings.Contains(err.Error(), "no name server answers a CNAME") {
		t.Errorf("Path without a CNAME = %q, %v", got, err)
	}
	two.has(foreign)
	if got, err := c.Path(t.Context(), name); err == nil || !strings.Contains(err.Error(),
		name+" is a CNAME to www.example.org, where Tandem cannot put the value") {
		t.Errorf("Path to a foreign name = %q, %v", got, err)
	}
	// What can never be removed is left, once.
	if err := c.Remove(t.Context(), []string{name, "www.example.org"}, "value"); err != nil {
		t.Errorf("Remove in a zone that the server does not have: %v", err)
	}
	c.aliases = nil
	if err := c.Remove(t.Context(), []string{name, place}, "value"); err != nil {
		t.Errorf("Remove without zone.update: %v", err)
	}
}

// A value that a killed process left in the DNS is removed also if the base domain was changed before the next start:
// records are stored relative to it, and would be in the new zone forever.
func TestValueBelowAFormerBaseDomain(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	former := challenges{store: n.core.zone, base: "former.example.com"}
	path := []string{"_acme-challenge.1r1.former.example.com"}
	if err := former.Add(t.Context(), path, "value"); err != nil {
		t.Fatal(err)
	}
	if err := (challenges{store: n.core.zone, base: "gw.example.com"}).Remove(t.Context(), path, "value"); err != nil {
		t.Errorf("Remove: %v", err)
	}
	err := n.core.zone.View(t.Context(), func(ctx context.Context, r zone.Reader) error {
		if left, err := r.All(ctx); err != nil || len(left) > 0 {
			t.Errorf("left in the zone: %v, %v", left, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
