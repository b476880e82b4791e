package filter

import (
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
)

// Record is what an expression is evaluated on: it returns a field's value by path, and false if the resource does not
// have the field. An empty optional string counts as absent, as it does in the contract's JSON.
type Record func(path string) (Value, bool)

// Match evaluates e on r. Match(nil, r) is true.
func Match(e Expr, r Record) bool {
	switch e := e.(type) {
	case nil:
		return true
	case *And:
		return Match(e.Left, r) && Match(e.Right, r)
	case *Or:
		return Match(e.Left, r) || Match(e.Right, r)
	case *Not:
		return !Match(e.X, r)
	case *Compare:
		v, ok := r(e.Field.Path)
		return (ok && v == e.Value) != e.Negated
	case *Prefix:
		v, ok := r(e.Field.Path)
		return ok && strings.HasPrefix(v.Str, e.Prefix)
	}
	panic("filter: unknown expression")
}

func optional(s string) (Value, bool) { return StringValue(s), s != "" }

// OfAccount gives access to an account's fields.
func OfAccount(a *domain.Account) Record {
	return func(path string) (Value, bool) {
		switch path {
		case "name":
			return StringValue(a.Name), true
		case "correlationId":
			return optional(a.CorrelationID)
		case "serviceProvisioningStatus":
			return optional(string(a.State.Status))
		case "serviceDetails/teamsTenantId":
			return optional(a.TeamsTenantID)
		}
		s, field, ok := serviceField(path)
		if !ok {
			return Value{}, false
		}
		d, ok := a.Services[s]
		if !ok {
			return Value{}, false
		}
		switch field {
		case "enabled":
			return BoolValue(d.Enabled), true
		case "syncEnabled":
			return BoolValue(d.SyncEnabled), s.Traits().SyncFlag
		case "subdomainStatus":
			return optional(string(d.SubdomainStatus))
		}
		if d.DirectRouting == nil {
			return Value{}, false
		}
		switch field {
		case "configuration/callScreening":
			return BoolValue(d.DirectRouting.CallScreening), true
		case "configuration/subdomain":
			return optional(d.DirectRouting.Subdomain)
		}
		return Value{}, false
	}
}

// OfNumber gives access to a number's fields.
func OfNumber(n *domain.Number) Record {
	return func(path string) (Value, bool) {
		switch path {
		case "telephoneNumber":
			return StringValue(string(n.TelephoneNumber)), true
		case "accountName":
			return StringValue(n.AccountName), true
		case "configuration/customSipHeader":
			return optional(n.CustomSIPHeader)
		case "serviceProvisioningStatus":
			return optional(string(n.State.Status))
		}
		s, field, ok := serviceField(path)
		if !ok {
			return Value{}, false
		}
		d, ok := n.Services[s]
		if !ok {
			return Value{}, false
		}
		switch field {
		case "enabled":
			return BoolValue(d.Enabled), true
		case "assignmentStatus":
			return optional(d.AssignmentStatus)
		}
		c := d.Teams
		if c == nil {
			return Value{}, false
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
			return BoolValue(c.AllowTenantAddressUpdate), true
		}
		return Value{}, false
	}
}

// OfRequest gives access to a request for information's fields.
func OfRequest(q *domain.RequestForInformation) Record {
	return func(path string) (Value, bool) {
		switch path {
		case "id":
			return optional(q.ID)
		case "tenantId":
			return StringValue(q.TenantID), true
		case "accountName":
			return optional(q.AccountName)
		case "productContext":
			return StringValue("teams"), true // the contract knows no other
		case "operatorId":
			return optional(q.OperatorID)
		case "status":
			return optional(q.Status)
		case "serviceProvisioningStatus":
			return optional(string(q.State.Status))
		}
		if q.Relationship == nil {
			return Value{}, false
		}
		switch path {
		case "customerRelationship/status":
			return optional(q.Relationship.Status)
		case "customerRelationship/comment":
			return optional(q.Relationship.Comment)
		}
		return Value{}, false
	}
}

// OfCivicAddress gives access to a civic address' fields.
func OfCivicAddress(a *domain.CivicAddress) Record {
	return func(path string) (Value, bool) {
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
		return Value{}, false
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
	s, ok := domain.ServiceByName(name)
	return s, field, ok
}
