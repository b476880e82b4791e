package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/services/phonemobile"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

// The tenants of the lab's customers. Names are those that Microsoft's documentation uses for examples; numbers are
// from the ranges that Ofcom reserves for drama and ITU-T for examples, so that none belongs to a real subscriber.
const (
	labContoso   = "3f8a0d2c-5b1e-4c7a-9d60-1a2b3c4d5e01"
	labFabrikam  = "3f8a0d2c-5b1e-4c7a-9d60-1a2b3c4d5e02"
	labNorthwind = "3f8a0d2c-5b1e-4c7a-9d60-1a2b3c4d5e03"
	labAdventure = "3f8a0d2c-5b1e-4c7a-9d60-1a2b3c4d5e04"
)

type labCustomer struct {
	account domain.Account
	service domain.Service
	first   uint64 // first number, as domain.E164.Key
	count   uint64
	header  bool
}

func labCustomers() []labCustomer {
	on := domain.AccountService{Enabled: true}
	account := func(name, tenant string, s domain.Service, d domain.AccountService) domain.Account {
		return domain.Account{Name: name, CorrelationID: "lab-" + name, HasServiceDetails: true, TeamsTenantID: tenant,
			Services: map[domain.Service]domain.AccountService{s: d}}
	}
	dr := domain.AccountService{Enabled: true, DirectRouting: &domain.DirectRoutingConfig{CallScreening: true,
		Subdomain: "contoso", Region1Token: "MS=ms10000001", Region2Token: "MS=ms10000002"}}
	return []labCustomer{
		{account("contoso", labContoso, directrouting.Service, dr), directrouting.Service, 442079460100, 50, true},
		{account("fabrikam", labFabrikam, operatorconnect.Service, on), operatorconnect.Service, 441632960000, 50,
			true},
		{account("northwind", labNorthwind, phonemobile.Service, on), phonemobile.Service, 447700900000, 20, false},
		{account("adventure-works", "", zoom.Service, on), zoom.Service, 441184960000, 20, true},
	}
}

// seedLab adds the lab's customers, numbers, requests for information, civic addresses and capability plans to a
// directory that has no account yet. It does not change one that has.
func seedLab(ctx context.Context, d *directory.Directory, log *slog.Logger) error {
	ctx = domain.WithActor(ctx, domain.Actor{Kind: "system", ID: "lab"})
	page, err := d.Accounts(ctx, directory.Query{Limit: 1})
	if err != nil {
		return err
	}
	if len(page.Items) > 0 {
		log.Info("lab sample data not added; there are accounts already")
		return nil
	}
	numbers := 0
	for _, c := range labCustomers() {
		if _, err := d.PutAccount(ctx, c.account, directory.Write{}); err != nil {
			return fmt.Errorf("account %s: %w", c.account.Name, err)
		}
		var batch []domain.Number
		for i := range c.count {
			batch = append(batch, labNumber(c, c.first+i))
		}
		if _, err := d.PutNumbers(ctx, c.account.Name, batch, directory.Write{}); err != nil {
			return fmt.Errorf("numbers of %s: %w", c.account.Name, err)
		}
		numbers += len(batch)
	}
	for _, r := range labRequests() {
		if err := d.SaveRequest(ctx, r); err != nil {
			return fmt.Errorf("request for information of %s: %w", r.TenantID, err)
		}
	}
	for _, tenant := range []string{labFabrikam, labNorthwind} {
		if err := d.SaveCivicAddresses(ctx, tenant, labAddresses(tenant)); err != nil {
			return fmt.Errorf("civic addresses of %s: %w", tenant, err)
		}
		if err := d.SaveCapabilityPlans(ctx, tenant, labPlans()); err != nil {
			return fmt.Errorf("capability plans of %s: %w", tenant, err)
		}
	}
	log.Info("lab sample data added", "accounts", len(labCustomers()), "numbers", numbers)
	return nil
}

func labNumber(c labCustomer, key uint64) domain.Number {
	n := domain.Number{TelephoneNumber: domain.E164FromKey(key), AccountName: c.account.Name}
	s := domain.NumberService{Enabled: true}
	if c.service.Traits().TenantBound {
		s.AssignmentStatus = "unassigned"
		s.Teams = &domain.TeamsNumberConfig{Usage: "CallingUserAssignment",
			ChoosableCapabilities:    []string{"InboundCalling", "OutboundCalling"},
			AllowTenantAddressUpdate: true, DisplayedCountryCode: "GB"}
	}
	n.Services = map[domain.Service]domain.NumberService{c.service: s}
	if c.header && key%10 == 0 {
		n.HasConfiguration = true
		n.CustomSIPHeader = fmt.Sprintf("%s-%02d", c.account.Name, key%100)
	}
	return n
}

func labRequests() []domain.RequestForInformation {
	at := time.Date(2026, 1, 15, 9, 30, 0, 0, time.UTC)
	request := func(id, tenant, account, company string) domain.RequestForInformation {
		return domain.RequestForInformation{
			ID: id, TenantID: tenant, AccountName: account, OperatorID: "00000000-0000-4000-8000-00000000000a",
			Status: "active", ConsentedOn: at, LastModifiedOn: at, ConsentedCountries: []string{"GB"},
			Contacts: []domain.Contact{{FullName: "Alex Wilber", Email: "alex@" + company + ".example",
				TelephoneNumber: "+441632960099", CompanyName: company, CompanySize: "100-500"}},
		}
	}
	return []domain.RequestForInformation{
		request("7d3c2b1a-0000-4000-8000-000000000001", labFabrikam, "fabrikam", "fabrikam"),
		request("7d3c2b1a-0000-4000-8000-000000000002", labAdventure, "", "wideworld"),
	}
}

func labAddresses(tenant string) []domain.CivicAddress {
	address := func(n int, street, house, city, post string) domain.CivicAddress {
		id := fmt.Sprintf("%s%04d", tenant[:len(tenant)-4], 1000*n+int(tenant[len(tenant)-1]-'0'))
		place := fmt.Sprintf("%s%04d", tenant[:len(tenant)-4], 1000*n+100+int(tenant[len(tenant)-1]-'0'))
		return domain.CivicAddress{
			ID: id, Country: "GB", HouseNumber: house, StreetName: street, StreetSuffix: "Street", CityOrTown: city,
			PostalOrZipCode: post, Description: city + " office", CompanyName: "Lab", DefaultLocationID: place,
			ValidationStatus: "validated", TenantID: tenant,
			Locations: []domain.Location{{ID: place, CivicAddressID: id, Description: "Front desk", IsDefault: true}},
		}
	}
	return []domain.CivicAddress{address(1, "High", "1", "London", "EC1A 1AA"),
		address(2, "Market", "22", "Cambridge", "CB2 3PF")}
}

func labPlans() []domain.CapabilityPlan {
	return []domain.CapabilityPlan{
		{Name: "Users", OfferTypes: []string{"OperatorConnect"}, Usage: "CallingUserAssignment",
			MandatoryCapabilities: []string{"InboundCalling"},
			ChoosableCapabilities: []string{"OutboundCalling", "Geographic"}},
		{Name: "Applications", OfferTypes: []string{"OperatorConnect"}, Usage: "FirstPartyAppAssignment",
			MandatoryCapabilities: []string{"InboundCalling"},
			ChoosableCapabilities: []string{"OutboundCalling"}, SupportsTollFree: true},
	}
}
