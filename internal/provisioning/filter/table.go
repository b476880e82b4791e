package filter

import (
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
)

// Table is the list of filterable fields of one resource. Tables are read-only.
type Table struct {
	Resource string            // plural name, for messages, e.g. "accounts"
	Fields   map[string]*Field // by path
}

// The tables of two of the four resources that can be listed; Accounts and Numbers return those of the others. Fields
// that are lists or numbers cannot be filtered on.
var (
	Requests = newTable("requests for information", "id tenantId/lower accountName productContext operatorId "+
		"status customerRelationship/status customerRelationship/comment serviceProvisioningStatus")
	CivicAddresses = newTable("civic addresses", "id country houseNumber houseNumberSuffix preDirectional streetName "+
		"streetSuffix postDirectional stateOrProvince countyOrDistrict cityOrTown cityOrTownAlias postalOrZipCode "+
		"description companyName companyId defaultLocationId validationStatus tenantId partnerId latitude longitude")
)

func newTable(resource string, paths string) *Table {
	t := &Table{Resource: resource, Fields: map[string]*Field{}}
	t.add("", paths)
	return t
}

// add parses a list of paths below another one; "/bool" and "/lower" at a path's end are its attributes.
func (t *Table) add(below, paths string) {
	for path := range strings.FieldsSeq(paths) {
		f := &Field{Type: String}
		if p, ok := strings.CutSuffix(path, "/bool"); ok {
			path, f.Type = p, Bool
		}
		if p, ok := strings.CutSuffix(path, "/lower"); ok {
			path, f.Lower = p, true
		}
		f.Path = below + path
		t.Fields[f.Path] = f
	}
}

// Accounts returns the table of accounts, with the fields of those of the services that are in the contract.
func Accounts(services domain.Services) *Table {
	t := newTable("accounts", "name correlationId serviceDetails/teamsTenantId serviceProvisioningStatus")
	for _, s := range services.InContract() {
		at := "serviceDetails/" + s.String() + "/"
		t.add(at, "enabled/bool")
		if s.Traits().SyncFlag {
			t.add(at, "syncEnabled/bool")
		}
		if s.Traits().Labelled {
			t.add(at, "subdomainStatus configuration/callScreening/bool configuration/subdomain")
		}
	}
	return t
}

// Numbers returns the table of numbers, with the fields of those of the services that are in the contract.
func Numbers(services domain.Services) *Table {
	t := newTable("numbers", "telephoneNumber accountName configuration/customSipHeader serviceProvisioningStatus")
	for _, s := range services.InContract() {
		at := "serviceDetails/" + s.String() + "/"
		t.add(at, "enabled/bool")
		if s.Traits().TenantBound {
			t.add(at, "assignmentStatus configuration/usage configuration/civicAddressId configuration/locationId "+
				"configuration/displayedCountryCode configuration/allowTenantAddressUpdate/bool")
		}
	}
	return t
}
