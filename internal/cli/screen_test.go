package cli

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/config/strict"
)

const (
	someUUID = "0d4a5f7e-2c1b-4d8e-8f3a-9b6c5d4e3f2a"
	ipv6     = "[2001:db8:85a3:1234:5678:8a2e:1370:7334]:5061"
	reason   = "no answer to OPTIONS within 2 s: dial tcp [2001:db8:85a3:1234:5678:8a2e:1370:7334]:5061: connect: " +
		"connection timed out; the certificate of the peer could not be verified either"
)

// checkScreen fails the test unless every line of text that has more than one word fits a terminal, and the words given
// are in it unbroken.
func checkScreen(t *testing.T, name, text string, words ...string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 80 && len(strings.Fields(line)) > 1 {
			t.Errorf("%s: %d columns: %s", name, n, line)
		}
		if strings.HasSuffix(line, " \n") {
			t.Errorf("%s: a line ends with spaces: %q", name, line)
		}
	}
	has := map[string]bool{}
	for w := range strings.FieldsSeq(text) {
		has[w] = true
	}
	for _, w := range words {
		for x := range strings.FieldsSeq(w) {
			if !has[x] {
				t.Errorf("%s: the word %q is missing or split:\n%s", name, x, text)
			}
		}
	}
}

// TestHelpFitsATerminal checks the help of every command.
func TestHelpFitsATerminal(t *testing.T) {
	t.Parallel()
	run := func(args ...string) string {
		var out strings.Builder
		p := Program{Version: "v1.2.3", Args: args, Env: []string{"HOME=/home/operations"}, Stdout: &out,
			Stderr: io.Discard}
		if code := Run(t.Context(), p); code != 0 {
			t.Errorf("tandem %s: exit code %d", strings.Join(args, " "), code)
		}
		return out.String()
	}
	root := newRoot(&Program{Stdout: io.Discard, Stderr: io.Discard})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	known := map[string]bool{} // names of files
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		path := strings.Fields(c.CommandPath())[1:]
		known[strings.Join(path, "-")+".txt"] = c.Long != ""
		checkScreen(t, c.CommandPath()+" --help", run(append(path, "--help")...), either(c.Long == "", c.Short, ""))
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)

	files, err := helpTexts.ReadDir("help")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("help/%s is of no command", f.Name())
		}
	}
}

// TestTablesFitATerminal prints what each command prints, with long values: UUIDs, IPv6 addresses, reasons.
func TestTablesFitATerminal(t *testing.T) {
	t.Parallel()
	now := time.Now()
	check := func(name string, print func(*page), words ...string) {
		t.Helper()
		p := &page{width: screenWidth}
		print(p)
		checkScreen(t, name, p.String(), words...)
	}

	health := &api.Health{Status: api.HealthStatusNotReady, Reasons: []string{reason}, Version: "v1.2.3-45-gabcdef0",
		Node: "edge-frankfurt-1", Roles: []string{"api", "edge", "worker"}, Started: now,
		Database: &api.Database{Engine: "postgres", Location: ipv6 + "/tandem", Since: now},
		Replica:  &api.Replica{Error: reason, Held: &api.HeldIndex{Reason: reason, Database: someUUID, Since: now}},
		Parts: []api.Part{{Name: "provisioning", Since: now, Restarts: 12345, Error: reason},
			{Name: "edge", Running: true, Since: now}}}
	check("status", func(p *page) { printHealth(p, health) }, reason, "12345", "edge-frankfurt-1,")
	health.BaseDomain = "frankfurt.gateway.example.com"
	health.Provisioning = &api.Provisioning{URL: "https://" + ipv6, APIVersions: []string{"2024-02-29-preview"},
		AllowedSources: strings.Fields(strings.Repeat("2001:db8:85a3:1234::/64 ", 9)),
		Issuers: []api.Issuer{{Name: someUUID, Scope: "api://" + someUUID + "/.default",
			TokenURL: "https://login.microsoftonline.com/" + someUUID + "/oauth2/v2.0/token"},
			{Name: "https://issuer.example.com/realms/an-operator", Scope: "api://tandem-provisioning/.default"}}}
	check("status", func(p *page) { printHealth(p, health) }, health.BaseDomain, "https://"+ipv6+",",
		health.Provisioning.Issuers[0].Scope+",")
	health.Replica.Database = someUUID
	check("index", func(p *page) { printIndex(p, health.Replica) }, someUUID, reason)

	ready := &api.Readiness{Account: "acme", Failed: 1, Warned: 1, Passed: 20, Names: []string{"contoso.1r1.gw.example",
		"contoso.1r2.gw.example"}, Note: reason, Findings: []api.ReadinessFinding{
		{ID: "permission", Subject: "TeamsPolicyUserAssign.ReadWrite.All (application)", Level: "fail", Reason: reason,
			Remedy: reason}, {ID: "role", Subject: "purge", Level: "warn", Reason: reason},
		{ID: "cloud", Level: "pass"}}}
	check("tenant check", func(p *page) { printReadiness(p, ready, true) }, reason, "permission", "1 failed,", "->")
	check("carrier check", func(p *page) {
		printCarrier(p, &api.CarrierReport{Missing: []string{reason}, Remarks: []string{reason},
			CredentialExpires: &now})
	}, reason, "tandem carrier plan")
	app := &api.CarrierApp{Name: "Tandem gw.example", ClientID: someUUID, SignInAudience: "AzureADMultipleOrgs",
		RedirectUris: []string{"https://onboard.frankfurt.gateway.example.com/signin", "http://127.0.0.1"},
		Certificate:  strings.Repeat("0123456789abcdef", 4), CertificateExpires: &now,
		Permissions: []api.AppPermission{{Name: "TeamsPolicyUserAssign.ReadWrite.All", Kind: "application",
			ID: someUUID, Why: reason, Steps: []string{"users", "leave"}}}}
	check("carrier app", func(p *page) { printCarrierApp(p, app) }, someUUID, reason, "leave.")
	check("carrier app check", func(p *page) {
		printCarrierAppReport(p, &api.CarrierAppReport{Differences: []api.AppDifference{{
			Field: "requiredResourceAccess", Expected: "TeamsPolicyUserAssign.ReadWrite.All (application)"},
			{Field: "keyCredentials", Found: reason}}})
	}, reason, "absent")

	peers := api.PeerGroupList{Groups: []api.PeerGroup{
		{Name: "operator-connect-frankfurt", Service: "teamsOperatorConnect",
			Listen:      []string{"tls " + ipv6, "udp " + ipv6},
			Certificate: &api.PeerCertificate{File: "/etc/tandem/core.pem", Expires: now, Warning: reason},
			Peers: []api.Peer{{Name: "oc-europe-west-1", Address: ipv6, State: "down", Reason: reason},
				{Name: "oc-europe-west-2", Address: "192.0.2.17:5061", State: "up"},
				{Name: "unresolved", State: "down"}}},
		{Name: "none", Service: "core", Listen: []string{"udp 192.0.2.1:5060"},
			Certificate: &api.PeerCertificate{Name: "1r1"}}}}
	check("peers", func(p *page) { printPeers(p, peers) }, "operator-connect-frankfurt:", ipv6, reason,
		"oc-europe-west-2", "/etc/tandem/core.pem,", now.Format(time.DateOnly), "warning: "+reason,
		"certificate 1r1, not obtained yet")

	check("tenant access", func(p *page) {
		printAccess(p, &api.TenantAccess{State: "needsSignIn", Tenant: someUUID, Checked: now,
			Invitation:    &api.Invitation{Created: now, CreatedBy: "client:" + someUUID, Expires: now, Opened: now},
			Authorised:    &api.TenantMark{At: now, By: "an.administrator@a-customer.onmicrosoft.com"},
			ReadinessSeen: &api.TenantMark{At: now, By: "an.administrator@a-customer.onmicrosoft.com"},
			Person: &api.TenantPerson{Partner: true, Roles: []string{"Domain Name Administrator",
				"License Administrator", "Teams Telephony Administrator", "User Administrator"}},
			Lost: &api.SignInLost{Reason: reason, Since: now, Lifetime: 3600}})
	}, reason, "User Administrator", "lives for 1 hour", someUUID)

	longAgo := now.Add(-100 * 24 * time.Hour)
	check("tenant list", func(p *page) {
		printTenants(p, api.TenantList{Tenants: []api.Tenant{{Account: "northwind-traders-frankfurt", State: "waiting",
			Waiting: &api.TenantWait{For: "person", Reason: reason, Since: longAgo},
			Overview: &api.TenantOverview{Drift: 12, DriftChecked: now, Consented: longAgo, SignInLost: longAgo,
				SpareLicences: new(1234), Synced: now, ActiveUsers: 56789}}, {Account: "acme", State: "new"}}})
	}, "northwind-traders-frankfurt", reason, "lost 100d", "1234", "56789", "12")
	rolled := &api.Rollout{ID: "ABCDEFGHIJ", Template: "branches-of-northwind", State: "stopped", Ring: 2, Rings: 3,
		Account: "northwind-traders-frankfurt", Reason: reason, Tenants: []api.RolloutTenant{
			{Account: "northwind-traders-frankfurt", Ring: 1, State: "applied", Create: 12, Change: 1},
			{Account: "acme", Ring: 2, State: "unplanned", Problem: reason}}}
	check("tenant template rollout show", func(p *page) { printRollout(p, rolled) }, reason, "unplanned",
		"northwind-traders-frankfurt")
	check("tenant template show", func(p *page) {
		printTemplate(p, &api.Template{Name: "branches-of-northwind", Tenants: 3, Changed: now,
			Settings: api.TemplateSettings{Country: "GB", OwnUsageOnly: true,
				Emergency: []api.EmergencyNumber{{DialString: "112", Mask: "999;911"}},
				Rules:     []api.DialRule{{Name: "national", Pattern: `^0(\d{9,10})$`, Translation: "+44$1"}}}})
	}, "branches-of-northwind", "999;911", `^0(\d{9,10})$`)
	check("tenant move show", func(p *page) {
		printMove(p, &api.TenantMove{Account: "northwind-traders-frankfurt", TenantID: someUUID, Old: "northwind",
			Stage: "numbers", Numbers: 7, Next: reason})
	}, someUUID, reason, "northwind-traders-frankfurt")

	explanation := &api.Explanation{
		Text: "to Microsoft Teams Operator Connect via peer group operator-connect-frankfurt, " +
			"then operator-connect-amsterdam, then operator-connect-london",
		Rule: "number-service", Account: "northwind",
		Called: "+442079460123", Identity: "+442079460123", IdentitySource: "P-Asserted-Identity",
		PeerGroups: peers.Groups,
		Steps: []api.Step{{Rule: "provisioned-service-of-the-number", Result: "decides", Text: reason,
			Facts: []api.Fact{{Name: "number", Value: "+442079460123"}, {Name: "account", Value: someUUID}}}}}
	check("explain", func(p *page) { printExplanation(p, explanation) }, explanation.Text, reason,
		"provisioned-service-of-the-number", "account="+someUUID+")", "unresolved of operator-connect-frankfurt: down")

	services := client.NumberServices{TeamsDirectRouting: &client.NumberService{Enabled: true},
		AzureOperatorCallProtection: &client.NumberService{Enabled: true}}
	numbers := []*client.Number{{TelephoneNumber: "+442079460123",
		AccountName:    "an-account-with-a-name-of-forty-characters",
		ServiceDetails: services, Configuration: &client.NumberConfiguration{CustomSIPHeader: someUUID}}}
	check("number list", func(p *page) { printNumbers(p, numbers) }, someUUID, "+442079460123", numbers[0].AccountName,
		"azureOperatorCallProtection teamsDirectRouting")
	accounts := []*client.Account{{Name: "northwind", CorrelationID: someUUID, ServiceDetails: &client.AccountServices{
		TeamsTenantID: someUUID, TeamsOperatorConnect: &client.AccountService{Enabled: true, NumberCount: 1_000_000}}}}
	check("account list", func(p *page) { printAccounts(p, accounts) }, "northwind", someUUID,
		"teamsOperatorConnect", "1000000")

	clients := api.ClientList{Clients: []api.Client{{
		ID: someUUID, Name: "the operator's BSS in production", Created: now,
		Roles: []string{"ProvisioningAPI.Admin", "ProvisioningAPI.Read", "Management.Read"}, Revoked: now}}}
	check("client list", func(p *page) { printClients(p, clients) }, someUUID, "ProvisioningAPI.Admin Management.Read")
	work := api.WorkList{Work: []api.Work{{Kind: "operator-connect-number", ID: someUUID, State: api.WorkStateQueued,
		Attempts: 19, Due: now, Since: now, Reason: reason}}}
	check("work list", func(p *page) { printWork(p, work) }, someUUID, reason)
	zone := &api.Zone{Zone: "gw.operator.example", Publish: "serve", Serial: 1795932284, RecordsInAll: 300_000,
		Records: []api.ZoneRecord{{Name: "northwind.1r1.gw.operator.example", Type: "TXT", TTL: 60, Added: now,
			Data: `"MS=ms12345678"`, Source: "account:" + someUUID}}, More: true}
	check("zone show", func(p *page) { printZone(p, zone) }, zone.Records[0].Name, zone.Records[0].Data,
		zone.Records[0].Source)
	found := &api.ZoneReport{Names: []string{zone.Records[0].Name}, Until: now,
		Servers: []api.ZoneServer{{Name: "ns1.operator.example", Address: "192.0.2.53:53", Serial: 1795932284},
			{Name: "a.parent.example", Address: "[2001:db8::53]:53", Parent: true}},
		Findings: []api.ZoneFinding{{Server: "ns1.operator.example", Address: "192.0.2.53:53",
			Problem: api.ZoneFindingProblemMissing, Text: reason}}}
	check("zone check", func(p *page) { printZoneReport(p, found) }, "ns1.operator.example", "1795932284",
		"a.parent.example", reason)
	certificates := &api.CertificateList{HeldUntil: now, HeldReason: reason, Certificates: []api.Certificate{
		{Name: "provapi", Names: []string{"provapi.gw.operator.example"}, UsedBy: []string{"provisioning"},
			Issuer: "Pebble Intermediate CA 1b1b1b", NotAfter: now, RenewAt: now, NextAttempt: now, Source: "acme"},
		{Name: "1r1", Names: []string{"1r1.gw.operator.example", "*.1r1.gw.operator.example"}, Failed: 12,
			NotAfter: now, Overdue: true,
			UsedBy: []string{"direct-routing-frankfurt"}, LastAttempt: now, NextAttempt: now, Cause: "challengeFailed",
			Error: reason},
		{File: "/etc/tandem/certificates/core-frankfurt-1.pem", Names: []string{"core.operator.example"},
			UsedBy: []string{"core"}, NotAfter: now, Source: "file"}}}
	check("certificate list", func(p *page) { printCertificates(p, certificates) }, "provapi", "challengeFailed;",
		"direct-routing-frankfurt", certificates.Certificates[2].File, "*.1r1.gw.operator.example", reason,
		"was not renewed",
		now.UTC().Format(time.DateOnly))
	reloaded := &api.Reloaded{Applied: []string{"calls.groups[0].maxCalls"},
		Restart: []string{"calls.groups[17].peers[3].tls.certificateFile", strings.Repeat("x", 70)}}
	check("reload", func(p *page) { printReloaded(p, reloaded) }, reloaded.Applied[0], reloaded.Restart[0])
	report := &api.TokenReport{Checks: []api.TokenCheck{{Name: "issuer", Result: "ok", Detail: reason},
		{Name: "revocation", Result: "failed", Detail: reason, Remedy: reason}, {Name: "roles", Result: "notReached"}}}
	check("auth try", func(p *page) { printTokenReport(p, report) }, "revocation", "not reached", "remedy: "+reason)
	checkScreen(t, "auth entra", entraSteps+entraManifest)
	check("config check", func(p *page) {
		printCheck(p, checkReport{Valid: true, EmergencyStrings: strings.Fields(strings.Repeat("112 ", 60)),
			Warnings: strict.Problems{{Source: "tandem.yaml", Line: 4, Column: 1, Path: "calls", Message: reason}}})
	}, "warning: tandem.yaml:4:1: calls: "+reason)
}
