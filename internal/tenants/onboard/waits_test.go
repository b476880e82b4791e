package onboard_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// troubled is a cloud that refuses some calls.
type troubled struct {
	session
	refuse func(action plan.Action, r plan.Ref) error // action "" for reads
}

// errSlow lets a step be accepted, but not happen.
var errSlow = errors.New("accepted")

func (c troubled) Do(ctx context.Context, s plan.Step) error {
	if err := c.refuse(s.Action, s.Ref); errors.Is(err, errSlow) {
		return nil
	} else if err != nil {
		return err
	}
	return c.session.Do(ctx, s)
}

func (c troubled) Read(ctx context.Context, named []plan.Ref) ([]plan.Object, error) {
	if err := c.refuse("", plan.Ref{}); err != nil {
		return nil, err
	}
	return c.session.Read(ctx, named)
}

// room is a tenant that is to get its objects, and the runs for it.
type room struct {
	t    *testing.T
	rows *rows
	*cloud
	refuse func(plan.Action, plan.Ref) error
	did    []string // steps, refused ones too
}

func newRoom(t *testing.T, s *plan.Settings) *room {
	r := &room{t: t, rows: &rows{ledger: map[plan.Ref]plan.Made{}}, cloud: newCloud(foreign()...)}
	r.rows.tenant = onboard.Tenant{Account: "contoso", Pending: true}
	if s != nil {
		r.rows.tenant.Target = s.Objects(plan.NewState(foreign()), nil)
	}
	return r
}

func (r *room) run() (flow.Result, error) {
	p := &process{rows: r.rows, cloud: r.cloud}
	o := &onboard.Onboarder{Store: p, Clouds: func(context.Context, *onboard.Tenant) (onboard.Cloud, error) {
		return troubled{session{p}, func(a plan.Action, ref plan.Ref) error {
			if a != "" {
				r.did = append(r.did, string(a)+" "+string(ref.Type)+" "+ref.Name)
			}
			if r.refuse == nil {
				return nil
			}
			return r.refuse(a, ref)
		}}, nil
	}}
	return o.Reconcile(r.t.Context(), &flow.Run{Key: flow.Key{Kind: onboard.Kind, ID: "contoso"}})
}

// until runs when it is due, until the condition holds, and returns how many runs that took.
func (r *room) until(ok func(w *onboard.Waiting) bool) (runs int) {
	r.t.Helper()
	for runs = 1; runs < 1000; runs++ {
		result, err := r.run()
		if err != nil || result.Wait != "" {
			r.t.Fatalf("run %d: %+v, %v", runs, result, err)
		}
		if ok(r.rows.tenant.Waiting) {
			return runs
		}
		time.Sleep(time.Until(result.Again))
	}
	r.t.Fatalf("still %+v", r.rows.tenant.Waiting)
	return 0
}

func done(w *onboard.Waiting) bool { return w == nil }

func settings(trunk plan.Trunk) *plan.Settings {
	return &plan.Settings{Prefix: "Tandem-E164", Port: 5061, Licence: "MCOSTANDARD",
		Labels:  []plan.Label{{Name: "contoso", Trunk: trunk}},
		Regions: []string{"1r1.gw.example", "1r2.gw.example"},
		Rules:   []plan.Rule{{Name: "national", Pattern: `^0(\d+)$`, Translation: "+44$1"}}}
}

// What Microsoft refuses for now is a wait for Microsoft, whatever it takes; what a person must do waits for a person;
// only what nobody can do anything about is a failure.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err   error
		party onboard.Party // empty: a failure
		after time.Duration // until the next run, at least
	}{
		"5xx": {fault.New(fault.Unavailable, "GraphStatus503", "busy"), onboard.Microsoft, 0},
		"not ready": {fault.New(fault.Unavailable, "NotReady", "later").After(time.Minute), onboard.Microsoft,
			time.Minute},
		"in use":      {fault.New(fault.Unavailable, "ObjectInUse", "in use"), onboard.Microsoft, 0},
		"answer lost": {fault.New(fault.Unavailable, "OutcomeUnknown", "unknown"), onboard.Microsoft, 0},
		"rate limit": {fault.New(fault.Limited, "TooManyRequests", "slow").After(time.Hour), onboard.Microsoft,
			time.Hour},
		"record not visible": {fault.New(fault.Unavailable, onboard.CodeNotPublished, "ns1.example"), onboard.DNS, 0},
		"signed out":         {fault.New(fault.Unauthenticated, "SignInNeeded", "sign in"), onboard.Person, 0},
		"role missing":       {fault.New(fault.Forbidden, "TeamsRoleMissing", "give the role"), onboard.Person, 0},
		"usages lost":        {fault.New(fault.Conflict, "UsagesLost", "add them again"), onboard.Person, 0},
		"refused for good":   {fault.New(fault.Invalid, "Request_BadRequest", "no such thing"), "", 0},
		"a mistake of ours":  {errors.New("nil map"), "", 0},
	} {
		for _, reading := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(t, settings(plan.Derived))
				r.refuse = func(a plan.Action, ref plan.Ref) error {
					if reading == (a == "") && (reading || ref.Type == plan.Domain) {
						return c.err
					}
					return nil
				}
				result, err := r.run()
				w := r.rows.tenant.Waiting
				switch {
				case !r.rows.tenant.Pending:
					t.Errorf("%s: no longer pending", name)
				case c.party == "":
					if err == nil || !errors.Is(err, c.err) || w != nil {
						t.Errorf("%s: %+v, %v, want the failure", name, w, err)
					}
					return
				case err != nil || w == nil || w.For != c.party || w.Reason != fault.As(c.err).Message:
					t.Fatalf("%s: %+v, %v, want a wait for %s", name, w, err, c.party)
				case c.party == onboard.Person:
					if result.Wait != w.Reason {
						t.Errorf("%s: %+v", name, result)
					}
				case time.Until(result.Again) < max(c.after, time.Second) || result.Wait != "":
					t.Errorf("%s: again in %s", name, time.Until(result.Again))
				case !reading && (w.Object.Type != plan.Domain || w.Usual != 5*time.Minute ||
					w.Longest != 24*time.Hour):
					t.Errorf("%s: %+v", name, w)
				}
			})
		}
	}
}

// The customer's administrator reads what it has to do itself, and of everything else that the provider has to act:
// nothing that is written for the operator.
func TestWaitsForTheCustomer(t *testing.T) {
	t.Parallel()
	const provider, signIn = "your provider has to", "did not accept the sign-in"
	for name, c := range map[string]struct {
		err  error
		says string
	}{
		"licence": {fault.New(fault.Conflict, "NoLicence", "no licence is free: buy one"), "buy one"},
		"foreign users": {fault.New(fault.Conflict, "DomainInUse", "these have a name in it: user a; rename them"),
			"rename them"},
		"role": {fault.New(fault.Forbidden, "TeamsRoleMissing", "give the role Teams Administrator"), "give the role"},
		"another tenant has the name": {fault.New(fault.Conflict, "DomainElsewhere", "choose a new label"),
			"choose another name"},
		"signed out":   {fault.New(fault.Conflict, "SignInNeeded", "tandem tenant invite contoso"), signIn},
		"withdrawn":    {fault.New(fault.Conflict, "ConsentNeeded", "tandem tenant sign-in contoso"), signIn},
		"no way":       {fault.New(fault.Forbidden, "TeamsUnavailable", "set onboarding.teams"), provider},
		"wrong tenant": {fault.New(fault.Conflict, "TenantDiffers", "make a new plan"), provider},
		"unknown":      {fault.New(fault.Conflict, "Request_Conflict", "read it back"), provider},
		"nothing yet":  {fault.New(fault.Unavailable, onboard.CodeNotPublished, "ns1.internal"), "name servers"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRoom(t, settings(plan.Derived))
			r.refuse = func(plan.Action, plan.Ref) error { return c.err }
			if _, err := r.run(); err != nil {
				t.Fatal(err)
			}
			w := r.rows.tenant.Waiting
			if got := cmp.Or(w.Customer, w.Reason); !strings.Contains(got, c.says) || c.says == provider &&
				strings.Contains(got, fault.As(c.err).Message) {
				t.Errorf("%s: the customer reads %q, want %q", name, got, c.says)
			}
		})
	}

	for name, change := range map[string]func(*room){
		"names itself": func(r *room) { // solved by the customer
			r.cloud = newCloud(plan.Object{Ref: plan.Ref{Type: plan.DialPlan, Name: "Tandem-E164"},
				Fields: plan.Fields{"rules": nil}})
		},
		provider: func(r *room) { r.rows.tenant.Approved = "the hash of another plan" },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRoom(t, settings(plan.Derived))
			change(r)
			if _, err := r.run(); err != nil {
				t.Fatal(err)
			}
			w := r.rows.tenant.Waiting
			if w == nil || w.For != onboard.Person ||
				strings.HasPrefix(w.Customer, "your provider") != (name == provider) {
				t.Errorf("%s: %+v", name, w)
			}
		})
	}
}

// A wait says when it is longer than usual, and what can be done when it should have ended. It asks less and less
// often, and continues for days without a failure.
func TestLongWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, settings(plan.Derived))
		began := time.Now()
		r.refuse = func(a plan.Action, ref plan.Ref) error {
			if a == plan.Create && ref.Type == plan.Domain && time.Since(began) < 60*time.Hour {
				return fault.New(fault.Unavailable, "NotVerified", "the record was not seen")
			}
			return nil
		}
		since := func(d time.Duration) func(w *onboard.Waiting) bool {
			return func(w *onboard.Waiting) bool { return w == nil || time.Since(w.Since) >= d }
		}

		r.until(since(time.Minute))
		if w := r.rows.tenant.Waiting; w.Late || w.Reason != "the record was not seen" || !w.Since.Equal(began) {
			t.Errorf("after a minute: %+v", w)
		}
		r.until(since(20 * time.Minute))
		if w := r.rows.tenant.Waiting; !w.Late || !strings.Contains(w.Reason, "usually takes 5m0s, and at most 24h") {
			t.Errorf("after 20 minutes: %+v", w)
		}
		runs := r.until(since(25 * time.Hour))
		if w := r.rows.tenant.Waiting; !w.Late || !strings.Contains(w.Reason, "choose a new label") || runs > 150 ||
			!strings.Contains(w.Customer, "the record was not seen") || strings.Contains(w.Customer, "tandem") ||
			!strings.Contains(w.Customer, "your provider has to choose another name") {
			t.Errorf("after a day and %d runs: %+v", runs, w)
		}
		r.until(done)
		if r.rows.tenant.Pending {
			t.Error("still pending")
		}
	})
}

// While one domain waits, the others are begun.
func TestWaitsTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, settings(plan.Derived))
		r.refuse = func(a plan.Action, ref plan.Ref) error {
			if ref.Type == plan.Domain {
				return fault.New(fault.Unavailable, "NotVerified", "the record was not seen")
			}
			return nil
		}
		if _, err := r.run(); err != nil {
			t.Fatal(err)
		}
		want := "create domain contoso.1r1.gw.example, create domain contoso.1r2.gw.example"
		if got := strings.Join(r.did, ", "); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// While a domain waits, those below it are not begun: Microsoft would want a proof of each. It is not removed while one
// below it waits for its removal.
func TestDomainsBelow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var target []plan.Object
		for _, name := range []string{"gw.example", "1r1.gw.example", "other.example"} {
			target = append(target, plan.Object{Ref: plan.Ref{Type: plan.Domain, Name: name},
				Fields: plan.Fields{"verified": true}})
		}
		// did returns what a run does while a domain waits.
		did := func(r *room, domain string) string {
			t.Helper()
			r.did, r.refuse = nil, func(a plan.Action, ref plan.Ref) error {
				if a != "" && ref.Name == domain {
					return fault.New(fault.Unavailable, "GraphUnavailable", "no answer")
				}
				return nil
			}
			if _, err := r.run(); err != nil {
				t.Fatal(err)
			}
			return strings.Join(r.did, ", ")
		}
		r := newRoom(t, nil)
		r.rows.tenant.Target = target
		if got := did(r, "gw.example"); got != "create domain gw.example, create domain other.example" {
			t.Error(got)
		}

		r = newRoom(t, nil)
		r.rows.tenant.Target = target
		r.until(done)
		r.rows.tenant.Target, r.rows.tenant.Pending = nil, true
		if got := did(r, "1r1.gw.example"); got != "delete domain 1r1.gw.example, delete domain other.example" {
			t.Error(got)
		}
	})
}

// However many objects do not show what was done, a run says that it waits.
func TestManySlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := settings(plan.Derived)
		s.Labels = append(s.Labels, plan.Label{Name: "contoso2", Trunk: plan.Derived})
		r := newRoom(t, s)
		r.refuse = func(a plan.Action, ref plan.Ref) error {
			if ref.Type == plan.Domain {
				return errSlow
			}
			return nil
		}
		result, err := r.run()
		w := r.rows.tenant.Waiting
		if err != nil || w == nil || w.For != onboard.Microsoft || !result.Again.After(time.Now()) || len(r.did) != 4 {
			t.Errorf("%+v, %+v, %v; did %v", result, w, err, r.did)
		}
		r.refuse = nil
		r.until(done)
	})
}

// What users have stays until their own runs have put back what was before.
func TestUsersFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := settings(plan.Derived)
		s.Emergency = []plan.EmergencyNumber{{DialString: "112"}}
		r := newRoom(t, s)
		r.until(done)
		hold := func(numbers ...string) {
			for _, n := range numbers {
				o := plan.UserObject(s, plan.Activation{ID: n, Number: "+44207946020" + n})
				r.rows.ledger[o.Ref] = plan.Made{Object: o, Before: plan.Fields{}}
			}
		}
		waits := func(n string, again time.Duration) {
			t.Helper()
			r.did, r.rows.tenant.Pending = nil, true
			result, err := r.run()
			w := r.rows.tenant.Waiting
			if err != nil || w == nil || w.For != onboard.Tandem || !strings.HasSuffix(w.Reason, ": "+n+" users") ||
				time.Until(result.Again) != again || len(r.did) > 0 {
				t.Fatalf("%+v, %v; again in %s; did %v", w, err, time.Until(result.Again), r.did)
			}
		}

		hold("1", "2")
		r.rows.tenant.Target = r.rows.tenant.Target[:len(r.rows.tenant.Target)-1] // no emergency policy any more
		waits("2", time.Second)
		time.Sleep(time.Hour) // the tenant is read each time
		waits("2", 30*time.Second)
		r.rows.tenant.Target, r.rows.tenant.Waiting = nil, nil
		waits("2", time.Second)
		time.Sleep(20 * time.Second)
		waits("2", 5*time.Second)
		if ref := (plan.Ref{Type: plan.User, Name: "1"}); r.rows.ledger[ref].Name == "" {
			t.Error("the entry of a user is gone")
		}

		for ref := range r.rows.ledger {
			if ref.Type == plan.User {
				delete(r.rows.ledger, ref)
			}
		}
		r.until(done)
		if got := dump(r.cloud); got != dump(newCloud(foreign()...)) || len(r.rows.ledger) > 0 {
			t.Errorf("after leaving: %s%v", got, r.rows.ledger)
		}
	})
}

// With one licence for two activation users, the second waits for the first's domain, and for a person only if nothing
// will return the licence.
func TestOneSeat(t *testing.T) {
	t.Parallel()
	for _, free := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := settings(plan.Derived)
			s.ReuseSeat = true
			r := newRoom(t, s)
			activated := time.Now().Add(time.Hour)
			r.refuse = func(a plan.Action, ref plan.Ref) error {
				first := strings.HasSuffix(ref.Name, "@contoso.1r1.gw.example")
				if ref.Type == plan.ActivationUser && a == plan.Create &&
					(!free || !first && time.Now().Before(activated)) {
					return fault.New(fault.Conflict, onboard.CodeNoLicence, "buy one")
				}
				return nil
			}
			if !free {
				result, err := r.run()
				if err != nil || result.Wait != "buy one" || r.rows.tenant.Waiting.For != onboard.Person {
					t.Errorf("without a licence: %+v, %v", result, err)
				}
				return
			}

			r.until(done)
			for name, want := range map[string]string{"tandem.teams@contoso.1r1.gw.example": "",
				"tandem.teams@contoso.1r2.gw.example": ""} {
				if got := r.objects[plan.Ref{Type: plan.ActivationUser, Name: name}].Fields["licence"]; got != want {
					t.Errorf("%s has licence %q, want %q", name, got, want)
				}
			}
		})
	}
}

// The application is removed last, whenever the process ends; if Tandem may not do that, leaving ends without it.
func TestRemoveConsent(t *testing.T) {
	t.Parallel()
	for _, may := range []bool{true, false} {
		leave := func(at int, what string) (points int) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(t, settings(plan.Derived))
				r.keepConsent = !may
				r.rows.tenant.RemoveConsent = true
				drive(t, r.rows, r.cloud, 0, "")
				if !r.consented || r.rows.tenant.RemoveConsent {
					t.Errorf("onboarded: %+v", r.rows.tenant)
				}
				r.rows.tenant.Target, r.rows.tenant.Pending, r.rows.tenant.RemoveConsent = nil, true, true
				points = drive(t, r.rows, r.cloud, at, what)
				if r.consented == may || len(r.rows.ledger) > 0 || r.rows.tenant.Removing {
					t.Errorf("%s at %d: consented %t, %v", what, at, r.consented, r.rows.ledger)
				}
				if got := dump(r.cloud); got != dump(newCloud(foreign()...)) {
					t.Errorf("%s at %d: %s", what, at, got)
				}
			})
			return points
		}
		for points, at := leave(0, ""), 1; at <= points; at++ {
			leave(at, "kill")
			leave(at, "timeout after")
			leave(at, "signed out")
		}
	}
}

// A run that takes too long ends without a failure, and another continues.
func TestLongRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, settings(plan.Derived))
		r.refuse = func(a plan.Action, _ plan.Ref) error {
			time.Sleep(3 * time.Minute)
			return nil
		}
		if n := r.until(func(*onboard.Waiting) bool { return !r.rows.tenant.Pending }); n < 4 {
			t.Errorf("done in %d runs", n)
		}
	})
}

// A plan that is approved during a run takes its place.
func TestReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, settings(plan.Derived))
		r.refuse = func(a plan.Action, ref plan.Ref) error {
			if a != plan.Create || ref.Name != "contoso.1r2.gw.example" {
				return nil
			}
			objects := slices.Collect(maps.Values(r.objects))
			ledger := plan.NewLedger(slices.Collect(maps.Values(r.rows.ledger)))
			row := &r.rows.tenant
			row.Target, row.Pending, row.RemoveConsent = nil, true, true
			row.Approved = plan.Compare(nil, plan.NewState(objects), ledger).Hash()
			r.refuse = nil
			return fault.New(fault.Unavailable, "GraphStatus503", "busy")
		}
		result, err := r.run()
		if err != nil || result.Again.After(time.Now()) || r.rows.tenant.Approved == "" {
			t.Errorf("when another plan was approved: %+v, %v, %+v", result, err, r.rows.tenant)
		}
		r.until(done)
		if got := dump(r.cloud); got != dump(newCloud(foreign()...)) || r.consented {
			t.Errorf("after leaving: %s", got)
		}
	})
}
