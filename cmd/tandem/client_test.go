package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tandemgw/tandem/client"
)

// TestClientSpeaksEveryOperation calls each operation of the Provisioning API through package client on a running
// server.
func TestClientSpeaksEveryOperation(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := serve(t, data, "--lab")
	c := provisioningClient(t, p, token(t, data, "Admin"))
	ctx := t.Context()
	const tenant = "0d4a5f7e-2c1b-4d8e-8f3a-9b6c5d4e3f2a" // fabrikam's, in the lab

	// Accounts.
	a, err := c.PutAccount(ctx, &client.Account{Name: "wingtip", CorrelationID: "crm-1",
		ServiceDetails: &client.AccountServices{ZoomPhoneCloudPeering: &client.AccountService{Enabled: true}}},
		client.Condition{IfNoneMatch: new("*")})
	if err != nil || a.ETag == "" || a.ProvisioningStatus != "synced" {
		t.Fatalf("PutAccount = %+v, %v", a, err)
	}
	got, err := c.Account(ctx, "wingtip")
	if err != nil || got.CorrelationID != "crm-1" || got.ETag != a.ETag ||
		!got.ServiceDetails.ZoomPhoneCloudPeering.Enabled {
		t.Errorf("Account = %+v, %v", got, err)
	}
	got.CorrelationID = "crm-2"
	if _, err := c.PutAccount(ctx, got, client.Condition{IfMatch: new(a.ETag)}); err != nil {
		t.Errorf("PutAccount with the current ETag: %v", err)
	}
	if _, err := c.PutAccount(ctx, got, client.Condition{IfMatch: new(a.ETag)}); err == nil {
		t.Error("PutAccount with a stale ETag went through")
	}
	if _, err := c.Account(ctx, "unknown"); !client.IsNotFound(err) {
		t.Errorf("Account of an unknown name: %v", err)
	}
	var names []string
	for x, err := range c.Accounts(ctx, client.List{MaxPageSize: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, x.Name)
	}
	if !slices.Equal(names, []string{"adatum", "contoso", "fabrikam", "northwind", "wingtip"}) {
		t.Errorf("Accounts = %v", names)
	}

	// Numbers: a full batch, read page by page, one by one, deleted.
	var batch []client.Number
	for i := range client.MaxBatch {
		batch = append(batch, client.Number{TelephoneNumber: fmt.Sprintf("+4420794603%02d", i), AccountName: "wingtip",
			ServiceDetails: client.NumberServices{ZoomPhoneCloudPeering: &client.NumberService{Enabled: true}}})
	}
	if err := c.CreateOrUpdateNumbers(ctx, "wingtip", batch); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateOrUpdateNumbers(ctx, "wingtip", append(batch, batch[0])); err == nil {
		t.Error("a batch of 101 went through")
	}
	var seen []string
	for n, err := range c.Numbers(ctx, "wingtip", client.List{MaxPageSize: 30}) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, n.TelephoneNumber)
	}
	if len(seen) != client.MaxBatch || !slices.IsSorted(seen) {
		t.Errorf("Numbers: %d, in order %v", len(seen), slices.IsSorted(seen))
	}
	filtered := 0
	for n, err := range c.Numbers(ctx, "", client.List{Filter: "startswith(telephoneNumber,'+442079460305')"}) {
		if err != nil {
			t.Fatal(err)
		}
		if n.AccountName == "wingtip" {
			filtered++
		}
	}
	if filtered != 1 {
		t.Errorf("Numbers with a filter: %d, want 1", filtered)
	}
	n, err := c.PutNumber(ctx, &client.Number{TelephoneNumber: "+442079460305", AccountName: "wingtip",
		Configuration:  &client.NumberConfiguration{CustomSIPHeader: "desk-5"},
		ServiceDetails: client.NumberServices{ZoomPhoneCloudPeering: &client.NumberService{Enabled: true}}},
		client.Condition{IfUnmodifiedSince: new(time.Now().Add(time.Minute))})
	if err != nil || n.Configuration.CustomSIPHeader != "desk-5" {
		t.Errorf("PutNumber = %+v, %v", n, err)
	}
	if n, err = c.Number(ctx, "wingtip", "+442079460305"); err != nil || n.ETag == "" || n.Configuration == nil {
		t.Errorf("Number = %+v, %v", n, err)
	}
	if err := c.DeleteNumber(ctx, "wingtip", "+442079460305", client.Condition{IfMatch: new(n.ETag)}); err != nil {
		t.Errorf("DeleteNumber: %v", err)
	}
	if err := c.DeleteNumbers(ctx, "wingtip", []string{"+442079460305", "+442079460306"}); err != nil {
		t.Errorf("DeleteNumbers: %v", err)
	}
	if err := c.DeleteAccount(ctx, "wingtip", false, client.Condition{}); !client.HasCode(err, "AccountHasNumbers") {
		t.Errorf("DeleteAccount with numbers: %v", err)
	}
	if err := c.DeleteAccount(ctx, "wingtip", true, client.Condition{}); err != nil {
		t.Errorf("DeleteAccount: %v", err)
	}

	// Data from Teams.
	plans, err := c.CapabilityPlans(ctx, "fabrikam")
	if err != nil || len(plans) != 2 || plans[0].Usage == "" {
		t.Errorf("CapabilityPlans = %+v, %v", plans, err)
	}
	if caps, err := c.AvailableCapabilities(ctx, "fabrikam", []string{"+442079460100", "+442079460101"}); err != nil ||
		len(caps) == 0 {
		t.Errorf("AvailableCapabilities = %v, %v", caps, err)
	}
	var addresses []*client.CivicAddress
	for x, err := range c.CivicAddresses(ctx, "fabrikam", client.List{}) {
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, x)
	}
	if len(addresses) != 2 {
		t.Fatalf("CivicAddresses: %d", len(addresses))
	}
	if x, err := c.CivicAddress(ctx, "fabrikam", addresses[0].ID); err != nil ||
		x.CityOrTown != addresses[0].CityOrTown || len(x.Locations) != 1 {
		t.Errorf("CivicAddress = %+v, %v", x, err)
	}
	requests := 0
	for x, err := range c.Requests(ctx, client.List{}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(x.Contacts) > 0 {
			requests++
		}
	}
	if requests != 2 {
		t.Errorf("Requests: %d with contacts, want 2", requests)
	}
	r, err := c.UpdateRequest(ctx, tenant, client.CustomerRelationship{Status: "contacted",
		Comment: "called on Monday"}, client.Condition{})
	if err != nil || r.CustomerRelationship == nil || r.CustomerRelationship.Comment != "called on Monday" {
		t.Errorf("UpdateRequest = %+v, %v", r, err)
	}
	if r, err = c.Request(ctx, tenant); err != nil || r.ETag == "" || r.CustomerRelationship.Status != "contacted" ||
		r.ConsentedOn.IsZero() {
		t.Errorf("Request = %+v, %v", r, err)
	}
}
