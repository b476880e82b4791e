package cases_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/test/rig"
)

// lab is the program between a core and two services, on its own block of loopback addresses.
type lab struct {
	t    *testing.T
	net  string // "127.A.B."
	prog *demo.Product
	core *peer // .2
	dr   *peer // .3
	oc   *peer // .4
}

// The numbers of account acme, one of Operator Connect and one of Direct Routing with screening on, and one that is not
// provisioned.
const (
	ocNumber = "+442079460123"
	drNumber = "+442079460124"
	stranger = "+442079460999"
)

// block reserves 127.A.B.0/24 for the test by holding port 5999 of its first address.
func block(t *testing.T) string {
	t.Helper()
	for range 1000 {
		b := fmt.Sprintf("127.%d.%d.", 80+rand.IntN(170), 1+rand.IntN(250))
		l, err := net.Listen("tcp4", b+"1:5999")
		if err != nil {
			continue
		}
		t.Cleanup(func() { l.Close() })
		return b
	}
	t.Fatal("no block of loopback addresses is free")
	return ""
}

// serve starts the program with a configuration in which 127.76.0. means the test's own block.
func serve(t *testing.T, block, config string) *demo.Product {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "lab.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "127.76.0.", block)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, err := demo.StartProduct(ctx, rig.Binary(t), file, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		rig.Stop(t, p)
		if t.Failed() {
			b, _ := os.ReadFile(p.LogFile) // only for the error text
			t.Logf("tandem's log:\n%s", b[max(0, len(b)-6000):])
		}
	})
	return p
}

// start starts the lab. Each pair of edits replaces text of lab.yaml.
func start(t *testing.T, edits ...string) *lab {
	t.Helper()
	text, err := testdata.ReadFile("testdata/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := edit(t, string(text), edits...)
	l := &lab{t: t, net: block(t)}
	l.core, l.dr, l.oc = listen(t, l.net+"2"), listen(t, l.net+"3"), listen(t, l.net+"4")
	l.prog = serve(t, l.net, config)
	l.seed()
	return l
}

// edit replaces all occurrences of texts, each of which must occur at least once.
func edit(t *testing.T, text string, edits ...string) string {
	t.Helper()
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			t.Fatalf("nothing to replace: %q is not in\n%s", edits[i], text)
		}
		text = strings.ReplaceAll(text, edits[i], edits[i+1])
	}
	return text
}

// seed provisions the account and its two numbers, and waits until the edge routes by them.
func (l *lab) seed() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	account := &client.Account{Name: "acme", ServiceDetails: &client.AccountServices{
		TeamsTenantID:        "6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d",
		TeamsOperatorConnect: &client.AccountService{Enabled: true},
		TeamsDirectRouting: &client.DirectRoutingAccount{Enabled: true, Configuration: &client.DirectRoutingConfig{
			CallScreening: true, Subdomain: "acme",
			SubdomainTokens: client.SubdomainTokens{Region1Token: "MS=ms1", Region2Token: "MS=ms2"}}}}}
	_, err := l.prog.API.PutAccount(ctx, account, client.Condition{})
	if err == nil {
		err = l.prog.API.CreateOrUpdateNumbers(ctx, "acme", []client.Number{
			{TelephoneNumber: ocNumber, AccountName: "acme",
				ServiceDetails: client.NumberServices{TeamsOperatorConnect: &client.TeamsNumber{Enabled: true}}},
			{TelephoneNumber: drNumber, AccountName: "acme",
				ServiceDetails: client.NumberServices{TeamsDirectRouting: &client.NumberService{Enabled: true}}}})
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.settle(l.core, l.net+"10:5060", ocNumber, l.oc)
	l.settle(l.core, l.net+"10:5060", drNumber, l.dr)
}

// settle calls the number until the call reaches the far peer, which is busy: from then on the edge knows the number.
func (l *lab) settle(near *peer, edge, number string, far *peer) {
	l.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		c := l.dial(near, far, edge, number)
		c.invite(offer)
		answer := make(chan *message, 1)
		go func() { answer <- near.find(finalOf("INVITE", c.id)) }()
		stop := far.answerAll("INVITE", 486)
		r := <-answer
		stop()
		if r == nil || r.code() == 486 {
			if r == nil {
				l.t.Fatal("no response to the first call")
			}
			c.ackRefusal(r)
			return
		}
		c.ackRefusal(r)
		if time.Now().After(deadline) {
			l.t.Fatalf("%s is still answered %q", number, r.start)
		}
	}
}

// sub runs a subtest to which the lab and its peers report.
func (l *lab) sub(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	t.Run(name, func(sub *testing.T) {
		swap := func(t *testing.T) { l.t, l.core.t, l.dr.t, l.oc.t = t, t, t, t }
		swap(sub)
		defer swap(t)
		f(sub)
	})
}

// metrics reads the program's metrics.
func (l *lab) metrics() rig.Metrics {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	m, err := rig.ReadMetrics(ctx, l.prog)
	if err != nil {
		l.t.Fatal(err)
	}
	return m
}
