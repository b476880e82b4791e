package provapi

import (
	"cmp"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

// The contract's objects, parsed from bodies and rendered. Parsing checks only the shape (members, types, what is
// required); the directory checks the values.

// reader parses a body into domain types.
type reader struct {
	strictjson.Reader
	services domain.Services // those that can be in a body
}

var stateFields = []string{"serviceProvisioningStatus", "serviceProvisioningErrors"}

func (r *reader) account(n *strictjson.Node) domain.Account {
	o := r.Object(n, "")
	a := domain.Account{Name: o.Str("name", true), CorrelationID: o.Str("correlationId", false)}
	o.Ignore(stateFields...)
	if d := o.Child("serviceDetails", false); d != nil {
		a.HasServiceDetails = true
		a.TeamsTenantID = r.filled(d, "teamsTenantId", directory.CodeInvalidTenantID)
		a.Services = map[domain.Service]domain.AccountService{}
		for _, s := range r.services {
			if x := d.Child(s.String(), false); x != nil {
				a.Services[s] = r.accountService(s.Traits(), x)
			}
		}
		d.Done()
	}
	o.Done()
	return a
}

func (r *reader) accountService(t *domain.Traits, o *strictjson.Object) domain.AccountService {
	s := domain.AccountService{Enabled: o.Bool("enabled", true)}
	if t.SyncFlag {
		s.SyncEnabled = o.Bool("syncEnabled", true)
	}
	o.Ignore("numberCount")
	if t.Labelled {
		o.Ignore("subdomainStatus")
		if c := o.Child("configuration", false); c != nil {
			d := &domain.DirectRoutingConfig{CallScreening: c.Bool("callScreening", true)}
			d.Subdomain = c.Str("subdomain", true)
			if t := c.Child("subdomainTokens", true); t != nil {
				d.Region1Token, d.Region2Token = t.Str("region1Token", true), t.Str("region2Token", true)
				t.Done()
			}
			c.Done()
			s.DirectRouting = d
		}
	}
	o.Done()
	return s
}

func (r *reader) number(n *strictjson.Node, path string) domain.Number {
	o := r.Object(n, path)
	// Not parsed here: the directory refuses a bad number with its own code.
	num := domain.Number{TelephoneNumber: domain.E164(o.Str("telephoneNumber", true)),
		AccountName: o.Str("accountName", true)}
	o.Ignore(stateFields...)
	if d := o.Child("serviceDetails", true); d != nil {
		num.Services = map[domain.Service]domain.NumberService{}
		for _, s := range r.services {
			if x := d.Child(s.String(), false); x != nil {
				num.Services[s] = r.numberService(s.Traits(), x)
			}
		}
		d.Done()
	}
	if c := o.Child("configuration", false); c != nil {
		num.HasConfiguration = true
		num.CustomSIPHeader = r.filled(c, "customSipHeader", directory.CodeInvalidCustomSIPHeader)
		c.Done()
	}
	o.Done()
	return num
}

func (r *reader) numberService(t *domain.Traits, o *strictjson.Object) domain.NumberService {
	s := domain.NumberService{Enabled: o.Bool("enabled", true)}
	if t.TenantBound {
		s.AssignmentStatus = r.filled(o, "assignmentStatus", directory.CodeInvalidAssignmentStatus)
		if c := o.Child("configuration", false); c != nil {
			s.Teams = &domain.TeamsNumberConfig{
				Usage: c.Str("usage", true), ChoosableCapabilities: c.Strings("choosableCapabilities", true),
				AdditionalUsages: c.Strings("additionalUsages", false), CivicAddressID: c.Str("civicAddressId", false),
				LocationID:               c.Str("locationId", false),
				AllowTenantAddressUpdate: c.Bool("allowTenantAddressUpdate", false),
				DisplayedCountryCode:     c.Str("displayedCountryCode", false),
			}
			c.Ignore("acquiredCapabilities", "availableCapabilities")
			c.Done()
		}
	}
	o.Done()
	return s
}

// batch parses {"numbers": […]} and passes each item to read. Items of the wrong shape are refused in c.carried: the
// directory rejects the batch with one detail for each of them and for each item that breaks its rules.
func batch[T any](a *API, c *call, read func(r *reader, n *strictjson.Node, path string) T) ([]T, error) {
	var r reader
	o := r.Object(c.body, "")
	list := o.Take("numbers", true)
	o.Done()
	if list == nil || !r.Is(list, strictjson.KindArray, "numbers") || len(r.Problems) > 0 {
		return nil, r.Err()
	}
	if err := directory.CheckBatch(len(list.Items)); err != nil {
		return nil, err
	}
	items := make([]T, 0, len(list.Items))
	c.carried.Refused = make(map[int]fault.Error)
	for i, item := range list.Items {
		r := reader{services: a.services}
		items = append(items, read(&r, item, strictjson.Index("numbers", i)))
		if len(r.Problems) > 0 {
			c.carried.Refused[i] = r.Problems[0]
		}
	}
	return items, nil
}

// identifier parses {"telephoneNumber": …}.
func identifier(r *reader, n *strictjson.Node, path string) domain.E164 {
	o := r.Object(n, path)
	s := o.Str("telephoneNumber", true)
	o.Done()
	return domain.E164(s)
}

// relationship parses a merge patch of a request for information (RFC 7396): null removes a member. Everything but
// customerRelationship is read-only.
func (r *reader) relationship(n *strictjson.Node) directory.RelationshipPatch {
	var p directory.RelationshipPatch
	o := r.Object(n, "")
	o.Ignore(stateFields...)
	o.Ignore("id", "tenantId", "accountName", "productContext", "operatorId", "status", "consentedOn", "lastModifiedOn",
		"consentedCountries", "contacts")
	v := o.Take("customerRelationship", false)
	o.Done()
	switch {
	case v == nil:
	case v.Kind == strictjson.KindNull:
		p.Clear = true
	default:
		c := r.Object(v, "customerRelationship")
		p.Status, p.Comment = r.patched(c, "status"), r.patched(c, "comment")
		c.Ignore("lastModifiedOn")
		c.Done()
	}
	return p
}

// filled returns a string member that may be absent but not empty: the domain represents an absent one as "".
func (r *reader) filled(o *strictjson.Object, name, code string) string {
	v := o.Take(name, false)
	at := strictjson.Join(o.Path, name)
	if v == nil || !r.Is(v, strictjson.KindString, at) {
		return ""
	}
	if v.Text == "" {
		r.Add(invalid(code, at, "%s is empty; leave the member out instead", name))
	}
	return v.Text
}

// patched returns nil for an absent member and a pointer to "" for null.
func (r *reader) patched(o *strictjson.Object, name string) *string {
	v := o.Take(name, false)
	switch {
	case v == nil:
		return nil
	case v.Kind == strictjson.KindNull:
		return new(string)
	case !r.Is(v, strictjson.KindString, strictjson.Join(o.Path, name)):
		return nil
	}
	return &v.Text
}

// Rendering.

type stateJSON struct {
	Status domain.SyncStatus     `json:"serviceProvisioningStatus"`
	Errors []domain.ServiceError `json:"serviceProvisioningErrors"`
}

func stateOf(s domain.ProvisioningState) stateJSON {
	return stateJSON{s.Status, notNil(s.Errors)}
}

type accountJSON struct {
	Name           string         `json:"name"`
	CorrelationID  string         `json:"correlationId,omitempty"`
	ServiceDetails map[string]any `json:"serviceDetails,omitzero"`
	stateJSON
}

type accountServiceJSON struct {
	Enabled         bool                   `json:"enabled"`
	SyncEnabled     *bool                  `json:"syncEnabled,omitempty"`
	NumberCount     int64                  `json:"numberCount"`
	Configuration   *directRoutingJSON     `json:"configuration,omitempty"`
	SubdomainStatus domain.SubdomainStatus `json:"subdomainStatus,omitempty"`
}

type directRoutingJSON struct {
	CallScreening   bool              `json:"callScreening"`
	Subdomain       string            `json:"subdomain"`
	SubdomainTokens map[string]string `json:"subdomainTokens"`
}

func renderAccount(a *domain.Account) any {
	j := accountJSON{Name: a.Name, CorrelationID: a.CorrelationID, stateJSON: stateOf(a.State)}
	if !a.HasServiceDetails {
		return j
	}
	j.ServiceDetails = map[string]any{}
	if a.TeamsTenantID != "" {
		j.ServiceDetails["teamsTenantId"] = a.TeamsTenantID
	}
	for s, d := range a.Services {
		t := s.Traits()
		if !t.InContract {
			continue
		}
		x := accountServiceJSON{Enabled: d.Enabled, NumberCount: d.NumberCount}
		if t.SyncFlag {
			x.SyncEnabled = &d.SyncEnabled
		}
		if t.Labelled {
			x.SubdomainStatus = cmp.Or(d.SubdomainStatus, domain.SubdomainNotProvisioned) // required in responses
		}
		if c := d.DirectRouting; c != nil {
			x.Configuration = &directRoutingJSON{c.CallScreening, c.Subdomain,
				map[string]string{"region1Token": c.Region1Token, "region2Token": c.Region2Token}}
		}
		j.ServiceDetails[t.Name] = x
	}
	return j
}

type numberJSON struct {
	TelephoneNumber domain.E164        `json:"telephoneNumber"`
	AccountName     string             `json:"accountName"`
	ServiceDetails  map[string]any     `json:"serviceDetails"`
	Configuration   *configurationJSON `json:"configuration,omitempty"`
	stateJSON
}

type configurationJSON struct {
	CustomSIPHeader string `json:"customSipHeader,omitempty"`
}

type numberServiceJSON struct {
	Enabled          bool       `json:"enabled"`
	AssignmentStatus string     `json:"assignmentStatus,omitempty"`
	Configuration    *teamsJSON `json:"configuration,omitempty"`
}

// teamsJSON is domain.TeamsNumberConfig without the members that have their default, as in the published examples.
type teamsJSON struct {
	Usage                    string   `json:"usage"`
	ChoosableCapabilities    []string `json:"choosableCapabilities"`
	AcquiredCapabilities     []string `json:"acquiredCapabilities,omitempty"`
	AvailableCapabilities    []string `json:"availableCapabilities,omitempty"`
	AdditionalUsages         []string `json:"additionalUsages,omitempty"`
	CivicAddressID           string   `json:"civicAddressId,omitempty"`
	LocationID               string   `json:"locationId,omitempty"`
	AllowTenantAddressUpdate bool     `json:"allowTenantAddressUpdate,omitempty"`
	DisplayedCountryCode     string   `json:"displayedCountryCode,omitempty"`
}

func renderNumber(n *domain.Number) any {
	j := numberJSON{TelephoneNumber: n.TelephoneNumber, AccountName: n.AccountName, ServiceDetails: map[string]any{},
		stateJSON: stateOf(n.State)}
	for s, d := range n.Services {
		if !s.Traits().InContract {
			continue
		}
		j.ServiceDetails[s.String()] = numberServiceJSON{d.Enabled, d.AssignmentStatus, (*teamsJSON)(d.Teams)}
	}
	if n.HasConfiguration || n.CustomSIPHeader != "" {
		j.Configuration = &configurationJSON{n.CustomSIPHeader}
	}
	return j
}

func notNil[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

type requestJSON struct {
	ID                   string            `json:"id,omitempty"`
	TenantID             string            `json:"tenantId"`
	AccountName          string            `json:"accountName,omitempty"`
	ProductContext       string            `json:"productContext"`
	OperatorID           string            `json:"operatorId,omitempty"`
	Status               string            `json:"status,omitempty"`
	ConsentedOn          string            `json:"consentedOn,omitempty"`
	LastModifiedOn       string            `json:"lastModifiedOn,omitempty"`
	ConsentedCountries   []string          `json:"consentedCountries,omitempty"`
	Contacts             []domain.Contact  `json:"contacts,omitempty"`
	CustomerRelationship *relationshipJSON `json:"customerRelationship,omitempty"`
	stateJSON
}

type relationshipJSON struct {
	Status         string `json:"status,omitempty"`
	LastModifiedOn string `json:"lastModifiedOn,omitempty"`
	Comment        string `json:"comment,omitempty"`
}

// when formats a time as in the published examples.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func renderRequest(q *domain.RequestForInformation) any {
	j := requestJSON{ID: q.ID, TenantID: q.TenantID, AccountName: q.AccountName, ProductContext: "teams",
		OperatorID: q.OperatorID, Status: q.Status,
		ConsentedOn: when(q.ConsentedOn), LastModifiedOn: when(q.LastModifiedOn),
		ConsentedCountries: q.ConsentedCountries, Contacts: q.Contacts,
		stateJSON: stateOf(q.State)}
	if c := q.Relationship; c != nil {
		j.CustomerRelationship = &relationshipJSON{c.Status, when(c.LastModifiedOn), c.Comment}
	}
	return j
}

func renderAddress(a *directory.CivicAddress) any { return a.CivicAddress }
