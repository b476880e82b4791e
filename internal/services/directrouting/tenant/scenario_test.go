package tenant_test

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
)

// delays are in proportion those that people report of the real service, but shorter, so that there are less requests
// to disturb.
func delays(s *microsoft.Settings) {
	s.Propagation, s.TeamsPropagation, s.ActivationDelay = 2*time.Second, 3*time.Second, 30*time.Second
}

// way is a way to onboard.
type way struct {
	trunk            plan.Trunk // empty for the operator's own tenant
	signedIn, reuses bool
	restores         bool // from a snapshot, after leaving
	atOnce           bool // domains are activated without a delay
}

// target returns what the tenant should have.
func (w way) target(b *bed, m *memory) []plan.Object {
	if w.trunk == "" {
		return trunks.Objects("MCOSTANDARD", nil)
	}
	s := b.settings(w.trunk)
	s.ReuseSeat = w.reuses
	target := b.target(s)
	if !w.restores {
		return target
	}

	shots := b.snapshots(m)
	b.join(m, target)
	_, err := shots.Take(b.t.Context(), "contoso", snapshot.Leave)
	b.must(err)
	b.join(m, nil)
	b.purge()
	r, err := shots.Restore(b.t.Context(), "contoso", "")
	b.must(err)
	return r.Objects
}

// disturbed onboards and leaves while one request is disturbed, and returns what the tenant and the ledger have in
// between, and the number of requests. Afterwards it must have what it had before.
func disturbed(t *testing.T, w way, how string, at int) (joined any, requests int) {
	b := newBed(t)
	b.tenant.Set(delays)
	if w.atOnce {
		b.tenant.Set(func(s *microsoft.Settings) { s.ActivationDelay = 0 })
	}
	if w.signedIn {
		b.signIn()
	}
	if w.reuses {
		seats(microsoft.NewSKU("MCOSTANDARD", 1))(b)
	}
	b.bubble(func() {
		before := b.dump()
		m := b.memory()
		target := w.target(b, m)
		b.requests, b.at, b.how = 0, at, how
		waits := b.join(m, target)
		var made []string
		for r := range m.ledger {
			made = append(made, string(r.Type)+" "+r.Name)
		}
		slices.Sort(made)
		joined = []any{b.content(), made}
		waits = append(waits, b.join(m, nil)...)
		for _, w := range waits {
			if strings.HasPrefix(w, "failure") {
				b.t.Errorf("%s at %d: %s", how, at, w)
			}
		}
		requests = b.requests
		if !w.signedIn {
			b.purge()
		}
		b.same("after leaving", before, b.dump())
		if len(m.ledger) > 0 {
			b.t.Errorf("in the ledger: %v", m.ledger)
		}
	})
	return joined, requests
}

// Whatever disturbs one request, whichever it is, the tenant ends as without that, after onboarding and after leaving.
func TestDisturbedRequests(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]way{
		"derived trunks":               {trunk: plan.Derived},
		"derived trunks with one seat": {trunk: plan.Derived, reuses: true},
		"gateways, signed in":          {trunk: plan.Gateways, signedIn: true},
		"derived trunks, at once":      {trunk: plan.Derived, atOnce: true},
		"the operator's trunks":        {signedIn: true},
		"derived trunks, restored":     {trunk: plan.Derived, restores: true},
		"gateways, restored":           {trunk: plan.Gateways, restores: true, signedIn: true},
	} {
		joined, requests := disturbed(t, w, "", 0)
		t.Logf("%s: %d requests", name, requests)
		if requests < 100 {
			t.Fatalf("%s: %d requests only", name, requests)
		}
		for n, how := range []string{"timeout before", "timeout after", "429", "500", "expired", "kill before",
			"kill after"} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				for at := 1 + (n+len(name))%7*every/7; at <= requests; at += every {
					t.Run(strconv.Itoa(at), func(t *testing.T) { // with a bed that ends
						got, _ := disturbed(t, w, how, at)
						if diff := cmp.Diff(joined, got); diff != "" {
							t.Errorf("after onboarding (-undisturbed +disturbed):\n%s", diff)
						}
					})
				}
			})
		}
	}
}

// Whatever a tenant has, onboarding and leaving change nothing of it.
func TestRandomTenants(t *testing.T) {
	t.Parallel()
	const tenants = 1000
	for worker := range 4 {
		t.Run(strconv.Itoa(worker), func(t *testing.T) {
			t.Parallel()
			for seed := worker; seed < tenants; seed += 4 * every {
				t.Run(strconv.Itoa(seed), func(t *testing.T) { // with a bed that ends
					b := newBedOf(t, microsoft.Spec{Users: seed * 7 % 60, Foreign: seed % 6, Seed: uint64(seed)})
					seats(microsoft.NewSKU("MCOSTANDARD", 2))(b)
					if seed%3 == 0 {
						b.signIn()
					}
					b.bubble(func() {
						before, m := b.dump(), b.memory()
						s := b.settings([]plan.Trunk{plan.Derived, plan.Gateways}[seed%2])
						s.OwnUsageOnly, s.ReuseSeat = seed%5 == 0, seed%7 == 0
						if seed%4 == 0 {
							s.Prefix, s.Pattern = "Branch-1", `^\+?\d+$`
						}
						b.join(m, b.target(s))
						b.join(m, nil)
						b.purge()
						b.same("after leaving", before, b.dump())
					})
				})
			}
		})
	}
}

// scenario prepares a bed and continues in a bubble, with a store and what the tenant has before.
func scenario(t *testing.T, prepare func(b *bed), f func(b *bed, m *memory, before string)) {
	t.Helper()
	b := newBed(t)
	if prepare != nil {
		prepare(b)
	}
	b.bubble(func() { f(b, b.memory(), b.dump()) })
}

func (b *bed) waited(waits []string, want ...string) {
	b.t.Helper()
	for _, w := range want {
		if !slices.ContainsFunc(waits, func(s string) bool { return strings.Contains(s, w) }) {
			b.t.Errorf("waited for %q, not for %q", waits, w)
		}
	}
	if len(waits) > len(want) {
		b.t.Errorf("waited for %q, want only %q", waits, want)
	}
}

// The record of a domain is published, seen on all name servers, and only then shown to Microsoft, which may need
// longer.
func TestDomainSteps(t *testing.T) {
	t.Parallel()
	scenario(t, func(b *bed) { b.deaf = 4 }, func(b *bed, m *memory, before string) {
		verifications := func() (n int) {
			b.outside(func() {
				for c, count := range b.cloud.Requests() {
					if strings.HasSuffix(c.Path, "/verify") {
						n += count
					}
				}
			})
			return n
		}
		m.tenant = onboard.Tenant{Account: "contoso", Pending: true, Target: b.target(b.settings(plan.Derived))}
		for range 2 {
			_, err := b.run(m)
			w := m.tenant.Waiting
			if err != nil || w == nil || w.For != onboard.DNS || !strings.Contains(w.Reason, "ns2.gw.example") {
				b.t.Fatalf("while a name server is deaf: %+v, %v", w, err)
			}
		}
		if n := verifications(); n > 0 {
			b.t.Errorf("Microsoft was asked %d times before all name servers answered", n)
		}

		prove := b.reach.Prove
		b.reach.Prove = func(context.Context, string, string) error { return nil } // Microsoft has an old answer
		if _, err := b.run(m); err != nil || m.tenant.Waiting.For != onboard.Microsoft || verifications() != 2 {
			b.t.Errorf("while Microsoft does not see the record: %+v, %v", m.tenant.Waiting, err)
		}
		b.reach.Prove = prove
		b.waited(b.join(m, m.tenant.Target))
		b.join(m, nil)
		b.purge()
		b.same("after leaving", before, b.dump())
	})
}

// A domain is verified in one tenant only: a person decides, perhaps to leave again.
func TestDomainElsewhere(t *testing.T) {
	t.Parallel()
	other := func(b *bed) *microsoft.Tenant { return b.cloud.AddTenant(microsoft.Spec{Name: "fabrikam", Seed: 3}) }
	var elsewhere *microsoft.Tenant
	scenario(t, func(b *bed) {
		elsewhere = other(b)
		elsewhere.Edit(func(s *microsoft.State) {
			s.Domains = append(s.Domains, &microsoft.Domain{Name: "contoso.1r2.gw.example", Verified: true})
		})
	}, func(b *bed, m *memory, before string) {
		var waits []string
		if b.attempt(m, b.target(b.settings(plan.Derived)), &waits) {
			b.t.Fatal("onboarded a domain of another tenant")
		}
		b.waited(waits, "person: contoso.1r2.gw.example is verified in another tenant: an administrator of that one "+
			"removes it there, or choose a new label for the account")
		target := m.tenant.Target
		b.join(m, nil)
		b.purge()
		b.same("after leaving", before, b.dump())

		b.outside(func() {
			elsewhere.Edit(func(s *microsoft.State) { s.Domains = s.Domains[:len(s.Domains)-1] })
		})
		b.waited(b.join(m, target))
	})
}

// Domains that a person has added stay, and so does a user with a name like Tandem's.
func TestOthersStay(t *testing.T) {
	t.Parallel()
	const added, verified = "contoso.1r1.gw.example", "contoso.1r2.gw.example"
	scenario(t, func(b *bed) {
		b.tenant.Edit(func(s *microsoft.State) {
			s.Domains = append(s.Domains, &microsoft.Domain{Name: added, Root: true},
				&microsoft.Domain{Name: verified, Root: true, Verified: true})
			u := s.AddUser(&microsoft.User{UPN: "tandem.teams@" + verified, DisplayName: "Teams Gateway",
				UsageLocation: "GB"})
			s.License(u, microsoft.License{SKU: s.SKUs[0].ID})
		})
	}, func(b *bed, m *memory, before string) {
		b.waited(b.join(m, b.target(b.settings(plan.Derived))))
		b.join(m, nil)
		b.purge()
		b.edit(func(s *microsoft.State) {
			for _, d := range s.Domains {
				if d.Name == added && d.Verified {
					*d = microsoft.Domain{Name: added, Root: true} // the one thing that stays changed
				}
			}
		})
		b.same("after leaving", before, b.dump())
	})
}

// seats leaves a tenant with these subscriptions only.
func seats(skus ...*microsoft.SKU) func(*bed) {
	return func(b *bed) {
		b.tenant.Set(delays)
		b.tenant.Edit(func(s *microsoft.State) {
			for _, u := range s.Users {
				for _, l := range slices.Clone(u.Licenses) {
					s.Unlicense(u, l.SKU)
				}
				u.LostPlans = nil
			}
			s.SKUs = skus
		})
	}
}

// A process that ends when it has taken a licence leaves it to the next one to see that, however late it shows; one
// that is taken while another is given does not keep that from being given. No run fails, and no person is asked.
func TestLicenceTakenBefore(t *testing.T) {
	t.Parallel()
	useless := microsoft.NewSKU("MCOSTANDARD", 0)
	useless.Enabled, useless.Warning = 0, 5
	for how, skus := range map[string][]*microsoft.SKU{
		"kill after": {microsoft.NewSKU("MCOSTANDARD", 1)},
		"":           {useless, microsoft.NewSKU("MCOEV", 2)}, // a person takes it
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			prepare := func(b *bed) {
				seats(skus...)(b)
				b.tenant.Set(func(s *microsoft.Settings) { s.WarningSeatsFail, s.Propagation = true, 20*time.Second })
			}
			scenario(t, prepare, func(b *bed, m *memory, before string) {
				s := b.settings(plan.Derived)
				s.ReuseSeat = len(skus) == 1
				b.how, b.hits = how, func(path, body string) bool {
					if !strings.HasSuffix(path, "/assignLicense") || strings.Contains(body, `"removeLicenses":[]`) {
						return false
					}
					if how == "" {
						id := strings.Split(path, "/")[3]
						b.edit(func(s *microsoft.State) { s.Unlicense(s.User(id), useless.ID) })
					}
					return true
				}
				for _, w := range b.join(m, b.target(s)) {
					if strings.HasPrefix(w, "failure") || strings.HasPrefix(w, "person") {
						b.t.Error(w)
					}
				}
				if b.hits != nil {
					b.t.Error("no licence was taken")
				}
				b.join(m, nil)
				b.purge()
				b.same("after leaving", before, b.dump())
			})
		})
	}
}

// Activation users get what licences there are; where seats in "warning" are refused, the next candidate (tenant-cases
// 7).
func TestSeats(t *testing.T) {
	t.Parallel()
	sku := func(part string, enabled int, more func(*microsoft.SKU)) *microsoft.SKU {
		k := microsoft.NewSKU(part, enabled)
		if more != nil {
			more(k)
		}
		return k
	}
	ending := func(k *microsoft.SKU) { k.Enabled, k.Warning = 0, 5 }
	users := func(b *bed) map[string]string {
		got := map[string]string{}
		b.edit(func(s *microsoft.State) {
			for _, u := range s.Users {
				if _, domain, _ := strings.Cut(u.UPN, "@"); strings.HasPrefix(u.UPN, "tandem.teams@") {
					for _, l := range u.Licenses {
						got[domain] += l.Error + s.SKUs[slices.IndexFunc(s.SKUs, func(k *microsoft.SKU) bool {
							return k.ID == l.SKU
						})].Part
					}
				}
			}
		})
		return got
	}

	for name, c := range map[string]struct {
		skus     []*microsoft.SKU
		settings func(*plan.Settings)
		tenant   func(*microsoft.Settings)
		want     [2]string // parts of the products
		waits    string
	}{
		"the plan": {skus: []*microsoft.SKU{sku("ENTERPRISEPREMIUM", 5, nil), sku("MCOSTANDARD", 5, nil)},
			want: [2]string{"MCOSTANDARD", "MCOSTANDARD"}},
		"another plan": {skus: []*microsoft.SKU{sku("Microsoft_Teams_Enterprise_New", 5, nil)},
			want: [2]string{"Microsoft_Teams_Enterprise_New", "Microsoft_Teams_Enterprise_New"}},
		"a seat in the grace period": {skus: []*microsoft.SKU{sku("MCOSTANDARD", 0, ending)},
			want: [2]string{"MCOSTANDARD", "MCOSTANDARD"}},
		"one that has no effect": {skus: []*microsoft.SKU{sku("MCOSTANDARD", 0, ending), sku("MCOEV", 2, nil)},
			tenant: func(s *microsoft.Settings) { s.WarningSeatsFail = true }, want: [2]string{"MCOEV", "MCOEV"}},
		"none": {skus: []*microsoft.SKU{sku("MCOSTANDARD", 0, nil)}, waits: "person: no licence is free"},
		"a resource account is not taken unasked": {skus: []*microsoft.SKU{sku("PHONESYSTEM_VIRTUALUSER", 25, nil)},
			waits: "person: no licence is free"},
		"a resource account": {skus: []*microsoft.SKU{sku("PHONESYSTEM_VIRTUALUSER", 25, nil)},
			settings: func(s *plan.Settings) { s.Licence = plan.ResourceAccount },
			tenant:   func(s *microsoft.Settings) { s.ResourceAccountsActivate = true },
			want:     [2]string{"PHONESYSTEM_VIRTUALUSER", "PHONESYSTEM_VIRTUALUSER"}},
		"one seat": {skus: []*microsoft.SKU{sku("MCOSTANDARD", 1, nil)}, waits: "person: no licence is free",
			want: [2]string{"MCOSTANDARD", ""}},
		"one seat for both": {skus: []*microsoft.SKU{sku("MCOSTANDARD", 1, nil)},
			settings: func(s *plan.Settings) { s.ReuseSeat = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prepare := func(b *bed) {
				seats(c.skus...)(b)
				if c.tenant != nil {
					b.tenant.Set(c.tenant)
				}
			}
			scenario(t, prepare, func(b *bed, m *memory, before string) {
				s := b.settings(plan.Derived)
				if c.settings != nil {
					c.settings(s)
				}
				var waits []string
				done := b.attempt(m, b.target(s), &waits)
				if done != (c.waits == "") || !done && !strings.Contains(waits[len(waits)-1], c.waits) {
					b.t.Errorf("done: %t; waited for %q, want %q", done, waits, c.waits)
				}
				got := users(b)
				if g := [2]string{got["contoso.1r1.gw.example"], got["contoso.1r2.gw.example"]}; g != c.want {
					b.t.Errorf("the users have %q, want %q", g, c.want)
				}

				b.join(m, nil)
				b.purge()
				b.same("after leaving", before, b.dump())
			})
		})
	}
}

// An application cannot purge users. They stay in the bin, where they may keep the domain or not, and do not keep
// Tandem from coming back.
func TestBin(t *testing.T) {
	t.Parallel()
	for _, blocks := range []bool{false, true} {
		for _, signedIn := range []bool{false, true} {
			prepare := func(b *bed) {
				b.tenant.Set(func(s *microsoft.Settings) { s.BinBlocksDomain = blocks })
				if signedIn {
					b.signIn()
				}
			}
			scenario(t, prepare, func(b *bed, m *memory, before string) {
				target := b.target(b.settings(plan.Derived))
				for range 2 {
					b.waited(b.join(m, target))
					if blocks && !signedIn {
						m.tenant.Target, m.tenant.Pending = nil, true
						_, err := b.run(m)
						if w := m.tenant.Waiting; err != nil || w.For != onboard.Microsoft ||
							!strings.Contains(w.Reason, "or Microsoft does after 30 days") {
							b.t.Fatalf("waits for %+v, %v", w, err)
						}
						continue
					}
					b.waited(b.join(m, nil))
				}
				if !signedIn {
					b.purge()
				}
				b.join(m, nil)
				b.same("after leaving", before, b.dump())
			})
		}
	}
}

// A person who signs in later ends what an application began: a user that an ended process has deleted is purged.
func TestPurgeAfterEnd(t *testing.T) {
	t.Parallel()
	scenario(t, (*bed).signIn, func(b *bed, m *memory, before string) {
		b.join(m, b.target(b.settings(plan.Derived)))
		b.edit(func(s *microsoft.State) {
			s.DeleteUser(s.User("tandem.teams@contoso.1r1.gw.example"))
		})
		b.join(m, nil)
		b.same("after leaving", before, b.dump())
	})
}

// What other people have built upon Tandem's objects stops leaving, by name. Nothing is forced.
func TestWhatStandsInTheWay(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		build, undo func(s *microsoft.State)
		want        string
	}{
		"a user": {func(s *microsoft.State) {
			s.AddUser(&microsoft.User{UPN: "anna@contoso.1r1.gw.example", DisplayName: "Anna"})
		}, func(s *microsoft.State) {
			s.PurgeUser(s.User("anna@contoso.1r1.gw.example"))
		}, "domain contoso.1r1.gw.example cannot be removed, because reference user anna@contoso.1r1.gw.example " +
			"names it"},
		"a group with the policy": {func(s *microsoft.State) {
			s.GroupGrants = append(s.GroupGrants, microsoft.GroupGrant{Group: s.Groups[0].ID,
				Type: "OnlineVoiceRoutingPolicy", Policy: "Tandem-E164", Rank: 1})
		}, func(s *microsoft.State) {
			s.GroupGrants = s.GroupGrants[:len(s.GroupGrants)-1]
		}, "routingPolicy Tandem-E164 cannot be removed, because groupGrant "},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			scenario(t, nil, func(b *bed, m *memory, before string) {
				b.join(m, b.target(b.settings(plan.Derived)))
				b.edit(c.build)
				joined := b.dump()
				var waits []string
				if b.attempt(m, nil, &waits) {
					b.t.Fatal("left all the same")
				}
				b.waited(waits, "person: "+c.want)
				b.same("while that is in the way", joined, b.dump())

				b.edit(c.undo)
				b.join(m, nil)
				b.purge()
				b.same("after leaving", before, b.dump())
				b.outside(func() {
					for r, n := range b.cloud.Requests() {
						if strings.Contains(r.Path, "forceDelete") {
							b.t.Errorf("forced %d times", n)
						}
					}
				})
			})
		})
	}
}

// Users to whom a person gave Tandem's policy are named while it cannot be removed.
func TestHoldersAreNamed(t *testing.T) {
	t.Parallel()
	scenario(t, nil, func(b *bed, m *memory, before string) {
		b.join(m, b.target(b.settings(plan.Derived)))
		give := func(policies map[string]string) (old map[string]string) {
			b.edit(func(s *microsoft.State) {
				u := s.User("user000002@" + b.tenant.Initial)
				old, u.Policies = u.Policies, policies
			})
			return old
		}
		old := give(map[string]string{"OnlineVoiceRoutingPolicy": "Tandem-E164"})
		m.tenant.Target, m.tenant.Pending = nil, true
		_, err := b.run(m)
		w := m.tenant.Waiting
		if err != nil || w == nil || w.For != onboard.Microsoft || !strings.Contains(w.Reason, "user000002@") {
			b.t.Errorf("waits for %+v, %v", w, err)
		}
		give(old)
		b.join(m, nil)
		b.purge()
		b.same("after leaving", before, b.dump())
	})
}

// The numbers that a person gave an activation user are taken before its licence and before it is deleted.
func TestNumbersFirst(t *testing.T) {
	t.Parallel()
	for _, release := range []bool{true, false} {
		scenario(t, nil, func(b *bed, m *memory, before string) {
			s := b.settings(plan.Derived)
			s.Licence = "MCOEV"
			b.join(m, b.target(s))
			const number = "+442079460998"
			b.edit(func(s *microsoft.State) {
				u := s.User("tandem.teams@contoso.1r1.gw.example")
				s.License(u, microsoft.License{SKU: s.SKUs[0].ID})
				s.Numbers[number] = &microsoft.Number{Number: number, Target: u.ID, Category: "primary"}
			})
			b.outside(func() { b.tenant.EndOperations("failed") }) // then the number is still held
			const held = "has a number that cannot be taken from it"
			if s.ReuseSeat = release; release {
				b.waited(b.join(m, b.target(s)), held)
				b.edit(func(s *microsoft.State) {
					u := s.User("tandem.teams@contoso.1r1.gw.example")
					if s.Numbers[number] != nil || len(u.Licenses) > 0 {
						b.t.Errorf("number %v, licences %v", s.Numbers[number], u.Licenses)
					}
				})
				b.join(m, nil)
			} else {
				b.waited(b.join(m, nil), held)
			}
			b.purge()
			b.same("after leaving", before, b.dump())
		})
	}
}

// tenant-cases 17: an emergency policy has the numbers of its own, and none of the tenant's.
func TestEmergencyNumbers(t *testing.T) {
	t.Parallel()
	prepare := func(b *bed) {
		b.tenant.Set(func(s *microsoft.Settings) { s.CopyGlobalNumbers, s.TeamsPropagation = true, 45*time.Second })
		b.tenant.Edit(func(s *microsoft.State) {
			usages := s.Configurations["OnlinePstnUsages"]["global"]
			usages["Usage"] = append(usages["Usage"].([]any), "Foreign911")
			s.Configurations["TeamsEmergencyCallRoutingPolicy"]["global"]["EmergencyNumbers"] = []any{
				map[string]any{"EmergencyDialString": "911", "EmergencyDialMask": "933",
					"OnlinePSTNUsage": "Foreign911"}}
		})
	}
	scenario(t, prepare, func(b *bed, m *memory, _ string) {
		b.join(m, b.target(b.settings(plan.Derived)))
		var got string
		b.edit(func(s *microsoft.State) {
			p := s.Configurations["TeamsEmergencyCallRoutingPolicy"]["tandem-e164"]
			text, _ := json.Marshal(p["EmergencyNumbers"])
			got = string(text)
		})
		want := `[{"EmergencyDialMask":"999","EmergencyDialString":"112","OnlinePSTNUsage":"Tandem-E164"}]`
		if got != want {
			b.t.Errorf("the policy has %s, want %s", got, want)
		}
	})
}

// The application is removed last, by whoever may, even if the answer is lost with the process.
func TestConsentRemoved(t *testing.T) {
	t.Parallel()
	for _, signedIn := range []bool{true, false} {
		var prepare func(b *bed)
		if signedIn {
			prepare = (*bed).signIn
		}
		last := 0 // request, which removes the application
		for _, how := range []string{"", "timeout before", "timeout after", "expired", "kill before", "kill after"} {
			scenario(t, prepare, func(b *bed, m *memory, _ string) {
				b.join(m, b.target(b.settings(plan.Derived)))
				m.tenant.RemoveConsent = true
				b.requests, b.at, b.how = 0, last, how
				b.join(m, nil)
				if how == "" {
					last = b.requests
				}
				b.edit(func(s *microsoft.State) {
					there := slices.ContainsFunc(s.Principals, func(p *microsoft.Principal) bool {
						return p.App == clientID
					})
					if there == signedIn {
						b.t.Errorf("%s: signed in: %t; the application is there: %t", how, signedIn, there)
					}
				})
			})
		}
	}
}
