package directory_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services/callprotection"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/services/phonemobile"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

// model is the directory as two maps, with the rules written down a second time as plainly as possible. Services are
// single letters: O Operator Connect, D Direct Routing, M Phone Mobile, Z Zoom, C Call Protection.
type model struct {
	accounts map[string]modelAccount
	numbers  map[string]modelNumber
	follower map[string]string // what a reader of the feed knows: "account x" or "number y" -> its routing data
	at       feed.Cursor
	changes  int // writes that changed something, each with one audit row
}

type modelAccount struct{ services, label, tenant string }
type modelNumber struct{ account, services, header string }

var letters = map[rune]domain.Service{'O': operatorconnect.Service, 'D': directrouting.Service,
	'M': phonemobile.Service,
	'Z': zoom.Service, 'C': callprotection.Service}

func set(services string) domain.ServiceSet {
	var x domain.ServiceSet
	for _, l := range services {
		x = x.With(letters[l])
	}
	return x
}

func (m *model) uses(account, service string) bool {
	for _, n := range m.numbers {
		if n.account == account && strings.Contains(n.services, service) {
			return true
		}
	}
	return false
}

// together reports whether one number may have these services.
func together(services string) bool {
	one := 0
	for _, l := range "ODMZ" {
		if strings.ContainsRune(services, l) {
			one++
		}
	}
	return one <= 1 && !(strings.Contains(services, "C") && strings.ContainsAny(services, "OMZ"))
}

// putAccount returns the expected result of a PutAccount: "" for success, or the code.
func (m *model) putAccount(name string, a modelAccount) string {
	old, ok := m.accounts[name]
	if ok {
		for _, l := range "DOMZC" { // in the order of the services' numbers
			if !m.uses(name, string(l)) {
				continue
			}
			if !strings.ContainsRune(a.services, l) {
				return directory.CodeServiceInUse
			}
			if l == 'D' && !strings.EqualFold(a.label, old.label) {
				return directory.CodeSubdomainInUse
			}
			if strings.ContainsRune("OM", l) && a.tenant != old.tenant {
				return directory.CodeTenantInUse
			}
		}
	}
	if ok && a == old {
		return ""
	}
	for other, o := range m.accounts {
		if other != name && a.label != "" && strings.EqualFold(o.label, a.label) {
			return directory.CodeSubdomainTaken
		}
	}
	m.accounts[name] = a
	m.changes++
	return ""
}

// number returns what is wrong with a number for an account, "" for nothing, and what would be stored.
func (m *model) number(account, key string, n modelNumber) (string, modelNumber) {
	old, ok := m.numbers[key]
	n.account = account
	if ok && old.account != account {
		return directory.CodeNumberElsewhere, n
	}
	for _, l := range "DOMZC" {
		if !strings.ContainsRune(n.services, l) {
			continue
		}
		if !strings.ContainsRune(m.accounts[account].services, l) {
			return directory.CodeServiceNotEnabled, n
		}
		if !together(n.services) && excludedByAny(l, n.services) {
			return directory.CodeServicesExcludeEachOther, n
		}
	}
	if n.header != "" && n.services != "" && !strings.ContainsAny(n.services, "ODZ") {
		return directory.CodeCustomHeaderUnsupported, n
	}
	return "", n
}

func excludedByAny(l rune, services string) bool {
	for _, o := range services {
		if o != l && !together(string(l)+string(o)) {
			return true
		}
	}
	return false
}

func (m *model) store(key string, n modelNumber) bool {
	if old, ok := m.numbers[key]; ok && old == n {
		return false
	}
	m.numbers[key] = n
	return true
}

func TestDirectoryBehavesLikeTheModel(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		runs := 0
		rapid.Check(t, func(rt *rapid.T) {
			// The rules are the same on both databases; fewer runs suffice to check the statements. For many more runs
			// on both: go test ./internal/provisioning/directory -run Model -rapid.checks 2000
			if runs++; runs%4 != 0 || h.db.Driver() == db.Postgres && runs%8 != 0 {
				return
			}
			wipe(rt, h.db)
			m := &model{accounts: map[string]modelAccount{}, numbers: map[string]modelNumber{},
				follower: map[string]string{}}
			ctx := context.Background()
			accountName := rapid.SampledFrom([]string{"a", "A", "b"})
			key := rapid.SampledFrom([]string{"+4420", "+44201", "+44202", "+1425", "+1"})
			services := rapid.SampledFrom([]string{"", "", "O", "D", "M", "Z", "C", "DC", "OD", "ZC", "MZ"})
			header := rapid.SampledFrom([]string{"", "", "x"})
			outcome := func(what, want string, err error) {
				rt.Helper()
				got := ""
				if err != nil {
					got = fault.As(err).Code
				}
				if got != want {
					rt.Fatalf("%s: %q (%v), the model says %q", what, got, err, want)
				}
			}
			build := func(account, k string, n modelNumber) domain.Number {
				r := domain.Number{TelephoneNumber: domain.E164(k), AccountName: account, CustomSIPHeader: n.header}
				for _, l := range n.services {
					if r.Services == nil {
						r.Services = map[domain.Service]domain.NumberService{}
					}
					r.Services[letters[l]] = domain.NumberService{Enabled: true}
				}
				return r
			}
			rt.Repeat(map[string]func(*rapid.T){
				"put account": func(rt *rapid.T) {
					name := accountName.Draw(rt, "name")
					a := modelAccount{services: rapid.SampledFrom([]string{"", "DOMZC", "DOMZC", "DZ", "OC",
						"Z"}).Draw(rt, "services"),
						tenant: rapid.SampledFrom([]string{tenant1, strings.ToLower(tenant2)}).Draw(rt, "tenant")}
					in := domain.Account{Name: name, TeamsTenantID: a.tenant,
						Services: map[domain.Service]domain.AccountService{}}
					for _, l := range a.services {
						in.Services[letters[l]] = domain.AccountService{Enabled: true}
					}
					if strings.Contains(a.services, "D") {
						a.label = rapid.SampledFrom([]string{"", "l1", "l2"}).Draw(rt, "label")
						if a.label != "" {
							in.Services[directrouting.Service] = domain.AccountService{Enabled: true,
								DirectRouting: &domain.DirectRoutingConfig{
									Label: domain.Label{Subdomain: a.label, Region1Token: "x", Region2Token: "y"}}}
						}
					}
					want := m.putAccount(name, a)
					_, err := h.PutAccount(ctx, in, directory.Write{})
					outcome("PutAccount", want, err)
				},
				"delete account": func(rt *rapid.T) {
					name, all := accountName.Draw(rt, "name"), rapid.Bool().Draw(rt, "deleteNumbers")
					want := ""
					_, ok := m.accounts[name]
					has := slices.ContainsFunc(slices.Collect(maps.Values(m.numbers)),
						func(n modelNumber) bool { return n.account == name })
					switch {
					case !ok:
						want = directory.CodeAccountNotFound
					case has && !all:
						want = directory.CodeAccountHasNumbers
					default:
						delete(m.accounts, name)
						maps.DeleteFunc(m.numbers, func(_ string, n modelNumber) bool { return n.account == name })
						m.changes++
					}
					_, err := h.DeleteAccount(ctx, name, all, directory.Write{})
					outcome("DeleteAccount", want, err)
				},
				"put number": func(rt *rapid.T) {
					name, k := accountName.Draw(rt, "account"), key.Draw(rt, "number")
					n := modelNumber{services: services.Draw(rt, "services"), header: header.Draw(rt, "header")}
					want := ""
					if _, ok := m.accounts[name]; !ok {
						want = directory.CodeAccountNotFound
					} else if k == "+1" {
						want = directory.CodeInvalidTelephoneNumber
					} else {
						var stored modelNumber
						if want, stored = m.number(name, k, n); want == "" && m.store(k, stored) {
							m.changes++
						}
					}
					_, err := h.PutNumber(ctx, build(name, k, n), directory.Write{})
					outcome("PutNumber", want, err)
				},
				"put batch": func(rt *rapid.T) {
					name := accountName.Draw(rt, "account")
					ks := rapid.SliceOfN(key, 0, 5).Draw(rt, "numbers")
					n := modelNumber{services: services.Draw(rt, "services"), header: header.Draw(rt, "header")}
					var in []domain.Number
					var want []string
					stored := map[string]modelNumber{}
					for i, k := range ks {
						in = append(in, build(name, k, n))
						code, s := m.number(name, k, n)
						if k == "+1" {
							code = directory.CodeInvalidTelephoneNumber
						} else if code == "" && slices.Index(ks, k) < i {
							code = directory.CodeDuplicateNumber
						}
						if code != "" {
							want = append(want, fmt.Sprint(i, " ", code))
						}
						stored[k] = s
					}
					_, err := h.PutNumbers(ctx, name, in, directory.Write{})
					if _, ok := m.accounts[name]; !ok {
						outcome("PutNumbers", directory.CodeAccountNotFound, err)
						return
					}
					if len(want) > 0 {
						outcome("PutNumbers", directory.CodeBatchRejected, err)
						var got []string
						for _, d := range fault.As(err).Details {
							i, _, _ := strings.Cut(strings.TrimPrefix(d.Target, "numbers["), "]")
							got = append(got, i+" "+d.Code)
						}
						if !slices.Equal(want, got) {
							rt.Fatalf("PutNumbers: details %v, the model says %v", got, want)
						}
						return
					}
					outcome("PutNumbers", "", err)
					changed := false
					for k, s := range stored {
						changed = m.store(k, s) || changed
					}
					if changed {
						m.changes++
					}
				},
				"delete numbers": func(rt *rapid.T) {
					name := accountName.Draw(rt, "account")
					ks := rapid.SliceOfN(key, 1, 4).Draw(rt, "numbers")
					want, found := "", 0
					if _, ok := m.accounts[name]; !ok {
						want = directory.CodeAccountNotFound
					} else {
						for _, k := range ks {
							n, ok := m.numbers[k]
							if k == "+1" || ok && n.account != name {
								want = directory.CodeBatchRejected
							} else if ok {
								found++
							}
						}
					}
					var in []domain.E164
					for _, k := range ks {
						in = append(in, domain.E164(k))
						if want == "" {
							delete(m.numbers, k)
						}
					}
					if want == "" && found > 0 {
						m.changes++
					}
					_, err := h.DeleteNumbers(ctx, name, in, directory.Write{})
					outcome("DeleteNumbers", want, err)
				},
				"": func(rt *rapid.T) { m.check(rt, h) },
			})
		})
	})
}

// check compares everything visible of the directory with the model.
func (m *model) check(rt *rapid.T, h *house) {
	rt.Helper()
	ctx := context.Background()
	got, want := map[string]string{}, map[string]string{}
	as, err := h.Accounts(ctx, directory.Query{Limit: 100, Count: true})
	if err != nil {
		rt.Fatal(err)
	}
	if as.Total != int64(len(m.accounts)) {
		rt.Fatalf("%d accounts counted, want %d", as.Total, len(m.accounts))
	}
	for _, a := range as.Items {
		for s, d := range a.Services {
			got[fmt.Sprintf("count %s %v", a.Name, s)] = fmt.Sprint(d.NumberCount)
		}
		got["account "+a.Name] = routing(a.Routing())
		for l, s := range letters {
			if !strings.ContainsRune(m.accounts[a.Name].services, l) {
				continue
			}
			n := 0
			for _, x := range m.numbers {
				if x.account == a.Name && strings.ContainsRune(x.services, l) {
					n++
				}
			}
			want[fmt.Sprintf("count %s %v", a.Name, s)] = fmt.Sprint(n)
		}
	}
	truth := map[string]string{}
	for name, a := range m.accounts {
		truth["account "+name] = routing(&domain.AccountRouting{Name: name, Enabled: set(a.services),
			TenantID: a.tenant, Subdomain: a.label, SubdomainLive: a.label != ""})
	}
	var keys []string
	for k, n := range m.numbers {
		keys = append(keys, k)
		truth["number "+k] = routing(&domain.NumberRouting{Key: domain.E164(k).Key(), Account: n.account,
			Services: set(n.services), CustomHeader: n.header})
	}
	sort.Strings(keys)
	maps.Copy(want, truth)
	// Page by page, to cover page boundaries.
	q := directory.Query{Limit: 2, Count: true}
	var order []string
	for {
		p, err := h.Numbers(ctx, "", q)
		if err != nil {
			rt.Fatal(err)
		}
		if p.Total != int64(len(keys)) {
			rt.Fatalf("%d numbers counted, want %d", p.Total, len(keys))
		}
		for i := range p.Items {
			order = append(order, string(p.Items[i].TelephoneNumber))
			got["number "+string(p.Items[i].TelephoneNumber)] = routing(p.Items[i].Routing())
		}
		if q.After = p.Next; q.After == "" {
			break
		}
	}
	if !slices.Equal(keys, order) {
		rt.Fatalf("numbers come as %v, want %v", order, keys)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		rt.Fatalf("the directory differs from the model (-model +directory):\n%s", diff)
	}
	head, err := h.feed.Head(ctx)
	if err != nil {
		rt.Fatal(err)
	}
	m.at.Database = head.Database
	for {
		p, err := h.feed.Read(ctx, feed.Provisioning, m.at, 100)
		if err != nil {
			rt.Fatal(err)
		}
		if len(p.Entries) == 0 {
			break
		}
		m.at = p.Next
		for _, e := range p.Entries {
			var cs []domain.Change
			if err := json.Unmarshal(e.Payload, &cs); err != nil {
				rt.Fatal(err)
			}
			for _, c := range cs {
				switch {
				case c.Account != nil && c.Account.Deleted:
					delete(m.follower, "account "+c.Account.Name)
				case c.Account != nil:
					m.follower["account "+c.Account.Name] = routing(c.Account)
				case c.Number.Deleted:
					delete(m.follower, "number "+string(domain.E164FromKey(c.Number.Key)))
				default:
					m.follower["number "+string(domain.E164FromKey(c.Number.Key))] = routing(c.Number)
				}
			}
		}
	}
	if diff := cmp.Diff(truth, m.follower); diff != "" {
		rt.Fatalf("a reader of the feed differs from the model (-model +reader):\n%s", diff)
	}
	rep, err := h.db.VerifyAudit(ctx)
	if err != nil || rep.Break != nil || rep.Rows != int64(m.changes) {
		rt.Fatalf("audit log: %+v, %v; want %d rows and no break", rep, err, m.changes)
	}
}

func routing(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// wipe empties the database.
func wipe(rt *rapid.T, d *db.DB) {
	err := d.Update(context.Background(), func(ctx context.Context, tx *db.Tx) error {
		zero := "x'" + strings.Repeat("00", 32) + "'"
		if d.Driver() == db.Postgres {
			zero = `'\x` + strings.Repeat("00", 32) + "'"
		}
		for _, s := range []string{"DELETE FROM accounts", "DELETE FROM account_counts", "DELETE FROM numbers",
			"DELETE FROM feed", "UPDATE feed_head SET position = 0, pruned = 0", "DELETE FROM audit",
			"UPDATE audit_head SET seq = 0, hash = " + zero} {
			if _, err := tx.Exec(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		rt.Fatal(err)
	}
}
