package filter_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/testkit/filters"
)

// The tables whose fields depend on the services.
var (
	accounts = filter.Accounts(services.All().Services())
	numbers  = filter.Numbers(services.All().Services())
)

func TestParseAndMatch(t *testing.T) {
	number := &domain.Number{
		TelephoneNumber: "+14255550142",
		AccountName:     "o'neil",
		Services: map[domain.Service]domain.NumberService{
			directrouting.Service: {Enabled: true},
			operatorconnect.Service: {Enabled: false, AssignmentStatus: "unassigned",
				Teams: &domain.TeamsNumberConfig{Usage: "CallingUserAssignment", AllowTenantAddressUpdate: true}},
		},
		HasConfiguration: true,
		CustomSIPHeader:  "NW-7781",
		State:            domain.ProvisioningState{Status: domain.SyncSynced},
	}
	for _, tc := range []struct {
		filter string
		want   bool
	}{
		{"accountName eq 'o''neil'", true},
		{"accountName eq 'O''NEIL'", false},
		{"accountName ne 'o''neil'", false},
		{"serviceDetails/teamsDirectRouting/enabled eq true", true},
		{"serviceDetails/teamsOperatorConnect/enabled eq true", false},
		{"serviceDetails/teamsOperatorConnect/enabled ne true", true},
		{"serviceDetails/zoomPhoneCloudPeering/enabled eq false", false}, // absent: equals nothing
		{"serviceDetails/zoomPhoneCloudPeering/enabled ne true", true},
		{"not (serviceDetails/zoomPhoneCloudPeering/enabled eq false)", true},
		{"startswith(telephoneNumber,'+1425')", true},
		{"startswith(telephoneNumber , '+1206')", false},
		{"not startswith(telephoneNumber,'+1206')", true},
		{"not not startswith(telephoneNumber,'+1206')", false},
		{"startswith(serviceDetails/teamsPhoneMobile/configuration/usage,'')", false},
		{"startswith(serviceDetails/teamsOperatorConnect/configuration/usage,'')", true},
		{"configuration/customSipHeader eq 'NW-7781' and serviceProvisioningStatus eq 'synced'", true},
		// "and" binds tighter than "or".
		{"accountName eq 'x' and accountName eq 'y' or telephoneNumber eq '+14255550142'", true},
		{"accountName eq 'x' and (accountName eq 'y' or telephoneNumber eq '+14255550142')", false},
		{"serviceDetails/teamsOperatorConnect/configuration/allowTenantAddressUpdate eq true", true},
		{"serviceDetails/teamsOperatorConnect/assignmentStatus eq 'unassigned'", true},
	} {
		e, err := filter.Parse(numbers, tc.filter)
		if err != nil {
			t.Errorf("Parse(%q): %v", tc.filter, err)
			continue
		}
		if got := filters.Match(e, filters.OfNumber(number)); got != tc.want {
			t.Errorf("Match(%q) = %v, want %v", tc.filter, got, tc.want)
		}
	}
}

func TestTenantIDsCompareInLowerCase(t *testing.T) {
	e, err := filter.Parse(filter.Requests, "tenantId eq 'A7F4BD5C-CC01-40F4-8BAA-2B6BDB272B8A'")
	if err != nil {
		t.Fatal(err)
	}
	if !filters.Match(e,
		filters.OfRequest(&domain.RequestForInformation{TenantID: "a7f4bd5c-cc01-40f4-8baa-2b6bdb272b8a"})) {
		t.Error("a GUID written in upper case does not match the stored lower case")
	}
}

func TestParseErrorsNameThePosition(t *testing.T) {
	for _, tc := range []struct {
		filter, want string // want: a part of the message
	}{
		{"", "position 1: want a field name, not, startswith or \"(\", got the end"},
		{"   ", "position 4: want a field name"},
		{"nme eq 'x'", "position 1: \"nme\" is not a field of numbers"},
		{"telephoneNumber", "position 16: want eq or ne after telephoneNumber, got the end"},
		{"telephoneNumber gt '+1'", "position 17: want eq or ne after telephoneNumber, got \"gt\""},
		{"telephoneNumber eq true", "position 20: want a string in single quotes"},
		{"telephoneNumber eq \"+1\"", "position 20: want a string in single quotes"},
		{"telephoneNumber eq ' 14255550142'",
			"position 21: a telephone number begins with \"+\"; write it as %2B in a URL"},
		{"startswith(telephoneNumber,' 1425')", "position 29: a telephone number begins with"},
		{"telephoneNumber eq null", "position 20: want a string in single quotes"},
		{"telephoneNumber eq 'a", "position 20: the string that begins here has no closing quote"},
		{"telephoneNumber eq 'a''", "position 20: the string that begins here has no closing quote"},
		{"serviceDetails/teamsDirectRouting/enabled", "position 42: want eq or ne"},
		{"serviceDetails/teamsDirectRouting/enabled eq 'true'", "position 46: want true or false"},
		{"serviceDetails/teamsDirectRouting/enabled eq True", "position 46: want true or false"},
		{"'x' eq accountName", "position 1: want a field name"},
		{"accountName eq 'é' und", "position 20: want \"and\", \"or\" or the end, got \"und\""},
		{"accountName eq 'a' and", "position 23: want a field name"},
		{"(accountName eq 'a'", "position 20: want \"and\", \"or\" or \")\", got the end"},
		{"accountName eq 'a')", "position 19: want \"and\", \"or\" or the end"},
		{"not accountName eq 'a'", "position 5: want \"(\" or startswith after not"},
		{"startswith accountName", "position 12: want \"(\" after startswith"},
		{"startswith(accountName)", "position 23: want \",\" after accountName"},
		{"startswith(accountName,true)", "position 24: want a string in single quotes"},
		{"startswith(accountName,'a'", "position 27: want \")\", got the end"},
		{"startswith(serviceDetails/teamsDirectRouting/enabled,'t')", "position 12: startswith takes a string field"},
		{"endswith(accountName,'a')", "position 1: \"endswith\" is not a field"},
		{"accountName eq 'a' ; drop", "position 20: want \"and\", \"or\" or the end, got \";\""},
		{"accountName eq '\x00'", "position 17: control characters are not allowed"},
		{"accountName eq '\xff'", "position 17: not valid UTF-8"},
		{"eq eq 'a'", "position 1: want a field name, got \"eq\""},
		{strings.Repeat("(", 40), "position 34: parentheses and nots are nested deeper than 32"},
		{strings.Repeat("not ", 40) + "(accountName eq 'a')", "nested deeper than 32"},
		{strings.Repeat("name eq 'a' or ", 65), "position 1: \"name\" is not a field"},
		{strings.Repeat("accountName eq 'a' or ", 65) + "accountName eq 'b'", "more than 64 comparisons"},
		{strings.Repeat(" ", 3000), "position 1: the expression has 3000 bytes; at most 2048 are allowed"},
	} {
		_, err := filter.Parse(numbers, tc.filter)
		var f *fault.Error
		if !errors.As(err, &f) {
			t.Errorf("Parse(%q) = %v, want a fault", tc.filter, err)
			continue
		}
		if f.Kind != fault.Invalid || f.Code != filter.CodeInvalidFilter || f.Target != "filter" ||
			!strings.Contains(f.Message, tc.want) {
			t.Errorf("Parse(%q) = %v %s %q: %s\nwant %s in the message", tc.filter, f.Kind, f.Code, f.Target,
				f.Message, tc.want)
		}
	}
}

// TestRecordsKnowEveryField keeps tables and accessors in sync: on a resource with everything set, every field of its
// table is present and has its declared type.
func TestRecordsKnowEveryField(t *testing.T) {
	account := &domain.Account{Name: "a", CorrelationID: "c", TeamsTenantID: "t",
		State: domain.ProvisioningState{Status: "synced"}, Services: map[domain.Service]domain.AccountService{}}
	number := &domain.Number{TelephoneNumber: "+15550001", AccountName: "a", CustomSIPHeader: "h",
		State: domain.ProvisioningState{Status: "synced"}, Services: map[domain.Service]domain.NumberService{}}
	for _, s := range services.All().Services() {
		account.Services[s] = domain.AccountService{SubdomainStatus: domain.SubdomainProvisioned,
			DirectRouting: &domain.DirectRoutingConfig{Label: domain.Label{Subdomain: "s"}}}
		number.Services[s] = domain.NumberService{AssignmentStatus: "assigned",
			Teams: &domain.TeamsNumberConfig{Usage: "u", CivicAddressID: "c", LocationID: "l",
				DisplayedCountryCode: "d"}}
	}
	request := &domain.RequestForInformation{ID: "i", TenantID: "t", AccountName: "a", OperatorID: "o",
		Status: "active", Relationship: &domain.CustomerRelationship{Status: "s", Comment: "c"},
		State: domain.ProvisioningState{Status: "synced"}}
	address := &domain.CivicAddress{ID: "i", Country: "c", HouseNumber: "h", HouseNumberSuffix: "s",
		PreDirectional: "p", StreetName: "s", StreetSuffix: "s", PostDirectional: "p",
		StateOrProvince: "s", CountyOrDistrict: "c", CityOrTown: "c", CityOrTownAlias: "c", PostalOrZipCode: "p",
		Description: "d", CompanyName: "c", CompanyID: "c", DefaultLocationID: "d", ValidationStatus: "v",
		TenantID: "t", PartnerID: "p", Latitude: "l", Longitude: "l"}
	for _, tc := range []struct {
		table  *filter.Table
		record filters.Record
	}{{accounts, filters.OfAccount(account)}, {numbers, filters.OfNumber(number)},
		{filter.Requests, filters.OfRequest(request)}, {filter.CivicAddresses, filters.OfCivicAddress(address)}} {
		for _, f := range filters.Fields(tc.table) {
			if v, ok := tc.record(f.Path); !ok || v.Type != f.Type {
				t.Errorf("%s: field %s = %+v, %v; want a value of type %d", tc.table.Resource, f.Path, v, ok, f.Type)
			}
		}
		if _, ok := tc.record("nonsense"); ok {
			t.Errorf("%s has a field called nonsense", tc.table.Resource)
		}
	}
	if got, want := len(filters.Fields(accounts)), 4+5+4+3; got != want {
		t.Errorf("accounts have %d fields, want %d: %v", got, want, paths(accounts))
	}
	if f := accounts.Fields["serviceDetails/azureOperatorCallProtection/syncEnabled"]; f != nil {
		t.Error("Call Protection has no syncEnabled in the contract, but can be filtered by it")
	}
}

func paths(t *filter.Table) []string {
	var l []string
	for _, f := range filters.Fields(t) {
		l = append(l, f.Path)
	}
	return l
}

func fold(f *filter.Field, s string) string {
	if f.Lower {
		return strings.ToLower(s)
	}
	return s
}

// genExpr draws any tree that the parser can produce.
func genExpr(t *rapid.T, table *filter.Table, depth int) filter.Expr {
	fields := filters.Fields(table)
	text := rapid.StringMatching(`[ -~é'()]{0,12}`)
	kind := rapid.IntRange(0, 4).Draw(t, "kind")
	if depth == 0 {
		kind %= 2
	}
	switch kind {
	case 0:
		f := rapid.SampledFrom(fields).Draw(t, "field")
		c := &filter.Compare{Field: f, Negated: rapid.Bool().Draw(t, "negated")}
		if f.Type == filter.Bool {
			c.Value = filter.BoolValue(rapid.Bool().Draw(t, "bool"))
		} else {
			c.Value = filter.StringValue(fold(f, strings.TrimLeft(text.Draw(t, "text"), " ")))
		}
		return c
	case 1:
		strs := slices.DeleteFunc(fields, func(f *filter.Field) bool { return f.Type != filter.String })
		f := rapid.SampledFrom(strs).Draw(t, "field")
		return &filter.Prefix{Field: f, Prefix: fold(f, strings.TrimLeft(text.Draw(t, "text"), " "))}
	case 2:
		return &filter.And{genExpr(t, table, depth-1), genExpr(t, table, depth-1)}
	case 3:
		return &filter.Or{genExpr(t, table, depth-1), genExpr(t, table, depth-1)}
	}
	return &filter.Not{genExpr(t, table, depth-1)}
}

func TestPrintThenParseIsTheSameTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := rapid.SampledFrom([]*filter.Table{accounts, numbers, filter.Requests,
			filter.CivicAddresses}).Draw(t, "table")
		e := genExpr(t, table, 3)
		s := filters.Print(e)
		if len(s) > filter.MaxLength {
			t.Skip("longer than the parser accepts")
		}
		got, err := filter.Parse(table, s)
		if err != nil {
			t.Fatalf("Parse(Print(e)) of %q: %v", s, err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Fatalf("Parse(%q) is another tree (-printed +parsed):\n%s", s, diff)
		}
	})
}

// TestDeMorgan: with no third truth value, the classic equivalences hold on every record, absent fields included.
func TestDeMorgan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genExpr(t, numbers, 2), genExpr(t, numbers, 2)
		n := &domain.Number{TelephoneNumber: "+14255550142",
			AccountName: rapid.SampledFrom([]string{"a", "é", "'"}).Draw(t, "account"),
			Services:    map[domain.Service]domain.NumberService{}}
		for _, s := range services.All().Services() {
			if rapid.Bool().Draw(t, "has") {
				n.Services[s] = domain.NumberService{Enabled: rapid.Bool().Draw(t, "enabled")}
			}
		}
		r := filters.OfNumber(n)
		if filters.Match(&filter.Not{&filter.And{a, b}}, r) !=
			filters.Match(&filter.Or{&filter.Not{a}, &filter.Not{b}}, r) {
			t.Fatalf("not (a and b) differs from not a or not b for a=%q b=%q", filters.Print(a), filters.Print(b))
		}
		if filters.Match(&filter.Not{a}, r) == filters.Match(a, r) {
			t.Fatalf("not a equals a for a=%q", filters.Print(a))
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"accountName eq 'o''neil'", "not (startswith(telephoneNumber,'+44') or configuration/customSipHeader ne 'x')",
		"serviceDetails/teamsDirectRouting/enabled eq true and accountName eq 'a'", "((((", "'", "not not not",
		"startswith(", "accountName eq '\u00e9'",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, table := range []*filter.Table{accounts, numbers, filter.Requests, filter.CivicAddresses} {
			e, err := filter.Parse(table, s)
			if err != nil {
				var fe *fault.Error
				if !errors.As(err, &fe) || fe.Code != filter.CodeInvalidFilter ||
					!strings.Contains(fe.Message, "position ") {
					t.Fatalf("Parse(%q) = %v: not a filter error that names a position", s, err)
				}
				continue
			}
			// An accepted filter has one printed form, and that form is stable.
			p := filters.Print(e)
			again, err := filter.Parse(table, p)
			if err != nil && len(p) <= filter.MaxLength {
				t.Fatalf("Parse(%q) works but its printed form %q does not: %v", s, p, err)
			}
			if err == nil && filters.Print(again) != p {
				t.Fatalf("printed form of %q is not stable: %q, then %q", s, p, filters.Print(again))
			}
			filters.Match(e, filters.OfNumber(&domain.Number{}))
			filters.Match(e, filters.OfAccount(&domain.Account{}))
		}
	})
}
