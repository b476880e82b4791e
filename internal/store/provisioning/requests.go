package provisioning

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

// linkedAccount selects the account that has a request's tenant now; of several, the first by name.
const linkedAccount = "COALESCE((SELECT MIN(a.name) FROM accounts a WHERE a.tenant_key = requests.tenant_id), '')"

const requestColumns = "tenant_id, " + linkedAccount + ", details, status, errors, version"

// requestDetails is a stored request for information, in the contract's spelling.
type requestDetails struct {
	ID                 string                       `json:"id,omitempty"`
	OperatorID         string                       `json:"operatorId,omitempty"`
	Status             string                       `json:"status,omitempty"`
	ConsentedOn        time.Time                    `json:"consentedOn"`
	LastModifiedOn     time.Time                    `json:"lastModifiedOn"`
	ConsentedCountries []string                     `json:"consentedCountries,omitempty"`
	Contacts           []domain.Contact             `json:"contacts,omitempty"`
	Relationship       *domain.CustomerRelationship `json:"customerRelationship,omitempty"`
}

func scanRequest(rows *sql.Rows) (r domain.RequestForInformation, err error) {
	var details, errs string
	if err := rows.Scan(&r.TenantID, &r.AccountName, &details, &r.State.Status, &errs, &r.Version); err != nil {
		return r, err
	}
	var d requestDetails
	if err := decode(details, &d); err != nil {
		return r, fmt.Errorf("request for information: %w", err)
	}
	r.ID, r.OperatorID, r.Status = d.ID, d.OperatorID, d.Status
	r.ConsentedOn, r.LastModifiedOn = d.ConsentedOn, d.LastModifiedOn
	r.ConsentedCountries, r.Contacts, r.Relationship = d.ConsentedCountries, d.Contacts, d.Relationship
	err = decodeSome(errs, &r.State.Errors)
	return r, err
}

// Request implements directory.Reader.
func (t *transaction) Request(ctx context.Context, tenantID string) (*domain.RequestForInformation, error) {
	lock := t.tx.ForUpdate()
	if lock != "" {
		lock += " OF requests"
	}
	return only(list(ctx, t.tx, "read request for information", scanRequest,
		"SELECT "+requestColumns+" FROM requests WHERE tenant_id = $1"+lock, tenantID))
}

// Requests implements directory.Reader.
func (t *transaction) Requests(ctx context.Context, q directory.Query) ([]domain.RequestForInformation, error) {
	c := compiler{s: t.s, fields: requestFields}
	where := c.where(q.Filter, "tenant_id > "+c.param(q.After))
	query := "SELECT " + requestColumns + " FROM requests" + where + " ORDER BY tenant_id" + c.limit(q)
	return list(ctx, t.tx, "list requests for information", scanRequest, query, c.args...)
}

// CountRequests implements directory.Reader.
func (t *transaction) CountRequests(ctx context.Context, q directory.Query) (int64, error) {
	c := compiler{s: t.s, fields: requestFields}
	return t.count(ctx, "SELECT COUNT(*) FROM requests"+c.where(q.Filter), c.args)
}

// PutRequest implements directory.Tx.
func (t *transaction) PutRequest(ctx context.Context, r *domain.RequestForInformation) error {
	details, err := encode(requestDetails{r.ID, r.OperatorID, r.Status, r.ConsentedOn, r.LastModifiedOn,
		r.ConsentedCountries, r.Contacts, r.Relationship})
	if err != nil {
		return err
	}
	errs, err := encodeSome(r.State.Errors, len(r.State.Errors))
	if err != nil {
		return err
	}
	_, err = t.tx.Exec(ctx,
		`INSERT INTO requests (tenant_id, details, status, errors, version) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant_id) DO UPDATE SET details = excluded.details, status = excluded.status,
		errors = excluded.errors, version = excluded.version`,
		r.TenantID, details, string(r.State.Status), errs, r.Version)
	return wrap(err, "store request for information")
}

func scanCivic(rows *sql.Rows) (directory.CivicAddress, error) {
	var a directory.CivicAddress
	var details string
	var modified int64
	err := rows.Scan(&details, &a.Version, &modified)
	if err == nil {
		err = decode(details, &a.CivicAddress)
	}
	a.Modified = db.Time(modified)
	return a, err
}

// CivicAddress implements directory.Reader.
func (t *transaction) CivicAddress(ctx context.Context, tenantID, id string) (*directory.CivicAddress, error) {
	return only(list(ctx, t.tx, "read civic address", scanCivic,
		"SELECT details, version, modified FROM civic_addresses WHERE tenant_id = $1 AND id = $2", tenantID, id))
}

// CivicAddresses implements directory.Reader.
func (t *transaction) CivicAddresses(ctx context.Context, tenantID string,
	q directory.Query) ([]directory.CivicAddress, error) {
	c := compiler{s: t.s, fields: civicFields}
	where := c.where(q.Filter, "tenant_id = "+c.param(tenantID), "id > "+c.param(q.After))
	query := "SELECT details, version, modified FROM civic_addresses" + where + " ORDER BY id" + c.limit(q)
	return list(ctx, t.tx, "list civic addresses", scanCivic, query, c.args...)
}

// CountCivicAddresses implements directory.Reader.
func (t *transaction) CountCivicAddresses(ctx context.Context, tenantID string, q directory.Query) (int64, error) {
	c := compiler{s: t.s, fields: civicFields}
	return t.count(ctx, "SELECT COUNT(*) FROM civic_addresses"+c.where(q.Filter, "tenant_id = "+c.param(tenantID)),
		c.args)
}

// ReplaceCivicAddresses implements directory.Tx.
func (t *transaction) ReplaceCivicAddresses(ctx context.Context, tenantID string, as []directory.CivicAddress) error {
	if _, err := t.tx.Exec(ctx, "DELETE FROM civic_addresses WHERE tenant_id = $1", tenantID); err != nil {
		return fmt.Errorf("replace civic addresses: %w", err)
	}
	for i := range as {
		details, err := encode(as[i].CivicAddress)
		if err != nil {
			return err
		}
		if _, err := t.tx.Exec(ctx, "INSERT INTO civic_addresses (tenant_id, id, details, version, modified) VALUES "+
			"($1, $2, $3, $4, $5)",
			tenantID, as[i].ID, details, as[i].Version, db.Micros(as[i].Modified)); err != nil {
			return fmt.Errorf("replace civic addresses: %w", err)
		}
	}
	return nil
}

// CapabilityPlans implements directory.Reader.
func (t *transaction) CapabilityPlans(ctx context.Context, tenantID string) ([]domain.CapabilityPlan, error) {
	return list(ctx, t.tx, "read capability plans", func(rows *sql.Rows) (p domain.CapabilityPlan, err error) {
		var details string
		if err = rows.Scan(&details); err == nil {
			err = decode(details, &p)
		}
		return p, err
	}, "SELECT details FROM capability_plans WHERE tenant_id = $1 ORDER BY place", tenantID)
}

// ReplaceCapabilityPlans implements directory.Tx.
func (t *transaction) ReplaceCapabilityPlans(ctx context.Context, tenantID string, ps []domain.CapabilityPlan) error {
	if _, err := t.tx.Exec(ctx, "DELETE FROM capability_plans WHERE tenant_id = $1", tenantID); err != nil {
		return fmt.Errorf("replace capability plans: %w", err)
	}
	for i := range ps {
		details, err := encode(ps[i])
		if err != nil {
			return err
		}
		if _, err := t.tx.Exec(ctx, "INSERT INTO capability_plans (tenant_id, place, details) VALUES ($1, $2, $3)",
			tenantID, int64(i), details); err != nil {
			return fmt.Errorf("replace capability plans: %w", err)
		}
	}
	return nil
}
