// Package filters evaluates and prints filter expressions. It is the oracle against which the SQL of filters is tested.
//
// It is imported by tests only.
package filters

import (
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
	"github.com/tandemgw/tandem/internal/services"
)

// Record is what an expression is evaluated on: it returns a field's value by path, and false if the resource does not
// have the field. An empty optional string counts as absent, as it does in the contract's JSON.
type Record func(path string) (filter.Value, bool)

// Match evaluates e on r. Match(nil, r) is true.
func Match(e filter.Expr, r Record) bool {
	switch e := e.(type) {
	case nil:
		return true
	case *filter.And:
		return Match(e.Left, r) && Match(e.Right, r)
	case *filter.Or:
		return Match(e.Left, r) || Match(e.Right, r)
	case *filter.Not:
		return !Match(e.X, r)
	case *filter.Compare:
		v, ok := r(e.Field.Path)
		return (ok && v == e.Value) != e.Negated
	case *filter.Prefix:
		v, ok := r(e.Field.Path)
		return ok && strings.HasPrefix(v.Str, e.Prefix)
	}
	panic("filters: unknown expression")
}

func optional(s string) (filter.Value, bool) { return filter.StringValue(s), s != "" }

// OfAccount gives access to an account's fields.
func OfAccount(a *domain.Account) Record {
	return func(path string) (filter.Value, bool) {
		switch path {
		case "name":
			return filter.StringValue(a.Name), true
		case "correlationId":
			return optional(a.CorrelationID)
		case "serviceProvisioningStatus":
			return optional(string(a.State.Status))
		case "serviceDetails/teamsTenantId":
			return optional(a.TeamsTenantID)
		}
		s, field, ok := serviceField(path)
		if !ok {
			return filter.Value{}, false
		}
		d, ok := a.Services[s]
		if !ok {
			return filter.Value{}, false
		}
		switch field {
		case "enabled":
			return filter.BoolValue(d.Enabled), true
		case "syncEnabled":
			return filter.BoolValue(d.SyncEnabled), s.Traits().SyncFlag
		case "subdomainStatus":
			return optional(d.SubdomainStatus.String())
		}
		if d.DirectRouting == nil {
			return filter.Value{}, false
		}
		switch field {
		case "configuration/callScreening":
			return filter.BoolValue(d.DirectRouting.CallScreening), true
		case "configuration/subdomain":
			return optional(d.DirectRouting.Subdomain)
		}
		return filter.Value{}, false
	}
}

// OfNumber gives access to a number's fields.
func OfNumber(n *domain.Number) Record {
	return func(path string) (filter.Value, bool) {
		switch path {
		case "telephoneNumber":
			return filter.StringValue(string(n.TelephoneNumber)), true
		case "accountName":
			return filter.StringValue(n.AccountName), true
		case "configuration/customSipHeader":
			return optional(n.CustomSIPHeader)
		case "serviceProvisioningStatus":
			return optional(string(n.State.Status))
		}
		s, field, ok := serviceField(path)
		if !ok {
			return filter.Value{}, false
		}
		d, ok := n.Services[s]
		if !ok {
			return filter.Value{}, false
		}
		switch field {
		case "enabled":
			return filter.BoolValue(d.Enabled), true
		case "assignmentStatus":
			return optional(d.AssignmentStatus)
		}
		c := d.Teams
		if c == nil {
			return filter.Value{}, false
		}
		switch field {
		case "configuration/usage":
			return optional(c.Usage)
		case "configuration/civicAddressId":
			return optional(c.CivicAddressID)
		case "configuration/locationId":
			return optional(c.LocationID)
		case "configuration/displayedCountryCode":
			return optional(c.DisplayedCountryCode)
		case "configuration/allowTenantAddressUpdate":
			return filter.BoolValue(c.AllowTenantAddressUpdate), true
		}
		return filter.Value{}, false
	}
}

// OfRequest gives access to a request for information's fields.
func OfRequest(q *domain.RequestForInformation) Record {
	return func(path string) (filter.Value, bool) {
		switch path {
		case "id":
			return optional(q.ID)
		case "tenantId":
			return filter.StringValue(q.TenantID), true
		case "accountName":
			return optional(q.AccountName)
		case "productContext":
			return filter.StringValue("teams"), true // the contract has no other
		case "operatorId":
			return optional(q.OperatorID)
		case "status":
			return optional(q.Status)
		case "serviceProvisioningStatus":
			return optional(string(q.State.Status))
		}
		if q.Relationship == nil {
			return filter.Value{}, false
		}
		switch path {
		case "customerRelationship/status":
			return optional(q.Relationship.Status)
		case "customerRelationship/comment":
			return optional(q.Relationship.Comment)
		}
		return filter.Value{}, false
	}
}

// OfCivicAddress gives access to a civic address' fields.
func OfCivicAddress(a *domain.CivicAddress) Record {
	return func(path string) (filter.Value, bool) {
		switch path {
		case "id":
			return optional(a.ID)
		case "country":
			return optional(a.Country)
		case "houseNumber":
			return optional(a.HouseNumber)
		case "houseNumberSuffix":
			return optional(a.HouseNumberSuffix)
		case "preDirectional":
			return optional(a.PreDirectional)
		case "streetName":
			return optional(a.StreetName)
		case "streetSuffix":
			return optional(a.StreetSuffix)
		case "postDirectional":
			return optional(a.PostDirectional)
		case "stateOrProvince":
			return optional(a.StateOrProvince)
		case "countyOrDistrict":
			return optional(a.CountyOrDistrict)
		case "cityOrTown":
			return optional(a.CityOrTown)
		case "cityOrTownAlias":
			return optional(a.CityOrTownAlias)
		case "postalOrZipCode":
			return optional(a.PostalOrZipCode)
		case "description":
			return optional(a.Description)
		case "companyName":
			return optional(a.CompanyName)
		case "companyId":
			return optional(a.CompanyID)
		case "defaultLocationId":
			return optional(a.DefaultLocationID)
		case "validationStatus":
			return optional(a.ValidationStatus)
		case "tenantId":
			return optional(a.TenantID)
		case "partnerId":
			return optional(a.PartnerID)
		case "latitude":
			return optional(a.Latitude)
		case "longitude":
			return optional(a.Longitude)
		}
		return filter.Value{}, false
	}
}

// serviceField splits "serviceDetails/<service>/<field>".
func serviceField(path string) (domain.Service, string, bool) {
	rest, ok := strings.CutPrefix(path, "serviceDetails/")
	if !ok {
		return domain.NoService, "", false
	}
	name, field, ok := strings.Cut(rest, "/")
	if !ok {
		return domain.NoService, "", false
	}
	s, ok := services.All().Services().ByName(name)
	return s, field, ok
}
