package route_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/acs"
	"github.com/tandemgw/tandem/internal/services/callprotection"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/services/phonemobile"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

// world is a small directory kept in maps: the test's own View.
type world struct {
	accounts map[string]*domain.AccountRouting
	numbers  map[domain.E164]domain.NumberRouting
}

func (w *world) Number(n domain.E164) (route.Number, bool) {
	r, ok := w.numbers[n]
	if !ok {
		return route.Number{}, false
	}
	return route.Number{Account: w.accounts[r.Account], Services: r.Services, Slot: r.Slot}, true
}

func (w *world) CustomHeader(n domain.E164) string { return w.numbers[n].CustomHeader }

func (w *world) AccountByLabel(label string) *domain.AccountRouting {
	for _, a := range w.accounts {
		if label != "" && (a.Subdomain == label || a.Pending == label) {
			return a
		}
	}
	return nil
}

func (w *world) account(name string, a domain.AccountRouting, enabled ...domain.Service) {
	a.Name, a.Enabled = name, set(enabled...)
	w.accounts[name] = &a
}

func (w *world) number(n domain.E164, account, header string, services ...domain.Service) {
	w.numbers[n] = domain.NumberRouting{Key: n.Key(), Account: account, CustomHeader: header,
		Services: set(services...)}
}

func set(services ...domain.Service) (x domain.ServiceSet) {
	for _, s := range services {
		x = x.With(s)
	}
	return x
}

// newWorld is the directory for the cases in testdata/explain.
func newWorld() *world {
	w := &world{accounts: map[string]*domain.AccountRouting{}, numbers: map[domain.E164]domain.NumberRouting{}}
	// Contoso: Direct Routing, screened, with a second label.
	w.account("contoso", domain.AccountRouting{Subdomain: "contoso", Pending: "moving", CallScreening: true},
		directrouting.Service, zoom.Service)
	w.number("+442079460100", "contoso", "CT-100", directrouting.Service)
	w.number("+442079460101", "contoso", "", directrouting.Service)
	w.number("+442079460102", "contoso", "CT-102", zoom.Service)
	w.number("+442079460103", "contoso", "CT-103")                          // no service
	w.number("+442079460104", "contoso", "CT-104", operatorconnect.Service) // not enabled on the account
	w.number("+442079460106", "contoso", "CT-106", directrouting.Service)
	recorded := w.numbers["+442079460106"]
	recorded.Slot = 2
	w.numbers["+442079460106"] = recorded
	// Fabrikam: Direct Routing, not screened.
	w.account("fabrikam", domain.AccountRouting{Subdomain: "fab"}, directrouting.Service,
		operatorconnect.Service, phonemobile.Service, acs.Service, callprotection.Service)
	w.number("+442079460200", "fabrikam", "FK-200", directrouting.Service)
	w.number("+442079460201", "fabrikam", "FK-201", operatorconnect.Service)
	w.number("+447700900202", "fabrikam", "FK-202", phonemobile.Service)
	w.number("+442079460203", "fabrikam", "FK-203", acs.Service)
	w.number("+442079460204", "fabrikam", "FK-204", callprotection.Service)
	w.number("+442079460205", "fabrikam", "FK-205", callprotection.Service, directrouting.Service)
	w.number("+442079460206", "fabrikam", "FK-206", callprotection.Service, acs.Service)
	// Newco: no name server has its label. Oldco has no label at all.
	w.account("newco", domain.AccountRouting{Subdomain: "newco", SubdomainStatus: domain.SubdomainNotProvisioned,
		CallScreening: true}, directrouting.Service)
	w.number("+442079460300", "newco", "", directrouting.Service)
	w.account("oldco", domain.AccountRouting{CallScreening: true}, directrouting.Service)
	w.number("+442079460400", "oldco", "", directrouting.Service)
	// Proseware may show presentation numbers.
	w.account("proseware", domain.AccountRouting{Subdomain: "prose", CallScreening: true},
		directrouting.Service)
	w.number("+442079460500", "proseware", "", directrouting.Service)
	// Exco no longer has Direct Routing; its label still exists.
	w.account("exco", domain.AccountRouting{Subdomain: "exco", CallScreening: true})
	// A service-verification number that is provisioned nevertheless.
	w.number("+442079460901", "contoso", "CT-901", directrouting.Service)
	return w
}

func config() route.Config {
	return route.Config{
		BaseDomain: "gw.example.com",
		PeerGroupToService: map[string]string{
			"core-fixed":  "teamsOperatorConnect",
			"core-mobile": "teamsPhoneMobile",
		},
		ServiceToPeerGroup: map[string]string{
			"teamsDirectRouting":         "core-fixed",
			"teamsOperatorConnect":       "core-fixed",
			"teamsPhoneMobile":           "core-mobile",
			"zoomPhoneCloudPeering":      "core-fixed",
			"azureCommunicationServices": "core-fixed",
		},
		EmergencyDialStrings: []string{"999", "112", "911"},
		VerificationNumbers: map[string][]string{
			"teamsOperatorConnect":  {"+442079460900"},
			"zoomPhoneCloudPeering": {"+442079460901"},
		},
		MobileControlPoints:  []string{"mcp"},
		PresentationAccounts: []string{"proseware"},
	}
}

func groups() []route.Group {
	return []route.Group{
		{Name: "core-a"}, // no default service
		{Name: "core-fixed"}, {Name: "core-mobile"}, {Name: "mcp"},
		{Name: "teams-dr", Service: directrouting.Service},
		{Name: "teams-oc", Service: operatorconnect.Service},
		{Name: "teams-oc-backup", Service: operatorconnect.Service},
		{Name: "teams-tpm", Service: phonemobile.Service},
		{Name: "zoom", Service: zoom.Service},
		{Name: "acs", Service: acs.Service},
	}
}

func policy(t testing.TB) *route.Policy {
	t.Helper()
	c := config()
	p, problems := c.Compile(services.All().Services(), groups())
	for _, err := range problems {
		t.Errorf("Compile: %v", err)
	}
	if p == nil {
		t.FailNow()
	}
	return p
}
