package propagation

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

// customer is an account as the model knows it: its labels in lower case, and its numbers. The model knows no slots.
type customer struct {
	active, pending string
	numbers         map[domain.E164]line
}

// line is a number: whether it has Direct Routing, and the label that it records.
type line struct {
	on    bool
	label string
}

func (c *customer) has(label string) bool {
	return label != "" && (label == c.active || label == c.pending)
}

func (c *customer) records(label string) bool {
	for _, n := range c.numbers {
		if n.label == label {
			return true
		}
	}
	return false
}

func (c *customer) inUse() bool {
	for _, n := range c.numbers {
		if n.on {
			return true
		}
	}
	return false
}

// labels is a directory with its model.
type labels struct {
	dir       *directory.Directory
	customers map[string]*customer
}

func (x *labels) owner(label string) string {
	for name, c := range x.customers {
		if c.has(label) {
			return name
		}
	}
	return ""
}

func (x *labels) putNumber(account string, n domain.E164, on bool) error {
	_, err := x.dir.PutNumber(context.Background(), domain.Number{TelephoneNumber: n, AccountName: account,
		Services: map[domain.Service]domain.NumberService{directrouting.Service: {Enabled: on}}}, directory.Write{})
	return err
}

// step makes one random change, which must succeed exactly if the model allows it.
func (x *labels) step(t *rapid.T) {
	ctx := context.Background()
	name := rapid.SampledFrom([]string{"alpha", "beta"}).Draw(t, "account")
	c := x.customers[name]
	written := rapid.SampledFrom([]string{"one", "Two", "THREE", "four", c.active, c.pending}).Draw(t, "label")
	if written == "" {
		written = "two"
	}
	label := strings.ToLower(written)
	elsewhere := x.owner(label) != "" && x.owner(label) != name
	n := domain.E164("+4420794600" + rapid.SampledFrom([]string{"01", "02", "03"}).Draw(t, "number"))
	if name == "beta" {
		n += "9"
	}
	was, exists := c.numbers[n]
	what := rapid.SampledFrom([]string{"put", "pending", "remove", "activate", "record", "record", "record", "forget",
		"number", "delete"}).Draw(t, "what")
	var err error
	allowed := true
	switch what {
	case "put":
		_, err = x.dir.PutAccount(ctx, account(name, written, false), directory.Write{})
		switch {
		case label == c.active:
		case label == c.pending || elsewhere || c.inUse() || c.records(c.active):
			allowed = false
		default:
			c.active = label
		}
	case "pending":
		_, err = x.dir.PutPendingLabel(ctx, name, domain.Label{Subdomain: written, Region1Token: "a",
			Region2Token: "b"}, directory.Write{})
		if allowed = c.active != label && (c.pending == "" || c.pending == label) && !elsewhere; allowed {
			c.pending = label
		}
	case "remove":
		_, err = x.dir.RemovePendingLabel(ctx, name, written, directory.Write{})
		if allowed = c.pending == label && !c.records(label); allowed {
			c.pending = ""
		}
	case "activate":
		_, err = x.dir.ActivateLabel(ctx, name, written, directory.Write{})
		if allowed = c.has(label); allowed && label == c.pending {
			c.active, c.pending = c.pending, c.active
		}
	case "record", "forget":
		if what == "forget" {
			written, label = "", ""
		}
		err = x.dir.RecordLabel(ctx, name, written, []domain.E164{n})
		if allowed = exists && (label == "" || c.has(label)); allowed {
			c.numbers[n] = line{was.on, label}
		}
	case "number": // a PUT keeps the label
		on := rapid.IntRange(0, 2).Draw(t, "on") > 0
		c.numbers[n] = line{on, was.label}
		err = x.putNumber(name, n, on)
	case "delete":
		_, err = x.dir.DeleteNumber(ctx, name, n, directory.Write{})
		allowed = exists
		delete(c.numbers, n)
	}
	if (err == nil) != allowed {
		t.Fatalf("%s of %s, label %q, number %s: %v, allowed %v; %+v", what, name, written, n, err, allowed, *c)
	}
}

// check places calls in both directions.
func (x *labels) check(t *rapid.T, how string, view route.View, policy *route.Policy, profile leg.Profile) {
	for _, label := range []string{"one", "two", "three", "four", "other"} {
		for _, region := range []string{"1r1", "1r2"} {
			d := route.Decide(view, policy, domain.CallFacts{PeerGroup: "teams", Called: "+12025550199",
				Host: label + "." + region + ".gw.example.com", From: domain.Party{Number: "+12025550100"}})
			want := x.owner(label)
			if got := d.Outcome == route.ToCore; got != (want != "") || got && (d.Account.Name != want ||
				contact(t, profile, d) != label+".1r1.gw.example.com") {
				t.Fatalf("%s: a call from Teams under %s: %+v; the label belongs to %q", how, label, d, want)
			}
		}
	}
	for name, c := range x.customers {
		for n, l := range c.numbers {
			want := l.label
			if want == "" {
				want = c.active
			}
			d := route.Decide(view, policy, domain.CallFacts{PeerGroup: "core", Called: string(n),
				From: domain.Party{Number: "+12025550100"}})
			if got := d.Outcome == route.ToService; got != l.on ||
				got && contact(t, profile, d) != want+".1r1.gw.example.com" {
				t.Fatalf("%s: a call to %s of %s: %+v; want it under %s, %+v", how, n, name, d, want, l)
			}
		}
	}
}

// contact returns the host of Contact in messages of the call to Teams.
func contact(t *rapid.T, p leg.Profile, d route.Decision) string {
	m := sip.NewRequest(sip.INVITE, "sip:+12025550199@example.net")
	m.AddName("From", "<sip:+12025550100@example.net>;tag=1")
	m.AddName("To", "<sip:+12025550199@example.net>")
	m.AddName("Contact", "<sip:192.0.2.1>")
	p.ToService(m, &leg.Leg{Call: &d, Local: leg.Addr{Host: "x", Port: 5061, Transport: "tls"},
		Remote: leg.Addr{Host: "sip.pstnhub.microsoft.com", Port: 5061, Transport: "tls"}})
	a, err := sip.ParseNameAddr(m.Get(sip.KindContact))
	if err != nil {
		t.Fatalf("Contact of %q: %v", m, err)
	}
	u, err := a.URI()
	if err != nil {
		t.Fatalf("Contact of %q: %v", m, err)
	}
	return u.Host
}

// TestTwoLabelsForEachAccount: accounts get, activate and lose labels, and numbers record them, in any order. Calls
// from Teams are accepted exactly under the labels that accounts own; calls to Teams carry the label that the number
// records, else the active one. So decide an index that follows the feed, one that loads the database, and one that is
// read from disk.
func TestTwoLabelsForEachAccount(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		ctx := context.Background()
		log := slog.New(slog.DiscardHandler)
		o := outbox.New(d, outbox.Default(), log, nil)
		st := provisioning.New(d, o, services.All().Services())
		x := &labels{dir: directory.New(st, directory.Config{BaseDomain: "gw.example.com"}, log, nil)}
		run(t, d.Run, o.Run)
		follower := open(t, t.TempDir(), st.Source())
		run(t, follower.Run)
		policy, profile := routing(t), legtest.Profile(t, directrouting.New)
		rapid.Check(t, func(rt *rapid.T) {
			x.customers = map[string]*customer{}
			for _, name := range []string{"alpha", "beta"} { // of the try before
				_, err := x.dir.DeleteAccount(ctx, name, true, directory.Write{})
				if err != nil && !fault.HasCode(err, directory.CodeAccountNotFound) {
					rt.Fatal(err)
				}
			}
			for name, label := range map[string]string{"alpha": "one", "beta": "two"} {
				a := account(name, label, false)
				if _, err := x.dir.PutAccount(ctx, a, directory.Write{}); err != nil {
					rt.Fatal(err)
				}
				x.customers[name] = &customer{active: label, numbers: map[domain.E164]line{}}
			}
			if rapid.IntRange(0, 3).Draw(rt, "begins") > 0 { // further than the empty account
				c := x.customers["alpha"]
				_, err := x.dir.PutPendingLabel(ctx, "alpha", domain.Label{Subdomain: "four", Region1Token: "a",
					Region2Token: "b"}, directory.Write{})
				for _, n := range []domain.E164{"+442079460001", "+442079460002"} {
					err = cmp.Or(err, x.putNumber("alpha", n, true))
					c.numbers[n] = line{on: true}
				}
				if c.pending = "four"; err != nil {
					rt.Fatal(err)
				}
			}
			for range rapid.IntRange(5, 25).Draw(rt, "steps") {
				x.step(rt)
			}
			head, err := o.Head(ctx)
			if err != nil {
				rt.Fatal(err)
			}
			wait(t, follower, head.Position)
			x.check(rt, "follower", follower.Route(), policy, profile)
			if rapid.IntRange(0, 3).Draw(rt, "load") > 0 {
				return
			}
			dir := t.TempDir()
			loader := open(t, dir, st.Source())
			stop := run(t, loader.Run)
			wait(t, loader, head.Position)
			x.check(rt, "loader", loader.Route(), policy, profile)
			stop()
			x.check(rt, "from disk", open(t, dir, away{}).Route(), policy, profile)
		})
	})
}
