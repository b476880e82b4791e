package directory_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services/acs"
	"github.com/tandemgw/tandem/internal/services/callprotection"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/services/phonemobile"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/testkit"
)

// sqlite returns a directory for rules that do not depend on the database.
func sqlite(t *testing.T) *house {
	t.Parallel()
	return open(t, testkit.Open(t, testkit.SQLiteConfig(t)))
}

func TestBadAccountsAreRefused(t *testing.T) {
	h := sqlite(t)
	h.putAccount(account("taken", directrouting.Service))
	labelled := func(l domain.Label) func(*domain.Account) {
		return func(a *domain.Account) {
			a.Services = map[domain.Service]domain.AccountService{directrouting.Service: {Enabled: true,
				DirectRouting: &domain.DirectRoutingConfig{Label: l}}}
		}
	}
	sub := func(s string) func(*domain.Account) {
		return labelled(domain.Label{Subdomain: s, Region1Token: "a", Region2Token: "b"})
	}
	for name, c := range map[string]struct {
		change func(*domain.Account)
		kind   fault.Kind
		code   string
		target string
	}{
		"empty name": {func(a *domain.Account) { a.Name = "" }, fault.Invalid,
			directory.CodeInvalidAccountName, "name"},
		"name of 101": {func(a *domain.Account) { a.Name = strings.Repeat("a", 101) },
			fault.Invalid, directory.CodeInvalidAccountName, "name"},
		"name with a dot": {func(a *domain.Account) { a.Name = "a.b" }, fault.Invalid,
			directory.CodeInvalidAccountName, "name"},
		"name with an umlaut": {func(a *domain.Account) { a.Name = "ä" }, fault.Invalid,
			directory.CodeInvalidAccountName, "name"},
		"correlation id with NUL": {func(a *domain.Account) { a.CorrelationID = "a\x00" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id, line feed": {func(a *domain.Account) { a.CorrelationID = "a\nb" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id, carriage return": {func(a *domain.Account) { a.CorrelationID = "a\rb" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id, tab": {func(a *domain.Account) { a.CorrelationID = "a\tb" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id, escape": {func(a *domain.Account) { a.CorrelationID = "a\x1bb" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id, DEL": {func(a *domain.Account) { a.CorrelationID = "a\x7fb" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id, next line": {func(a *domain.Account) { a.CorrelationID = "a\u0085b" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id, C1 control": {func(a *domain.Account) { a.CorrelationID = "a\u009bb" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id, line separator": {func(a *domain.Account) { a.CorrelationID = "a\u2028b" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id, paragraph separator": {func(a *domain.Account) { a.CorrelationID = "a\u2029b" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id, bad text": {func(a *domain.Account) { a.CorrelationID = "\xff" }, fault.Invalid,
			directory.CodeInvalidCorrelationID, "correlationId"},
		"correlation id too long": {func(a *domain.Account) { a.CorrelationID = strings.Repeat("a", 1025) },
			fault.Invalid, directory.CodeInvalidCorrelationID, "correlationId"},
		"tenant is no GUID": {func(a *domain.Account) { a.TeamsTenantID = "contoso.onmicrosoft.com" },
			fault.Invalid, directory.CodeInvalidTenantID, "teamsTenantId"},
		"tenant with a bad digit": {func(a *domain.Account) { a.TeamsTenantID = tenant1[:35] + "g" }, fault.Invalid,
			directory.CodeInvalidTenantID, "teamsTenantId"},
		"ACS": {func(a *domain.Account) {
			a.Services = map[domain.Service]domain.AccountService{acs.Service: {Enabled: true}}
		}, fault.Invalid, directory.CodeUnknownService, "azureCommunicationServices"},
		"configuration of Zoom": {func(a *domain.Account) {
			a.Services = map[domain.Service]domain.AccountService{
				zoom.Service: {DirectRouting: &domain.DirectRoutingConfig{}}}
		}, fault.Invalid, directory.CodeUnknownService, "zoomPhoneCloudPeering.configuration"},
		"empty subdomain": {sub(""), fault.Invalid, directory.CodeInvalidSubdomain, "configuration.subdomain"},
		"subdomain of 11": {sub("abcdefghijk"), fault.Invalid, directory.CodeInvalidSubdomain,
			"configuration.subdomain"},
		"subdomain with _": {sub("a_b"), fault.Invalid, directory.CodeInvalidSubdomain,
			"configuration.subdomain"},
		"subdomain with a dot": {sub("a.b"), fault.Invalid, directory.CodeInvalidSubdomain,
			"configuration.subdomain"},
		"subdomain starts with -": {sub("-a"), fault.Invalid, directory.CodeInvalidSubdomain,
			"configuration.subdomain"},
		"subdomain ends with -": {sub("a-"), fault.Invalid, directory.CodeInvalidSubdomain, "configuration.subdomain"},
		"subdomain taken": {sub("taken"), fault.Conflict, directory.CodeSubdomainTaken,
			"configuration.subdomain"},
		"subdomain taken, case": {sub("TaKeN"), fault.Conflict, directory.CodeSubdomainTaken,
			"configuration.subdomain"},
		"empty token": {labelled(domain.Label{Subdomain: "a", Region1Token: "a"}), fault.Invalid,
			directory.CodeInvalidSubdomainToken, "region2Token"},
		"token with a space": {labelled(domain.Label{Subdomain: "a", Region1Token: "a b", Region2Token: "b"}),
			fault.Invalid, directory.CodeInvalidSubdomainToken, "region1Token"},
		"token of 101": {labelled(domain.Label{Subdomain: "a", Region1Token: strings.Repeat("a", 101),
			Region2Token: "b"}), fault.Invalid, directory.CodeInvalidSubdomainToken, "region1Token"},
	} {
		a := account("acme")
		c.change(&a)
		_, err := h.PutAccount(t.Context(), a, directory.Write{})
		wantCode(t, name, err, c.kind, c.code, c.target)
	}
	for _, s := range []string{"a", "A1", "1", "a-b", "abcdefghij"} {
		a := account("acme")
		sub(s)(&a)
		if _, err := h.PutAccount(t.Context(), a, directory.Write{}); err != nil {
			t.Errorf("subdomain %q: %v", s, err)
		}
	}
}

func TestFullSubdomainNameHasAtMost48Characters(t *testing.T) {
	t.Parallel()
	d := testkit.Open(t, testkit.SQLiteConfig(t))
	h := open(t, d)
	// <10 characters> + .1r1. + base
	base := strings.Repeat("a", 29) + ".net"
	h.Directory = directory.New(h.store, directory.Config{BaseDomain: base}, nil, nil)
	h.putAccount(account("abcdefghij", directrouting.Service)) // 48
	h.Directory = directory.New(h.store, directory.Config{BaseDomain: "a" + base}, nil, nil)
	_, err := h.PutAccount(t.Context(), account("bcdefghijk", directrouting.Service), directory.Write{})
	wantCode(t, "a full name of 49", err, fault.Invalid, directory.CodeInvalidSubdomain, "subdomain")
}

func TestBadNumbersAreRefused(t *testing.T) {
	h := sqlite(t)
	h.putAccount(account("acme", operatorconnect.Service, directrouting.Service, phonemobile.Service, zoom.Service,
		callprotection.Service))
	h.putAccount(account("other", zoom.Service))
	h.putNumber(number("other", "+4420700", zoom.Service))
	with := func(s domain.Service, d domain.NumberService) func(*domain.Number) {
		return func(n *domain.Number) { n.Services[s] = d }
	}
	teams := func(c domain.TeamsNumberConfig) func(*domain.Number) {
		return with(operatorconnect.Service, domain.NumberService{Enabled: true, Teams: &c})
	}
	on := domain.NumberService{Enabled: true}
	for name, c := range map[string]struct {
		change func(*domain.Number)
		kind   fault.Kind
		code   string
		target string
	}{
		"no plus": {func(n *domain.Number) { n.TelephoneNumber = "4420701" }, fault.Invalid,
			directory.CodeInvalidTelephoneNumber, "telephoneNumber"},
		"leading zero": {func(n *domain.Number) { n.TelephoneNumber = "+0420701" }, fault.Invalid,
			directory.CodeInvalidTelephoneNumber, "telephoneNumber"},
		"16 digits": {func(n *domain.Number) { n.TelephoneNumber = "+1234567890123456" }, fault.Invalid,
			directory.CodeInvalidTelephoneNumber, "telephoneNumber"},
		"one digit": {func(n *domain.Number) { n.TelephoneNumber = "+1" }, fault.Invalid,
			directory.CodeInvalidTelephoneNumber, "telephoneNumber"},
		"no account": {func(n *domain.Number) { n.AccountName = "nobody" }, fault.NotFound,
			directory.CodeAccountNotFound, "accountName"},
		"bad account": {func(n *domain.Number) { n.AccountName = "a b" }, fault.Invalid,
			directory.CodeInvalidAccountName, "accountName"},
		"elsewhere": {func(n *domain.Number) { n.TelephoneNumber = "+4420700" }, fault.Conflict,
			directory.CodeNumberElsewhere, "telephoneNumber"},
		"header, space": {func(n *domain.Number) { n.CustomSIPHeader = "a b" }, fault.Invalid,
			directory.CodeInvalidCustomSIPHeader, "customSipHeader"},
		"header of 101": {func(n *domain.Number) { n.CustomSIPHeader = strings.Repeat("a", 101) }, fault.Invalid,
			directory.CodeInvalidCustomSIPHeader, "customSipHeader"},
		"ACS": {with(acs.Service, on), fault.Invalid, directory.CodeUnknownService,
			"azureCommunicationServices"},
		"config of Zoom": {with(zoom.Service, domain.NumberService{Teams: &domain.TeamsNumberConfig{Usage: "x"}}),
			fault.Invalid, directory.CodeUnknownService, "configuration"},
		"status of Zoom": {with(zoom.Service, domain.NumberService{AssignmentStatus: "assigned"}), fault.Invalid,
			directory.CodeUnknownService, "assignmentStatus"},
		"bad status": {with(operatorconnect.Service, domain.NumberService{AssignmentStatus: "Assigned"}), fault.Invalid,
			directory.CodeInvalidAssignmentStatus, "assignmentStatus"},
		"no usage": {teams(domain.TeamsNumberConfig{}), fault.Invalid,
			directory.CodeInvalidTeamsConfiguration, "usage"},
		"long usage": {teams(domain.TeamsNumberConfig{Usage: strings.Repeat("x", 257)}), fault.Invalid,
			directory.CodeInvalidTeamsConfiguration, "usage"},
		"usage with NUL": {teams(domain.TeamsNumberConfig{Usage: "a\x00"}), fault.Invalid,
			directory.CodeInvalidTeamsConfiguration, "usage"},
		"bad location": {teams(domain.TeamsNumberConfig{Usage: "x", LocationID: "\xff"}), fault.Invalid,
			directory.CodeInvalidTeamsConfiguration, "locationId"},
		"empty capability": {teams(domain.TeamsNumberConfig{Usage: "x", ChoosableCapabilities: []string{""}}),
			fault.Invalid, directory.CodeInvalidTeamsConfiguration, "choosableCapabilities"},
		"many usages": {teams(domain.TeamsNumberConfig{Usage: "x", AdditionalUsages: make([]string, 101)}),
			fault.Invalid, directory.CodeInvalidTeamsConfiguration, "additionalUsages"},
	} {
		n := number("acme", "+4420701")
		n.Services = map[domain.Service]domain.NumberService{}
		c.change(&n)
		_, err := h.PutNumber(t.Context(), n, directory.Write{})
		wantCode(t, name, err, c.kind, c.code, c.target)
	}
	for name, header := range map[string]struct {
		services []domain.Service
		ok       bool
	}{
		"no service":                {nil, true},
		"Zoom":                      {[]domain.Service{zoom.Service}, true},
		"Phone Mobile":              {[]domain.Service{phonemobile.Service}, false},
		"Call Protection":           {[]domain.Service{callprotection.Service}, false},
		"Direct Routing with it":    {[]domain.Service{directrouting.Service, callprotection.Service}, true},
		"Operator Connect":          {[]domain.Service{operatorconnect.Service}, true},
		"Direct Routing on its own": {[]domain.Service{directrouting.Service}, true},
	} {
		n := number("acme", "+4420702", header.services...)
		n.CustomSIPHeader = "x"
		_, err := h.PutNumber(t.Context(), n, directory.Write{})
		if header.ok && err != nil {
			t.Errorf("custom header with %s: %v", name, err)
		} else if !header.ok {
			wantCode(t, "custom header with "+name, err, fault.Invalid, directory.CodeCustomHeaderUnsupported,
				"customSipHeader")
		}
	}
}

// TestServicesTogether tries every pair of services against the published rules, which are written down here a second
// time.
func TestServicesTogether(t *testing.T) {
	h := sqlite(t)
	contract := []domain.Service{operatorconnect.Service, directrouting.Service, phonemobile.Service, zoom.Service,
		callprotection.Service}
	h.putAccount(account("acme", contract...))
	allowed := map[string]bool{"teamsDirectRouting azureOperatorCallProtection": true}
	for _, a := range contract {
		for _, b := range contract {
			if a == b {
				continue
			}
			_, err := h.PutNumber(t.Context(), number("acme", "+4420703", a, b), directory.Write{})
			if allowed[a.String()+" "+b.String()] || allowed[b.String()+" "+a.String()] {
				if err != nil {
					t.Errorf("%v with %v: %v", a, b, err)
				}
				continue
			}
			wantCode(t, fmt.Sprintf("%v with %v", a, b), err, fault.Invalid,
				directory.CodeServicesExcludeEachOther, ".enabled")
		}
		if _, err := h.PutNumber(t.Context(), number("acme", "+4420704", a), directory.Write{}); err != nil {
			t.Errorf("%v alone: %v", a, err)
		}
		h.putAccount(account("plain"))
		_, err := h.PutNumber(t.Context(), number("plain", "+4420705", a), directory.Write{})
		wantCode(t, a.String()+" not enabled on the account", err, fault.Invalid,
			directory.CodeServiceNotEnabled, ".enabled")
		// Disabled services exclude nothing, and need nothing from the account.
		n := number("plain", "+4420706")
		n.Services = map[domain.Service]domain.NumberService{}
		for _, s := range contract {
			n.Services[s] = domain.NumberService{}
		}
		h.putNumber(n)
	}
}

func TestWhatNumbersUseIsFrozen(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		full := account("acme", operatorconnect.Service, directrouting.Service, zoom.Service)
		h.putAccount(full)
		change := func(fn func(*domain.Account)) error {
			a := account("acme", operatorconnect.Service, directrouting.Service, zoom.Service)
			fn(&a)
			_, err := h.PutAccount(ctx, a, directory.Write{})
			return err
		}
		moves := map[string]func(*domain.Account){
			"tenant":    func(a *domain.Account) { a.TeamsTenantID = tenant2 },
			"subdomain": func(a *domain.Account) { a.Services[directrouting.Service].DirectRouting.Subdomain = "new" },
			"no config": func(a *domain.Account) {
				a.Services[directrouting.Service] = domain.AccountService{Enabled: true}
			},
			"no Zoom":     func(a *domain.Account) { delete(a.Services, zoom.Service) },
			"Zoom off":    func(a *domain.Account) { a.Services[zoom.Service] = domain.AccountService{} },
			"no services": func(a *domain.Account) { a.Services = nil },
		}
		for name, fn := range moves { // no number uses anything: all may change
			if err := change(fn); err != nil {
				t.Errorf("%s without numbers: %v", name, err)
			}
			h.putAccount(full)
		}
		h.putNumber(number("acme", "+4420700")) // uses nothing
		h.putNumber(number("acme", "+4420701", directrouting.Service))
		for name, fn := range moves {
			err := change(fn)
			switch name {
			case "subdomain", "no config":
				wantCode(t, name, err, fault.Conflict, directory.CodeSubdomainInUse, "subdomain")
			case "no services":
				wantCode(t, name, err, fault.Conflict, directory.CodeServiceInUse, "teamsDirectRouting.enabled")
			default:
				if err != nil {
					t.Errorf("%s with a Direct Routing number: %v", name, err)
				}
				h.putAccount(full)
			}
		}
		if err := change(func(a *domain.Account) {
			a.Services[directrouting.Service].DirectRouting.Subdomain = "ACME"
		}); err != nil {
			t.Errorf("the subdomain's case alone: %v", err)
		}
		h.putNumber(number("acme", "+4420702", operatorconnect.Service))
		h.putNumber(number("acme", "+4420703", zoom.Service))
		wantCode(t, "tenant", change(moves["tenant"]), fault.Conflict, directory.CodeTenantInUse, "teamsTenantId")
		wantCode(t, "no Zoom", change(moves["no Zoom"]), fault.Conflict, directory.CodeServiceInUse,
			"zoomPhoneCloudPeering.enabled")
		wantCode(t, "Zoom off", change(moves["Zoom off"]), fault.Conflict, directory.CodeServiceInUse,
			"zoomPhoneCloudPeering.enabled")
		if err := change(func(a *domain.Account) { a.TeamsTenantID = strings.ToUpper(tenant1) }); err != nil {
			t.Errorf("the tenant's case alone: %v", err)
		}
		// Not frozen any more once the numbers are gone.
		if _, err := h.DeleteNumbers(ctx, "acme", []domain.E164{"+4420701", "+4420702", "+4420703"},
			directory.Write{}); err != nil {
			t.Fatal(err)
		}
		if err := change(moves["no services"]); err != nil {
			t.Errorf("everything off after the numbers are gone: %v", err)
		}
	})
}

func TestBatchIsAllOrNothing(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		h.putAccount(account("acme", zoom.Service, operatorconnect.Service))
		h.putAccount(account("other", zoom.Service))
		h.putNumber(number("other", "+4420799", zoom.Service))
		var ns []domain.Number
		for i := range 100 {
			ns = append(ns, number("acme", fmt.Sprintf("+4420%d", 100+i), zoom.Service))
		}
		_, at := h.changes(0)
		bad := append([]domain.Number(nil), ns...)
		bad[3].TelephoneNumber = "020"
		bad[17].AccountName = "other"
		bad[18] = number("acme", "+4420799", zoom.Service)
		bad[40].TelephoneNumber = bad[39].TelephoneNumber
		bad[99] = number("acme", "+4420999", zoom.Service, operatorconnect.Service)
		_, err := h.PutNumbers(ctx, "acme", bad, directory.Write{})
		wantCode(t, "a batch with bad items", err, fault.Invalid, directory.CodeBatchRejected, "numbers")
		var got []string
		for _, d := range fault.As(err).Details {
			got = append(got, d.Code+" "+d.Target)
		}
		want := []string{
			"InvalidTelephoneNumber numbers[3].telephoneNumber",
			"AccountNameMismatch numbers[17].accountName",
			"NumberAssignedToAnotherAccount numbers[18].telephoneNumber",
			"DuplicateNumber numbers[40].telephoneNumber",
			"ServicesExcludeEachOther numbers[99].serviceDetails.teamsOperatorConnect.enabled",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("details differ (-want +got):\n%s", diff)
		}
		if strings.Contains(err.Error(), "other") && strings.Contains(fault.As(err).Details[2].Message, `"other"`) {
			t.Error("the error names the account that has the number")
		}
		if cs, _ := h.changes(at); len(cs) != 0 {
			t.Errorf("a refused batch made %d changes", len(cs))
		}
		r, err := h.PutNumbers(ctx, "acme", ns, directory.Write{Once: once("b", 1)})
		if err != nil || len(r.Numbers) != 100 || r.Numbers[99].TelephoneNumber != ns[99].TelephoneNumber {
			t.Fatalf("PutNumbers: %v", err)
		}
		if _, now := h.changes(at); now != at+1 {
			t.Errorf("a batch made %d feed entries, want 1", now-at)
		}
		rows := h.audit()
		if last := rows[len(rows)-1]; last.Action != "numbers.put" || last.Items != 100 || last.Target != "acme" ||
			last.Digest == ([32]byte{}) {
			t.Errorf("audit row of the batch: %+v", last)
		}
		_, err = h.PutNumbers(ctx, "acme", append(ns, number("acme", "+1999", zoom.Service)), directory.Write{})
		wantCode(t, "101 numbers", err, fault.Invalid, directory.CodeTooManyItems, "numbers")
		_, err = h.PutNumbers(ctx, "nobody", ns[:1], directory.Write{})
		wantCode(t, "a batch for an unknown account", err, fault.NotFound, directory.CodeAccountNotFound, "accountName")

		keys := []domain.E164{"+4420100", "+4420100", "+1777", "+4420101"}
		_, err = h.DeleteNumbers(ctx, "acme", append(keys, "+4420799", "x"), directory.Write{})
		wantCode(t, "deleting another's number", err, fault.Invalid, directory.CodeBatchRejected, "numbers")
		if n := len(fault.As(err).Details); n != 2 {
			t.Errorf("%d details, want 2", n)
		}
		if _, err = h.DeleteNumbers(ctx, "acme", keys, directory.Write{}); err != nil {
			t.Errorf("deleting numbers, some unknown or twice: %v", err)
		}
		p, err := h.Numbers(ctx, "acme", directory.Query{Limit: 1, Count: true})
		if err != nil || p.Total != 98 || p.Items[0].TelephoneNumber != "+4420102" {
			t.Errorf("after deleting 2 of 100: %+v, %v", p, err)
		}
		_, err = h.DeleteNumbers(ctx, "acme", make([]domain.E164, 101), directory.Write{})
		wantCode(t, "deleting 101", err, fault.Invalid, directory.CodeTooManyItems, "numbers")
	})
}

func TestConditions(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		h.putAccount(account("acme", zoom.Service))
		tag := func() string {
			n, err := h.Number(ctx, "acme", "+4420700")
			if err != nil {
				t.Fatal(err)
			}
			return directory.ETag(n.Version)
		}
		header := 0
		put := func(c directory.Condition) error {
			n := number("acme", "+4420700", zoom.Service)
			header++
			n.CustomSIPHeader = fmt.Sprint(header)
			_, err := h.PutNumber(ctx, n, directory.Write{Condition: c})
			return err
		}
		match := func(tags ...string) directory.Condition {
			return directory.Condition{IfMatch: directory.Tags{List: tags}}
		}
		none := func(tags ...string) directory.Condition {
			return directory.Condition{IfNoneMatch: directory.Tags{List: tags}}
		}
		any := directory.Tags{Any: true}
		past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		fails := func(name string, c directory.Condition) {
			t.Helper()
			wantCode(t, name, put(c), fault.Precondition, directory.CodeConditionNotMet, "")
		}
		holds := func(name string, c directory.Condition) {
			t.Helper()
			if err := put(c); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		fails("If-Match of what does not exist", match(`"1"`))
		fails("If-Match * of what does not exist", directory.Condition{IfMatch: any})
		holds("If-None-Match * of what does not exist", directory.Condition{IfNoneMatch: any})
		fails("If-None-Match * of what exists", directory.Condition{IfNoneMatch: any})
		holds("If-Match", match(`"nonsense"`, tag()))
		holds("If-Match *", directory.Condition{IfMatch: any})
		fails("If-Match of an older state", match(`"1"`))
		fails("If-Match with a weak tag", match("W/"+tag()))
		fails("If-None-Match of the present state", none(tag()))
		fails("If-None-Match, weak", none("W/"+tag()))
		holds("If-None-Match of another state", none(`"1"`))
		fails("If-Unmodified-Since", directory.Condition{IfUnmodifiedSince: since(past)})
		holds("If-Unmodified-Since", directory.Condition{IfUnmodifiedSince: since(future)})
		fails("If-Modified-Since", directory.Condition{IfModifiedSince: since(future)})
		holds("If-Modified-Since", directory.Condition{IfModifiedSince: since(past)})
		fails("If-Unmodified-Since of year 1", directory.Condition{IfUnmodifiedSince: new(time.Time)})
		holds("If-Modified-Since of year 1", directory.Condition{IfModifiedSince: new(time.Time)})
		holds("If-Match takes precedence over If-Unmodified-Since",
			directory.Condition{IfMatch: any, IfUnmodifiedSince: since(past)})
		holds("If-None-Match takes precedence over If-Modified-Since",
			directory.Condition{IfNoneMatch: directory.Tags{List: []string{`"1"`}}, IfModifiedSince: since(future)})

		old := tag()
		if _, err := h.DeleteNumber(ctx, "acme", "+4420700",
			directory.Write{Condition: match(`"1"`)}); !fault.HasCode(err, directory.CodeConditionNotMet) {
			t.Errorf("DeleteNumber of an older state: %v", err)
		}
		if _, err := h.DeleteNumber(ctx, "acme", "+4420700", directory.Write{Condition: match(old)}); err != nil {
			t.Errorf("DeleteNumber: %v", err)
		}
		holds("created again", directory.Condition{IfNoneMatch: any})
		if tag() == old {
			t.Error("a number created again has the ETag it had before")
		}
		_, err := h.DeleteNumber(ctx, "acme", "+4420701", directory.Write{})
		wantCode(t, "DeleteNumber of nothing", err, fault.NotFound, directory.CodeNumberNotFound, "telephoneNumber")
		_, err = h.DeleteNumber(ctx, "nobody", "+4420701", directory.Write{})
		wantCode(t, "DeleteNumber of an unknown account", err, fault.NotFound, directory.CodeAccountNotFound,
			"accountName")
		h.putAccount(account("other"))
		_, err = h.DeleteNumber(ctx, "other", "+4420700", directory.Write{})
		wantCode(t, "DeleteNumber of another account's number", err, fault.NotFound, directory.CodeNumberNotFound,
			"telephoneNumber")
		_, err = h.PutAccount(ctx, account("acme"), directory.Write{Condition: match(`"1"`)})
		wantCode(t, "PutAccount of an older state", err, fault.Precondition, directory.CodeConditionNotMet, "")
		_, err = h.DeleteAccount(ctx, "acme", true, directory.Write{Condition: match(`"1"`)})
		wantCode(t, "DeleteAccount of an older state", err, fault.Precondition, directory.CodeConditionNotMet, "")
	})
}

func TestConditionForRead(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 500, time.UTC)
	sec := at.Truncate(time.Second)
	for name, c := range map[string]struct {
		c    directory.Condition
		want directory.Verdict
	}{
		"nothing": {directory.Condition{}, directory.Proceed},
		"If-None-Match": {directory.Condition{IfNoneMatch: directory.Tags{List: []string{`"7"`}}},
			directory.NotModified},
		"If-None-Match, weak": {directory.Condition{IfNoneMatch: directory.Tags{List: []string{`"6"`, `W/"7"`}}},
			directory.NotModified},
		"If-None-Match *": {directory.Condition{IfNoneMatch: directory.Tags{Any: true}},
			directory.NotModified},
		"If-None-Match of another": {directory.Condition{IfNoneMatch: directory.Tags{List: []string{`"6"`}},
			IfModifiedSince: since(sec)}, directory.Proceed},
		"If-Match": {directory.Condition{IfMatch: directory.Tags{List: []string{`"7"`}}},
			directory.Proceed},
		"If-Match of another": {directory.Condition{IfMatch: directory.Tags{List: []string{`"6"`}}},
			directory.Failed},
		"modified within the second named": {directory.Condition{IfModifiedSince: since(sec)}, directory.NotModified},
		"modified after": {directory.Condition{IfModifiedSince: since(sec.Add(-time.Second))},
			directory.Proceed},
		"unmodified since the second": {directory.Condition{IfUnmodifiedSince: since(sec)}, directory.Proceed},
		"modified since year 1":       {directory.Condition{IfModifiedSince: new(time.Time)}, directory.Proceed},
		"unmodified since year 1":     {directory.Condition{IfUnmodifiedSince: new(time.Time)}, directory.Failed},
		"modified since": {directory.Condition{IfUnmodifiedSince: since(sec.Add(-time.Second))},
			directory.Failed},
	} {
		if got := c.c.ForRead(7, at); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestRulesHoldAgainstConcurrentChanges lets requests that exclude each other race. Whichever wins, the stored state
// must obey the rules.
func TestRulesHoldAgainstConcurrentChanges(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		race := func(fns ...func() error) []error {
			errs := make([]error, len(fns))
			var wg sync.WaitGroup
			for i, fn := range fns {
				wg.Go(func() { errs[i] = fn() })
			}
			wg.Wait()
			return errs
		}
		expect := func(what string, errs []error, codes ...string) (won int) {
			t.Helper()
			for _, err := range errs {
				if err == nil {
					won++
					continue
				}
				ok := false
				for _, c := range codes {
					ok = ok || fault.HasCode(err, c)
				}
				if !ok {
					t.Errorf("%s: %v, want one of %v", what, err, codes)
				}
			}
			return won
		}
		for round := range 6 {
			a, b := fmt.Sprintf("a%d", round), fmt.Sprintf("b%d", round)
			h.putAccount(account(a, zoom.Service))
			h.putAccount(account(b, zoom.Service))
			key := fmt.Sprintf("+44207%02d", round)
			num := func(acct string) func() error {
				return func() error {
					_, err := h.PutNumber(ctx, number(acct, key, zoom.Service), directory.Write{})
					return err
				}
			}
			if won := expect("one number for two accounts", race(num(a), num(b), num(a), num(b)),
				directory.CodeNumberElsewhere); won < 1 {
				t.Error("no account got the number")
			}
			n, err := findNumber(ctx, h, key)
			if err != nil {
				t.Fatal(err)
			}
			for _, acct := range []string{a, b} {
				want := int64(0)
				if n.AccountName == acct {
					want = 1
				}
				if got, _ := h.Account(ctx, acct); got.Services[zoom.Service].NumberCount != want {
					t.Errorf("account %s counts %d numbers, want %d", acct, got.Services[zoom.Service].NumberCount,
						want)
				}
			}

			label := func(acct string) func() error {
				return func() error {
					x := account(acct, zoom.Service, directrouting.Service)
					x.Services[directrouting.Service].DirectRouting.Subdomain = fmt.Sprintf("Same%d", round)
					_, err := h.PutAccount(ctx, x, directory.Write{})
					return err
				}
			}
			if won := expect("one subdomain for two accounts", race(label(a), label(b)),
				directory.CodeSubdomainTaken); won != 1 {
				t.Errorf("%d accounts got one subdomain", won)
			}

			c := fmt.Sprintf("c%d", round)
			h.putAccount(account(c, zoom.Service))
			errs := race(func() error { // disable the service
				_, err := h.PutAccount(ctx, account(c), directory.Write{})
				return err
			}, func() error { // while a number starts to use it
				_, err := h.PutNumber(ctx, number(c, key+"1", zoom.Service), directory.Write{})
				return err
			})
			if won := expect("disable and use", errs, directory.CodeServiceInUse,
				directory.CodeServiceNotEnabled); won != 1 {
				t.Errorf("disable and use: %v; want exactly one to succeed", errs)
			}

			e := fmt.Sprintf("e%d", round)
			h.putAccount(account(e, zoom.Service))
			errs = race(func() error {
				_, err := h.DeleteAccount(ctx, e, false, directory.Write{})
				return err
			}, func() error {
				_, err := h.PutNumber(ctx, number(e, key+"2", zoom.Service), directory.Write{})
				return err
			})
			expect("delete the account and add a number", errs, directory.CodeAccountHasNumbers,
				directory.CodeAccountNotFound)
			if _, err := findNumber(ctx, h, key+"2"); err == nil {
				if _, err := h.Account(ctx, e); err != nil {
					t.Errorf("a number remains although its account was deleted")
				}
			}

			o := once(fmt.Sprint("once", round), 1)
			var done []bool
			var mu sync.Mutex
			same := func() error {
				x := account(fmt.Sprintf("d%d", round), zoom.Service)
				r, err := h.PutAccount(ctx, x, directory.Write{Once: o})
				if err == nil {
					mu.Lock()
					done = append(done, r.Replayed)
					mu.Unlock()
				}
				return err
			}
			expect("one request many times", race(same, same, same, same))
			first := 0
			for _, replayed := range done {
				if !replayed {
					first++
				}
			}
			if first != 1 {
				t.Errorf("a request sent four times at once was done %d times", first)
			}
		}
		h.audit()
		h.changes(0)
	})
}

func TestRequestsForInformation(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		when := time.Date(2024, 1, 18, 7, 58, 49, 570_000_000, time.UTC)
		in := domain.RequestForInformation{ID: "r1", TenantID: tenant2, OperatorID: "op", Status: "active",
			ConsentedOn: when, LastModifiedOn: when, ConsentedCountries: []string{"US", "UK"},
			Contacts: []domain.Contact{{FullName: "Jo Smith", Email: "jo@example.com", CompanySize: "L1_U1"}}}
		if err := h.SaveRequest(ctx, in); err != nil {
			t.Fatal(err)
		}
		a := account("acme", operatorconnect.Service)
		a.TeamsTenantID = tenant2
		h.putAccount(a)
		got, err := h.Request(ctx, tenant2)
		if err != nil {
			t.Fatal(err)
		}
		want := in
		want.TenantID, want.AccountName, want.Version = strings.ToLower(tenant2), "acme", got.Version
		want.State.Status = domain.SyncSynced
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("request differs (-want +got):\n%s", diff)
		}
		text := func(s string) *string { return &s }
		r, err := h.PatchRequest(ctx, tenant2, directory.RelationshipPatch{Status: text("AgreementSigned")},
			directory.Write{Condition: directory.Condition{IfMatch: directory.Tags{List: []string{directory.ETag(
				got.Version)}}}})
		if err != nil || r.Request.Relationship.Status != "AgreementSigned" || r.Request.Relationship.Comment != "" ||
			r.Request.Version <= got.Version {
			t.Fatalf("PatchRequest: %+v, %v", r, err)
		}
		r, err = h.PatchRequest(ctx, tenant2, directory.RelationshipPatch{Comment: text("Contract 2024-118")},
			directory.Write{})
		if err != nil || r.Request.Relationship.Status != "AgreementSigned" ||
			r.Request.Relationship.Comment != "Contract 2024-118" {
			t.Fatalf("PatchRequest of one member changes the other: %+v, %v", r, err)
		}
		version := r.Request.Version
		r, err = h.PatchRequest(ctx, tenant2, directory.RelationshipPatch{Comment: text("Contract 2024-118")},
			directory.Write{})
		if err != nil || r.Request.Version != version {
			t.Errorf("PatchRequest of the same: version %d after %d, %v", r.Request.Version, version, err)
		}
		in.Status = "suspended"
		in.Relationship = &domain.CustomerRelationship{Status: "forged"}
		if err := h.SaveRequest(ctx, in); err != nil {
			t.Fatal(err)
		}
		if got, err = h.Request(ctx, strings.ToLower(tenant2)); err != nil || got.Status != "suspended" ||
			got.Relationship.Status != "AgreementSigned" {
			t.Errorf("SaveRequest again: %+v, %v; want the operator's side kept", got, err)
		}
		if r, err = h.PatchRequest(ctx, tenant2, directory.RelationshipPatch{Clear: true},
			directory.Write{}); err != nil || r.Request.Relationship != nil {
			t.Errorf("PatchRequest with null: %+v, %v", r, err)
		}
		for _, bad := range []directory.RelationshipPatch{{Status: text("a\nb")}, {Status: text("a\u0085")},
			{Comment: text("a\x1bb")}, {Comment: text("a\u2028b")}} {
			if _, err := h.PatchRequest(ctx, tenant2, bad, directory.Write{}); !fault.HasCode(err,
				directory.CodeInvalidRelationship) {
				t.Errorf("PatchRequest with control characters: %v", err)
			}
		}
		if _, err := h.PatchRequest(ctx, tenant2, directory.RelationshipPatch{Comment: text("two\r\n\tlines")},
			directory.Write{}); err != nil {
			t.Errorf("PatchRequest with a comment of two lines: %v", err)
		}
		_, err = h.PatchRequest(ctx, tenant2, directory.RelationshipPatch{Comment: text("a\x00")}, directory.Write{})
		wantCode(t, "a comment with NUL", err, fault.Invalid, directory.CodeInvalidRelationship, "comment")
		for _, id := range []string{tenant1, "x", ""} {
			_, err = h.Request(ctx, id)
			wantCode(t, "Request of "+id, err, fault.NotFound, directory.CodeRequestNotFound, "tenantId")
			_, err = h.PatchRequest(ctx, id, directory.RelationshipPatch{}, directory.Write{})
			wantCode(t, "PatchRequest of "+id, err, fault.NotFound, directory.CodeRequestNotFound, "tenantId")
		}
		if err := h.SaveRequest(ctx, domain.RequestForInformation{TenantID: tenant1}); err != nil {
			t.Fatal(err)
		}
		p, err := h.Requests(ctx, directory.Query{Limit: 1, Count: true})
		if err != nil || len(p.Items) != 1 || p.Items[0].TenantID != tenant1 || p.Next != tenant1 || p.Total != 2 {
			t.Errorf("Requests: %+v, %v", p, err)
		}
	})
}

func TestOperatorConnectHelpers(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		h.putAccount(account("acme", operatorconnect.Service)) // tenant1
		bare := account("bare")
		bare.TeamsTenantID = ""
		h.putAccount(bare)
		as := []domain.CivicAddress{{ID: "c2", DefaultLocationID: "l2", Country: "GB"},
			{ID: "c1", DefaultLocationID: "l1", CityOrTown: "Zürich",
				Locations: []domain.Location{{ID: "l1", CivicAddressID: "c1", IsDefault: true, ELIN: "1"}}}}
		if err := h.SaveCivicAddresses(ctx, strings.ToUpper(tenant1), as); err != nil {
			t.Fatal(err)
		}
		p, err := h.CivicAddresses(ctx, "acme", directory.Query{Limit: 1, Count: true})
		if err != nil || len(p.Items) != 1 || p.Items[0].ID != "c1" || p.Next != "c1" || p.Total != 2 {
			t.Fatalf("CivicAddresses: %+v, %v", p, err)
		}
		c1, err := h.CivicAddress(ctx, "acme", "c1")
		if diff := cmp.Diff(as[1], c1.CivicAddress); err != nil || diff != "" {
			t.Errorf("CivicAddress, %v (-want +got):\n%s", err, diff)
		}
		as[0].Country = "IE"
		if err := h.SaveCivicAddresses(ctx, tenant1, as); err != nil {
			t.Fatal(err)
		}
		if again, err := h.CivicAddress(ctx, "acme", "c1"); err != nil || again.Version != c1.Version ||
			!again.Modified.Equal(c1.Modified) {
			t.Errorf("an address saved unchanged has another ETag: %+v, %v", again, err)
		}
		_, err = h.CivicAddress(ctx, "acme", "c3")
		wantCode(t, "no such address", err, fault.NotFound, directory.CodeCivicAddressNotFound, "civicAddressId")
		_, err = h.CivicAddress(ctx, "bare", "c1")
		wantCode(t, "account without a tenant", err, fault.NotFound, directory.CodeCivicAddressNotFound,
			"civicAddressId")
		if p, err := h.CivicAddresses(ctx, "bare", directory.Query{Limit: 9}); err != nil || len(p.Items) != 0 {
			t.Errorf("addresses of an account without a tenant: %+v, %v", p, err)
		}
		all := []domain.CapabilityPlan{{Name: "b", Usage: "CallingUserAssignment",
			MandatoryCapabilities: []string{"UserAssignment"}, ChoosableCapabilities: []string{"OutboundCalling"},
			SupportsTollFree: true},
			{Name: "a", Usage: "ConferenceAssignment", ChoosableCapabilities: []string{"ConferenceAssignment"}}}
		if err := h.SaveCapabilityPlans(ctx, "", all); err != nil {
			t.Fatal(err)
		}
		r, err := h.CapabilityPlans(ctx, "acme", directory.Write{})
		if diff := cmp.Diff(all, r.Plans); err != nil || diff != "" {
			t.Errorf("plans of every tenant, %v (-want +got):\n%s", err, diff)
		}
		if err := h.SaveCapabilityPlans(ctx, tenant1, all[:1]); err != nil {
			t.Fatal(err)
		}
		if r, err = h.CapabilityPlans(ctx, "acme", directory.Write{}); err != nil || len(r.Plans) != 1 {
			t.Errorf("plans of the tenant: %+v, %v", r, err)
		}
		o := once("plans", 1)
		for i := range 2 {
			if r, err = h.AvailableCapabilities(ctx, "acme", []domain.E164{"+4420700", "+4420701", "+4420700"},
				directory.Write{Once: o}); err != nil || r.Replayed != (i > 0) {
				t.Fatalf("AvailableCapabilities: %+v, %v", r, err)
			}
			if want := []string{"OutboundCalling", "UserAssignment"}; i == 0 && !cmp.Equal(want, r.Capabilities) {
				t.Errorf("capabilities %v, want %v", r.Capabilities, want)
			}
		}
		_, err = h.AvailableCapabilities(ctx, "acme", []domain.E164{"x"}, directory.Write{})
		wantCode(t, "capabilities of a bad number", err, fault.Invalid, directory.CodeBatchRejected, "numbers")
		_, err = h.CapabilityPlans(ctx, "nobody", directory.Write{})
		wantCode(t, "plans of an unknown account", err, fault.NotFound, directory.CodeAccountNotFound, "accountName")
	})
}

func TestAuditNamesTheActor(t *testing.T) {
	h := sqlite(t)
	want := domain.Actor{Kind: "client", ID: "bss@issuer", RequestID: "r-1"}
	if _, err := h.PutAccount(domain.WithActor(t.Context(), want), account("acme"), directory.Write{}); err != nil {
		t.Fatal(err)
	}
	if rows := h.audit(); len(rows) != 1 || rows[0].Actor != want || !strings.Contains(rows[0].Summary, `"acme"`) {
		t.Errorf("audit: %+v", rows)
	}
}

func TestImportStopsAtTheFirstBadChunk(t *testing.T) {
	h := sqlite(t)
	h.putAccount(account("acme", zoom.Service))
	rep, err := h.Import(t.Context(), "acme", 10, func(yield func(domain.Number) bool) {
		for i := range 35 {
			n := number("acme", fmt.Sprintf("+4420%d", 1000+i), zoom.Service)
			if i == 25 {
				n.TelephoneNumber = "x"
			}
			if !yield(n) {
				return
			}
		}
	})
	wantCode(t, "Import", err, fault.Invalid, directory.CodeBatchRejected, "numbers")
	if f := fault.As(err); f != nil && (len(f.Details) != 1 || f.Details[0].Target != "numbers[25].telephoneNumber") {
		t.Errorf("details: %+v", f.Details)
	}
	if want := (directory.ImportReport{Numbers: 20, Created: 20, Chunks: 2}); rep != want {
		t.Errorf("report %+v, want %+v", rep, want)
	}
	if p, err := h.Numbers(t.Context(), "acme", directory.Query{Limit: 1, Count: true}); err != nil || p.Total != 20 {
		t.Errorf("numbers stored: %d, %v; want 20", p.Total, err)
	}
}
