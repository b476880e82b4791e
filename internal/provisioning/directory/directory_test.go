package directory_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services/callprotection"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

// stamps are the fields that the directory sets from the clock.
var stamps = []cmp.Option{cmpopts.IgnoreFields(domain.Account{}, "Version", "Modified"),
	cmpopts.IgnoreFields(domain.Number{}, "Version", "Modified")}

func TestAccountComesBackAsItWasPut(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		in := domain.Account{Name: "Contoso-1_x", CorrelationID: "crm 4711 – é", HasServiceDetails: true,
			TeamsTenantID: tenant2,
			Services: map[domain.Service]domain.AccountService{
				directrouting.Service: {Enabled: true, DirectRouting: &domain.DirectRoutingConfig{CallScreening: true,
					Label: domain.Label{Subdomain: "Conto-1", Region1Token: "MS=ms1", Region2Token: "MS=ms2"}},
					// Read-only fields are ignored.
					NumberCount: 99, SubdomainStatus: domain.SubdomainInconsistent},
				operatorconnect.Service: {Enabled: true, SyncEnabled: true},
				zoom.Service:            {Enabled: false},
				callprotection.Service:  {Enabled: true},
			},
			State: domain.ProvisioningState{Status: domain.SyncFailed,
				Errors: []domain.ServiceError{{Code: "x", Message: "y"}}},
			Version: 77}
		want := in
		want.State = domain.ProvisioningState{Status: domain.SyncSynced}
		want.Services = map[domain.Service]domain.AccountService{}
		for s, d := range in.Services {
			d.NumberCount = 0
			if s == directrouting.Service {
				d.SubdomainStatus = domain.SubdomainProvisioned
			}
			want.Services[s] = d
		}
		r := h.putAccount(in)
		if !r.Created || r.Position != 1 {
			t.Errorf("first PutAccount: created %v at %d, want true at 1", r.Created, r.Position)
		}
		got, err := h.Account(t.Context(), in.Name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, stamps...); diff != "" {
			t.Errorf("account differs (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(*r.Account, got); diff != "" {
			t.Errorf("PutAccount answers other than Account (-put +get):\n%s", diff)
		}
		// The same again changes nothing: same ETag, no feed entry, no audit row.
		if r := h.putAccount(in); r.Created || r.Position != 0 || r.Account.Version != got.Version {
			t.Errorf("PutAccount of the same: created %v, position %d, version %d; want false, 0, %d", r.Created,
				r.Position, r.Account.Version, got.Version)
		}
		// A replacement drops what it does not name.
		if r := h.putAccount(domain.Account{Name: in.Name}); r.Created || r.Account.Version <= got.Version {
			t.Errorf("replacing PutAccount: created %v, version %d after %d", r.Created, r.Account.Version, got.Version)
		}
		got, err = h.Account(t.Context(), in.Name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(domain.Account{Name: in.Name, State: domain.ProvisioningState{Status: domain.SyncSynced}},
			got, stamps...); diff != "" {
			t.Errorf("replaced account differs (-want +got):\n%s", diff)
		}
		if _, err := h.Account(t.Context(), "contoso-1_x"); !fault.HasCode(err, directory.CodeAccountNotFound) {
			t.Errorf("account found by a name in another case: %v", err)
		}
		cs, _ := h.changes(0)
		wantChanges := []domain.Change{
			{Account: &domain.AccountRouting{Name: in.Name,
				Enabled: domain.ServiceSet(0).With(directrouting.Service).With(operatorconnect.Service).With(
					callprotection.Service),
				TenantID: tenant2, Subdomain: "conto-1", SubdomainLive: true, CallScreening: true}},
			{Account: &domain.AccountRouting{Name: in.Name}},
		}
		if diff := cmp.Diff(wantChanges, cs); diff != "" {
			t.Errorf("feed differs (-want +got):\n%s", diff)
		}
		if rows := h.audit(); len(rows) != 2 || rows[0].Action != "account.put" || rows[0].Target != in.Name ||
			rows[0].Items != 1 {
			t.Errorf("audit log: %+v", rows)
		}
	})
}

func TestNumberComesBackAsItWasPut(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.putAccount(account("acme", operatorconnect.Service, directrouting.Service, zoom.Service))
		in := domain.Number{TelephoneNumber: "+442079460123", AccountName: "acme", CustomSIPHeader: "acme_1",
			HasConfiguration: true,
			Services: map[domain.Service]domain.NumberService{
				operatorconnect.Service: {Enabled: true, AssignmentStatus: "assigned",
					Teams: &domain.TeamsNumberConfig{Usage: "CallingUserAssignment",
						ChoosableCapabilities: []string{"InboundCalling", "OutboundCalling"},
						AdditionalUsages:      []string{"ConferenceAssignment"}, CivicAddressID: "c1",
						LocationID: "l1", AllowTenantAddressUpdate: true, DisplayedCountryCode: "GB",
						AcquiredCapabilities: []string{"forged"}}},
				zoom.Service: {Enabled: false},
			}}
		r := h.putNumber(in)
		want := in
		want.State.Status = domain.SyncSynced
		c := *in.Services[operatorconnect.Service].Teams
		c.AcquiredCapabilities = nil
		want.Services = map[domain.Service]domain.NumberService{operatorconnect.Service: {Enabled: true,
			AssignmentStatus: "assigned", Teams: &c}, zoom.Service: {}}
		got, err := h.Number(t.Context(), "acme", in.TelephoneNumber)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, stamps...); diff != "" {
			t.Errorf("number differs (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(r.Numbers, []domain.Number{got}); diff != "" || !r.Created {
			t.Errorf("PutNumber answers other than Number, created %v (-put +get):\n%s", r.Created, diff)
		}
		if r := h.putNumber(in); r.Created || r.Position != 0 || r.Numbers[0].Version != got.Version {
			t.Errorf("PutNumber of the same changed something: %+v", r)
		}
		a, err := h.Account(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		if oc, zoom := a.Services[operatorconnect.Service].NumberCount,
			a.Services[zoom.Service].NumberCount; oc != 1 || zoom != 0 {
			t.Errorf("number counts: Operator Connect %d, Zoom %d; want 1 and 0", oc, zoom)
		}
		if r := h.putNumber(number("acme", "+442079460123", zoom.Service)); r.Created {
			t.Error("a replaced number counts as created")
		}
		a, _ = h.Account(t.Context(), "acme")
		if oc, zoom := a.Services[operatorconnect.Service].NumberCount,
			a.Services[zoom.Service].NumberCount; oc != 0 || zoom != 1 {
			t.Errorf("number counts after a change of service: Operator Connect %d, Zoom %d; want 0 and 1", oc, zoom)
		}
	})
}

func TestListingsPage(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		// Names whose order depends on the collation.
		names := []string{"-x", "A", "B", "Z9", "_u", "a", "a-1", "a1", "b"}
		for i := range names {
			h.putAccount(account(names[len(names)-1-i], zoom.Service))
		}
		var got []string
		q := directory.Query{Limit: 2, Count: true}
		for {
			p, err := h.Accounts(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if p.Total != int64(len(names)) || len(p.Items) > 2 {
				t.Fatalf("page of %d items, total %d; want 2 and %d", len(p.Items), p.Total, len(names))
			}
			for _, a := range p.Items {
				got = append(got, a.Name)
			}
			if p.Next == "" {
				break
			}
			q.After = p.Next
		}
		if diff := cmp.Diff(names, got); diff != "" {
			t.Errorf("pages together differ from all accounts in byte order (-want +got):\n%s", diff)
		}
		var ns []domain.Number
		for i := range 25 {
			ns = append(ns, number(names[i%2], fmt.Sprintf("+4420%d", 7000+i), zoom.Service))
		}
		for _, n := range ns {
			h.putNumber(n)
		}
		for name, c := range map[string]struct {
			account string
			q       directory.Query
			first   string
			items   int
			next    string
			total   int64
		}{
			"all":             {"", directory.Query{Limit: 500, Count: true}, "+44207000", 25, "", 25},
			"exactly a page":  {"", directory.Query{Limit: 25}, "+44207000", 25, "", 0},
			"one less":        {"", directory.Query{Limit: 24}, "+44207000", 24, "+44207023", 0},
			"skip":            {"", directory.Query{Limit: 5, Skip: 7}, "+44207007", 5, "+44207011", 0},
			"skip beyond":     {"", directory.Query{Limit: 5, Skip: 700, Count: true}, "", 0, "", 25},
			"of an account":   {"A", directory.Query{Limit: 5, Count: true}, "+44207001", 5, "+44207009", 12},
			"after a key":     {"A", directory.Query{Limit: 500, After: "+44207009"}, "+44207011", 7, "", 0},
			"of an empty one": {"b", directory.Query{Limit: 5, Count: true}, "", 0, "", 0},
			"after and skipped": {"", directory.Query{Limit: 2, After: "+44207009", Skip: 1}, "+44207011", 2,
				"+44207012", 0},
		} {
			p, err := h.Numbers(t.Context(), c.account, c.q)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			first := ""
			if len(p.Items) > 0 {
				first = string(p.Items[0].TelephoneNumber)
			}
			if first != c.first || len(p.Items) != c.items || p.Next != c.next || p.Total != c.total {
				t.Errorf("%s: first %q, %d items, next %q, total %d; want %q, %d, %q, %d", name, first, len(p.Items),
					p.Next, p.Total, c.first, c.items, c.next, c.total)
			}
		}
		_, err := h.Numbers(t.Context(), "nobody", directory.Query{Limit: 1})
		wantCode(t, "numbers of an unknown account", err, fault.NotFound,
			directory.CodeAccountNotFound, "accountName")
		for _, q := range []directory.Query{{}, {Limit: 501}, {Limit: 1, Skip: -1}} {
			_, err := h.Accounts(t.Context(), q)
			wantCode(t, fmt.Sprintf("%+v", q), err, fault.Invalid, directory.CodeInvalidPageSize, "")
		}
	})
}

// TestStrangeKeysAreNotFound uses keys that a database cannot store or query.
func TestStrangeKeysAreNotFound(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		h.putAccount(account("acme", zoom.Service))
		for _, s := range []string{"", "a\x00b", "\xff", "%", "'", strings.Repeat("x", 5000)} {
			_, err := h.Account(ctx, s)
			wantCode(t, fmt.Sprintf("Account(%.20q)", s), err, fault.NotFound,
				directory.CodeAccountNotFound, "accountName")
			_, err = h.Number(ctx, "acme", domain.E164(s))
			wantCode(t, fmt.Sprintf("Number(%.20q)", s), err, fault.NotFound, directory.CodeNumberNotFound,
				"telephoneNumber")
			_, err = h.DeleteNumber(ctx, "acme", domain.E164(s), directory.Write{})
			wantCode(t, fmt.Sprintf("DeleteNumber(%.20q)", s), err, fault.NotFound, directory.CodeNumberNotFound,
				"telephoneNumber")
			_, err = h.DeleteAccount(ctx, s, true, directory.Write{})
			wantCode(t, fmt.Sprintf("DeleteAccount(%.20q)", s), err, fault.NotFound,
				directory.CodeAccountNotFound, "accountName")
			_, err = h.CivicAddress(ctx, "acme", s)
			wantCode(t, fmt.Sprintf("CivicAddress(%.20q)", s), err, fault.NotFound, directory.CodeCivicAddressNotFound,
				"civicAddressId")
			if _, err := h.Accounts(ctx, directory.Query{Limit: 5, After: s}); err != nil &&
				fault.As(err).Kind != fault.Invalid {
				t.Errorf("Accounts after %.20q: %v", s, err)
			}
		}
		_, err := h.PutAccount(domain.WithActor(ctx, domain.Actor{ID: "a\x00\xff"}), account("b"), directory.Write{})
		if err != nil {
			t.Errorf("PutAccount of a strangely named actor: %v", err)
		}
		h.audit()
	})
}

func TestDeleteAccount(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		h.putAccount(account("acme", zoom.Service))
		h.putAccount(account("other", zoom.Service))
		h.putNumber(number("other", "+4420700", zoom.Service))
		n := 4500 // more than two pages of a deletion
		rep, err := h.Import(ctx, "acme", 2000, func(yield func(domain.Number) bool) {
			for i := range n {
				if !yield(number("acme", fmt.Sprintf("+4930%06d", i), zoom.Service)) {
					return
				}
			}
		})
		if want := (directory.ImportReport{Numbers: n, Created: n, Chunks: 3}); err != nil || rep != want {
			t.Fatalf("Import: %+v, %v; want %+v", rep, err, want)
		}
		_, err = h.DeleteAccount(ctx, "acme", false, directory.Write{})
		wantCode(t, "DeleteAccount of an account with numbers", err, fault.Invalid, directory.CodeAccountHasNumbers, "")
		_, at := h.changes(0)
		if _, err := h.DeleteAccount(ctx, "acme", true, directory.Write{}); err != nil {
			t.Fatal(err)
		}
		cs, _ := h.changes(at)
		if len(cs) != n+1 || cs[n].Account == nil || !cs[n].Account.Deleted {
			t.Errorf("the feed has %d changes, want %d numbers and the account", len(cs), n)
		}
		for _, c := range cs[:n] {
			if c.Number == nil || !c.Number.Deleted {
				t.Fatalf("change %+v, want a deleted number", c)
			}
		}
		p, err := h.Numbers(ctx, "", directory.Query{Limit: 10, Count: true})
		if err != nil || len(p.Items) != 1 || p.Total != 1 {
			t.Errorf("numbers remaining: %d, total %d, %v; want that of the other account", len(p.Items), p.Total, err)
		}
		rows := h.audit()
		if r := rows[len(rows)-1]; r.Action != "account.delete" || r.Items != int64(n+1) {
			t.Errorf("last audit row: %+v", r)
		}
		_, err = h.DeleteAccount(ctx, "acme", true, directory.Write{})
		wantCode(t, "second DeleteAccount", err, fault.NotFound, directory.CodeAccountNotFound, "accountName")
		h.putAccount(account("acme"))
		if a, err := h.Account(ctx, "acme"); err != nil || len(a.Services) != 0 {
			t.Errorf("account created again: %+v, %v", a, err)
		}
	})
}

func TestRepeatability(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		a := account("acme", zoom.Service)
		o := once("id-1", 1)
		for i := range 3 {
			r, err := h.PutAccount(ctx, a, directory.Write{Once: o})
			if err != nil {
				t.Fatal(err)
			}
			if r.Replayed != (i > 0) || string(r.Response) != "true" {
				t.Errorf("time %d: replayed %v, response %s; want the first answer each time", i,
					r.Replayed, r.Response)
			}
		}
		if cs, _ := h.changes(0); len(cs) != 1 {
			t.Errorf("a repeated request was executed %d times", len(cs))
		}
		other := once("id-1", 2)
		other.FirstSent = o.FirstSent
		_, err := h.PutAccount(ctx, a, directory.Write{Once: other})
		wantCode(t, "same id, other body", err, fault.Invalid, directory.CodeRepeatabilityMismatch,
			"Repeatability-Request-ID")
		other = once("id-1", 1)
		other.FirstSent = o.FirstSent.Add(time.Second)
		_, err = h.PutAccount(ctx, a, directory.Write{Once: other})
		wantCode(t, "same id, other first-sent", err, fault.Invalid, directory.CodeRepeatabilityMismatch,
			"Repeatability-Request-ID")
		other = once("id-1", 2)
		other.Scope = "another client"
		if r, err := h.PutAccount(ctx, a, directory.Write{Once: other}); err != nil || r.Replayed {
			t.Errorf("same id of another client: %+v, %v; want it executed", r, err)
		}
		for _, age := range []time.Duration{25 * time.Hour, -time.Hour} {
			old := once("id-2", 1)
			old.FirstSent = time.Now().Add(-age)
			_, err = h.PutAccount(ctx, a, directory.Write{Once: old})
			wantCode(t, fmt.Sprintf("first sent %v ago", age), err, fault.Precondition,
				directory.CodeRepeatabilityExpired, "Repeatability-First-Sent")
		}
		// DELETE: 204 the second time under the same id, else 404.
		del := once("id-3", 3)
		for range 2 {
			if _, err := h.DeleteAccount(ctx, "acme", false, directory.Write{Once: del}); err != nil {
				t.Errorf("DeleteAccount under one id: %v", err)
			}
		}
		_, err = h.DeleteAccount(ctx, "acme", false, directory.Write{Once: once("id-4", 3)})
		wantCode(t, "DeleteAccount under another id", err, fault.NotFound, directory.CodeAccountNotFound, "accountName")
		// A request that failed is not remembered: once the account exists the same request succeeds.
		h.putAccount(a)
		if r, err := h.DeleteAccount(ctx, "acme", false, directory.Write{Once: once("id-4", 3)}); err != nil ||
			r.Replayed {
			t.Errorf("request repeated after it failed: %+v, %v; want it executed now", r, err)
		}
	})
}
