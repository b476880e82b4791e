package provapi

import (
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

// The contract's objects: read from bodies, and rendered. Reading checks shape only (members, types, what is required);
// what values are good is the directory's to say.

var stateFields = []string{"serviceProvisioningStatus", "serviceProvisioningErrors"}

func (r *reader) account(n *node) domain.Account {
	o := r.object(n, "")
	a := domain.Account{Name: o.str("name", true), CorrelationID: o.str("correlationId", false)}
	o.readOnly(stateFields...)
	if d := o.child("serviceDetails", false); d != nil {
		a.HasServiceDetails = true
		a.TeamsTenantID = d.str("teamsTenantId", false)
		a.Services = map[domain.Service]domain.AccountService{}
		for _, s := range contractServices {
			if x := d.child(s.String(), false); x != nil {
				a.Services[s] = r.accountService(s.Traits(), x)
			}
		}
		d.done()
	}
	o.done()
	return a
}

func (r *reader) accountService(t *domain.Traits, o *object) domain.AccountService {
	s := domain.AccountService{Enabled: o.boolean("enabled", true)}
	if t.SyncFlag {
		s.SyncEnabled = o.boolean("syncEnabled", true)
	}
	o.readOnly("numberCount")
	if t.Labelled {
		o.readOnly("subdomainStatus")
		if c := o.child("configuration", false); c != nil {
			d := &domain.DirectRoutingConfig{CallScreening: c.boolean("callScreening", true), Subdomain: c.str("subdomain", true)}
			if t := c.child("subdomainTokens", true); t != nil {
				d.Region1Token, d.Region2Token = t.str("region1Token", true), t.str("region2Token", true)
				t.done()
			}
			c.done()
			s.DirectRouting = d
		}
	}
	o.done()
	return s
}

// contractServices are the services of the contract, in the order in which examples and documents have them.
var contractServices = func() (l []domain.Service) {
	for _, s := range domain.Services() {
		if s.Traits().InContract {
			l = append(l, s)
		}
	}
	return l
}()

func (r *reader) number(n *node, path string) domain.Number {
	o := r.object(n, path)
	// Not parsed here: a bad number is the directory's to refuse, with its own code.
	num := domain.Number{TelephoneNumber: domain.E164(o.str("telephoneNumber", true)), AccountName: o.str("accountName", true)}
	o.readOnly(stateFields...)
	if d := o.child("serviceDetails", true); d != nil {
		num.Services = map[domain.Service]domain.NumberService{}
		for _, s := range contractServices {
			if x := d.child(s.String(), false); x != nil {
				num.Services[s] = r.numberService(s.Traits(), x)
			}
		}
		d.done()
	}
	if c := o.child("configuration", false); c != nil {
		num.HasConfiguration = true
		if v := c.take("customSipHeader", false); v != nil && r.is(v, kindString, join(c.path, "customSipHeader")) {
			num.CustomSIPHeader = v.text
			if v.text == "" {
				// minLength 1: to have none the member is left out. The domain cannot tell "" from none, so it is said here.
				r.add(invalid(directory.CodeInvalidCustomSIPHeader, join(c.path, "customSipHeader"), "customSipHeader is empty; leave it out to have none"))
			}
		}
		c.done()
	}
	o.done()
	return num
}

func (r *reader) numberService(t *domain.Traits, o *object) domain.NumberService {
	s := domain.NumberService{Enabled: o.boolean("enabled", true)}
	if t.TenantBound {
		s.AssignmentStatus = o.str("assignmentStatus", false)
		if c := o.child("configuration", false); c != nil {
			s.Teams = &domain.TeamsNumberConfig{
				Usage: c.str("usage", true), ChoosableCapabilities: c.strings("choosableCapabilities", true),
				AdditionalUsages: c.strings("additionalUsages", false), CivicAddressID: c.str("civicAddressId", false),
				LocationID: c.str("locationId", false), AllowTenantAddressUpdate: c.boolean("allowTenantAddressUpdate", false),
				DisplayedCountryCode: c.str("displayedCountryCode", false),
			}
			c.readOnly("acquiredCapabilities", "availableCapabilities")
			c.done()
		}
	}
	o.done()
	return s
}

// batch reads {"numbers": […]} and hands each item to read. Items with a wrong shape are refused, by their place: the directory
// rejects the batch with them and with those that break its rules, one detail per bad item.
func batch[T any](n *node, read func(r *reader, n *node, path string) T) (items []T, refused map[int]fault.Error, err error) {
	var r reader
	o := r.object(n, "")
	list := o.take("numbers", true)
	o.done()
	if list == nil || !r.is(list, kindArray, "numbers") || len(r.problems) > 0 {
		return nil, nil, r.err()
	}
	if len(list.items) > directory.MaxBatch {
		return nil, nil, invalid(directory.CodeTooManyItems, "numbers", "the batch has %d numbers; at most %d go into one request", len(list.items), directory.MaxBatch)
	}
	items = make([]T, 0, len(list.items))
	for i, item := range list.items {
		var r reader
		items = append(items, read(&r, item, index("numbers", i)))
		if len(r.problems) > 0 {
			if refused == nil {
				refused = make(map[int]fault.Error)
			}
			refused[i] = r.problems[0]
		}
	}
	return items, refused, nil
}

// identifier reads {"telephoneNumber": …}.
func identifier(r *reader, n *node, path string) domain.E164 {
	o := r.object(n, path)
	s := o.str("telephoneNumber", true)
	o.done()
	return domain.E164(s)
}

// relationship reads a merge patch of a request for information (RFC 7396): null removes. Everything but
// customerRelationship is read-only.
func (r *reader) relationship(n *node) directory.RelationshipPatch {
	var p directory.RelationshipPatch
	o := r.object(n, "")
	o.readOnly(stateFields...)
	o.readOnly("id", "tenantId", "accountName", "productContext", "operatorId", "status", "consentedOn", "lastModifiedOn", "consentedCountries", "contacts")
	v := o.take("customerRelationship", false)
	o.done()
	switch {
	case v == nil:
	case v.kind == kindNull:
		p.Clear = true
	default:
		c := r.object(v, "customerRelationship")
		p.Status, p.Comment = c.patched("status"), c.patched("comment")
		c.readOnly("lastModifiedOn")
		c.done()
	}
	return p
}

// patched returns nil for a member that is not there, a pointer to "" for null.
func (o *object) patched(name string) *string {
	v := o.take(name, false)
	switch {
	case v == nil:
		return nil
	case v.kind == kindNull:
		return new(string)
	case !o.r.is(v, kindString, join(o.path, name)):
		return nil
	}
	return &v.text
}

// What follows renders.

type stateJSON struct {
	Status domain.SyncStatus `json:"serviceProvisioningStatus"`
	Errors []errorJSON       `json:"serviceProvisioningErrors"`
}

func stateOf(s domain.ProvisioningState) stateJSON {
	return stateJSON{s.Status, serviceErrors(s.Errors, []errorJSON{})}
}

func serviceErrors(in []domain.ServiceError, out []errorJSON) []errorJSON {
	for _, e := range in {
		out = append(out, errorJSON{e.Code, e.Message, e.Target, serviceErrors(e.Details, nil)})
	}
	return out
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
	CallScreening   bool       `json:"callScreening"`
	Subdomain       string     `json:"subdomain"`
	SubdomainTokens tokensJSON `json:"subdomainTokens"`
}

type tokensJSON struct {
	Region1 string `json:"region1Token"`
	Region2 string `json:"region2Token"`
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
	for _, s := range contractServices {
		d, ok := a.Services[s]
		if !ok {
			continue
		}
		t := s.Traits()
		x := accountServiceJSON{Enabled: d.Enabled, NumberCount: d.NumberCount}
		if t.SyncFlag {
			x.SyncEnabled = &d.SyncEnabled
		}
		if t.Labelled {
			x.SubdomainStatus = d.SubdomainStatus
			if x.SubdomainStatus == "" {
				x.SubdomainStatus = domain.SubdomainNotProvisioned // required in answers
			}
		}
		if c := d.DirectRouting; c != nil {
			x.Configuration = &directRoutingJSON{c.CallScreening, c.Subdomain, tokensJSON{c.Region1Token, c.Region2Token}}
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

// teamsJSON leaves out what has its default, as the published examples do.
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
	j := numberJSON{TelephoneNumber: n.TelephoneNumber, AccountName: n.AccountName, ServiceDetails: map[string]any{}, stateJSON: stateOf(n.State)}
	for _, s := range contractServices {
		d, ok := n.Services[s]
		if !ok {
			continue
		}
		x := numberServiceJSON{Enabled: d.Enabled, AssignmentStatus: d.AssignmentStatus}
		if c := d.Teams; c != nil {
			x.Configuration = &teamsJSON{c.Usage, notNil(c.ChoosableCapabilities), c.AcquiredCapabilities, c.AvailableCapabilities, c.AdditionalUsages,
				c.CivicAddressID, c.LocationID, c.AllowTenantAddressUpdate, c.DisplayedCountryCode}
		}
		j.ServiceDetails[s.String()] = x
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

// when writes a time as the published examples have it.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func renderRequest(q *domain.RequestForInformation) any {
	j := requestJSON{ID: q.ID, TenantID: q.TenantID, AccountName: q.AccountName, ProductContext: "teams", OperatorID: q.OperatorID, Status: q.Status,
		ConsentedOn: when(q.ConsentedOn), LastModifiedOn: when(q.LastModifiedOn), ConsentedCountries: q.ConsentedCountries, Contacts: q.Contacts,
		stateJSON: stateOf(q.State)}
	if c := q.Relationship; c != nil {
		j.CustomerRelationship = &relationshipJSON{c.Status, when(c.LastModifiedOn), c.Comment}
	}
	return j
}

func renderAddress(a *directory.CivicAddress) any { return a.CivicAddress }
