package directory

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Requests lists requests for information by tenant id. Errors: InvalidPageSize.
func (d *Directory) Requests(ctx context.Context, q Query) (Page[domain.RequestForInformation], error) {
	return list(ctx, d, q, func(r *domain.RequestForInformation) string { return r.TenantID }, Reader.Requests,
		Reader.CountRequests)
}

// Request returns the request for information of a tenant. The case of tenantID does not matter. Errors:
// RequestForInformationNotFound.
func (d *Directory) Request(ctx context.Context, tenantID string) (domain.RequestForInformation, error) {
	return view(ctx, d, func(ctx context.Context, r Reader) (*domain.RequestForInformation, error) {
		return mustRequest(ctx, r, tenantID)
	})
}

func mustRequest(ctx context.Context, r Reader, tenantID string) (*domain.RequestForInformation, error) {
	var q *domain.RequestForInformation
	if domain.IsGUID(tenantID) { // anything else is no tenant's id
		var err error
		if q, err = r.Request(ctx, strings.ToLower(tenantID)); err != nil {
			return nil, err
		}
	}
	if q == nil {
		return nil, fault.New(fault.NotFound, CodeRequestNotFound,
			"that tenant has made no request for information").At("tenantId")
	}
	return q, nil
}

// PatchRequest changes the operator's side of a request for information. Errors: RequestForInformationNotFound,
// InvalidCustomerRelationship.
func (d *Directory) PatchRequest(ctx context.Context, tenantID string, p RelationshipPatch, w Write) (*Result, error) {
	for _, f := range []struct {
		name string
		v    *string
		max  int
		fits func(string, int) bool
	}{{"status", p.Status, maxStatus, text}, {"comment", p.Comment, maxComment, prose}} {
		if f.v != nil && !f.fits(*f.v, f.max) {
			return nil, invalid(CodeInvalidRelationship, "customerRelationship."+f.name, "%s has at most %d bytes of "+
				"UTF-8 without control characters", f.name, f.max)
		}
	}
	return d.write(ctx, w, func(ctx context.Context, tx Tx, r *Result) error {
		q, err := mustRequest(ctx, tx, tenantID)
		if err != nil {
			return err
		}
		if err := w.Condition.check(true, q.Version, q.LastModifiedOn); err != nil {
			return err
		}
		r.Request = q
		at := now()
		var rel *domain.CustomerRelationship
		if !p.Clear {
			was := *cmp.Or(q.Relationship, &domain.CustomerRelationship{})
			is := was
			if p.Status != nil {
				is.Status = *p.Status
			}
			if p.Comment != nil {
				is.Comment = *p.Comment
			}
			if is == was {
				return nil
			}
			is.LastModifiedOn = at
			rel = &is
		} else if q.Relationship == nil {
			return nil
		}
		q.Relationship, q.LastModifiedOn, q.Version = rel, at, next(q.Version, at)
		if err := tx.PutRequest(ctx, q); err != nil {
			return err
		}
		return d.record(ctx, tx, change{action: "request.patch", target: q.TenantID, items: 1, state: q.Relationship})
	})
}

// SaveRequest stores a tenant's request to this operator: the whole request for information except the operator's own
// side, which is kept. r.Relationship is used only if there was no request of that tenant before. Errors:
// InvalidTenantId.
func (d *Directory) SaveRequest(ctx context.Context, r domain.RequestForInformation) error {
	if err := checkSaved(r.TenantID, r); err != nil {
		return err
	}
	_, err := d.write(ctx, Write{}, func(ctx context.Context, tx Tx, _ *Result) error {
		q := r
		q.TenantID, q.AccountName = strings.ToLower(r.TenantID), ""
		old, err := tx.Request(ctx, q.TenantID)
		if err != nil {
			return err
		}
		if old != nil {
			q.Relationship, q.Version = old.Relationship, old.Version
		}
		at := now()
		if q.LastModifiedOn.IsZero() {
			q.LastModifiedOn = at
		}
		q.State = domain.ProvisioningState{Status: domain.SyncSynced}
		q.Version = next(q.Version, at)
		if err := tx.PutRequest(ctx, &q); err != nil {
			return err
		}
		return d.record(ctx, tx, change{action: "request.save", target: q.TenantID, items: 1, state: q})
	})
	return err
}

// checkSaved checks what is to be stored of a tenant.
func checkSaved(tenantID string, v any) error {
	if !domain.IsGUID(tenantID) {
		return invalid(CodeInvalidTenantID, "tenantId", "a Teams tenant id is a GUID")
	}
	return clean(v)
}

// clean refuses texts that contain a NUL, which PostgreSQL cannot store.
func clean(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if strings.Contains(string(b), `\u0000`) {
		return invalid("InvalidText", "", "a text contains a NUL character, which cannot be stored")
	}
	return nil
}

// CivicAddress is a civic address with the validators of a conditional read.
type CivicAddress struct {
	domain.CivicAddress
	Version  int64
	Modified time.Time
}

// CivicAddresses lists the civic addresses of the account's Teams tenant by id; none if it has no tenant. Errors:
// AccountNotFound, InvalidPageSize.
func (d *Directory) CivicAddresses(ctx context.Context, account string, q Query) (Page[CivicAddress], error) {
	var tenant string
	return list(ctx, d, q, func(a *CivicAddress) string { return a.ID },
		func(r Reader, ctx context.Context, q Query) (as []CivicAddress, err error) {
			if tenant, err = tenantOf(ctx, r, account); err == nil && tenant != "" {
				as, err = r.CivicAddresses(ctx, tenant, q)
			}
			return as, err
		}, func(r Reader, ctx context.Context, q Query) (int64, error) {
			if tenant == "" {
				return 0, nil
			}
			return r.CountCivicAddresses(ctx, tenant, q)
		})
}

// CivicAddress returns one civic address of the account's Teams tenant. Errors: AccountNotFound, CivicAddressNotFound.
func (d *Directory) CivicAddress(ctx context.Context, account, id string) (CivicAddress, error) {
	return view(ctx, d, func(ctx context.Context, r Reader) (found *CivicAddress, err error) {
		tenant, err := tenantOf(ctx, r, account)
		if err == nil && tenant != "" && text(id, maxTeamsText) {
			found, err = r.CivicAddress(ctx, tenant, id)
		}
		if err == nil && found == nil {
			err = fault.New(fault.NotFound, CodeCivicAddressNotFound,
				"the account's Teams tenant has no such civic address").At("civicAddressId")
		}
		return found, err
	})
}

// tenantOf returns the account's Teams tenant in lower case, or "".
func tenantOf(ctx context.Context, r Reader, account string) (string, error) {
	a, err := mustAccount(ctx, r.Account, account)
	if err != nil {
		return "", err
	}
	return strings.ToLower(a.TeamsTenantID), nil
}

// SaveCivicAddresses replaces all civic addresses of a Teams tenant. Addresses that do not change keep their ETag.
// Errors: InvalidTenantId.
func (d *Directory) SaveCivicAddresses(ctx context.Context, tenantID string, as []domain.CivicAddress) error {
	if err := checkSaved(tenantID, as); err != nil {
		return err
	}
	tenantID = strings.ToLower(tenantID)
	_, err := d.write(ctx, Write{}, func(ctx context.Context, tx Tx, _ *Result) error {
		at := now()
		rows := make([]CivicAddress, len(as))
		for i := range as {
			rows[i] = CivicAddress{as[i], at.UnixMicro(), at}
			old, err := tx.CivicAddress(ctx, tenantID, as[i].ID)
			if err != nil {
				return err
			}
			if old != nil && same(old.CivicAddress, as[i]) {
				rows[i].Version, rows[i].Modified = old.Version, old.Modified
			} else if old != nil {
				rows[i].Version = next(old.Version, at)
			}
		}
		if err := tx.ReplaceCivicAddresses(ctx, tenantID, rows); err != nil {
			return err
		}
		return d.record(ctx, tx, change{action: "civicAddresses.save", target: tenantID, items: len(as), state: as,
			summary: map[string]int{"addresses": len(as)}})
	})
	return err
}

func same(a, b domain.CivicAddress) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// SaveCapabilityPlans replaces all capability plans of a Teams tenant, or with tenantID "" those of every tenant that
// has none of its own. Errors: InvalidTenantId.
func (d *Directory) SaveCapabilityPlans(ctx context.Context, tenantID string, ps []domain.CapabilityPlan) error {
	if tenantID != "" && !domain.IsGUID(tenantID) {
		return invalid(CodeInvalidTenantID, "tenantId", "a Teams tenant id is a GUID, or empty for all tenants")
	}
	if err := clean(ps); err != nil {
		return err
	}
	tenantID = strings.ToLower(tenantID)
	_, err := d.write(ctx, Write{}, func(ctx context.Context, tx Tx, _ *Result) error {
		if err := tx.ReplaceCapabilityPlans(ctx, tenantID, ps); err != nil {
			return err
		}
		return d.record(ctx, tx, change{action: "capabilityPlans.save", target: tenantID, items: len(ps), state: ps})
	})
	return err
}

// read runs fn for an operation that only reads but may be repeatable.
func (d *Directory) read(ctx context.Context, w Write,
	fn func(ctx context.Context, r Reader, res *Result) error) (*Result, error) {
	if w.Once != nil {
		return d.write(ctx, w, func(ctx context.Context, tx Tx, res *Result) error { return fn(ctx, tx, res) })
	}
	var res *Result
	err := d.store.View(ctx, func(ctx context.Context, r Reader) error {
		res = &Result{}
		return fn(ctx, r, res)
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// CapabilityPlans returns the capability plans of the account's Teams tenant: those saved for the tenant, else those
// saved for every tenant. It writes nothing but the record of w.Once. Errors: AccountNotFound.
func (d *Directory) CapabilityPlans(ctx context.Context, account string, w Write) (*Result, error) {
	return d.read(ctx, w, func(ctx context.Context, r Reader, res *Result) error {
		var err error
		res.Plans, err = plansOf(ctx, r, account)
		return err
	})
}

func plansOf(ctx context.Context, r Reader, account string) ([]domain.CapabilityPlan, error) {
	tenant, err := tenantOf(ctx, r, account)
	if err != nil {
		return nil, err
	}
	ps, err := r.CapabilityPlans(ctx, tenant)
	if err != nil || len(ps) > 0 || tenant == "" {
		return ps, err
	}
	return r.CapabilityPlans(ctx, "")
}

// AvailableCapabilities returns the capabilities that are available to all the given numbers, sorted. For a number of
// the account whose back end has reported its capabilities these count; for any other number, all that the account's
// capability plans offer. It accepts up to MaxBatch numbers, and writes nothing but the record of w.Once. Errors:
// AccountNotFound, TooManyItems, BatchRejected.
func (d *Directory) AvailableCapabilities(ctx context.Context, account string, ns []domain.E164,
	w Write) (*Result, error) {
	if err := CheckBatch(len(ns)); err != nil {
		return nil, err
	}
	if err := rejected(badNumbers(ns, w.Refused), len(ns)); err != nil {
		return nil, err
	}
	return d.read(ctx, w, func(ctx context.Context, r Reader, res *Result) error {
		ps, err := plansOf(ctx, r, account)
		if err != nil {
			return err
		}
		var offered []string
		for _, p := range ps {
			offered = append(append(offered, p.MandatoryCapabilities...), p.ChoosableCapabilities...)
		}
		found, err := r.FindNumbers(ctx, ns)
		if err != nil {
			return err
		}
		var each [][]string
		for i := range found {
			if caps := available(&found[i]); found[i].AccountName == account && len(caps) > 0 {
				each = append(each, caps)
			}
		}
		if len(each) < len(distinct(ns)) {
			each = append(each, offered) // by all the others
		}
		for i, caps := range each {
			if i == 0 {
				res.Capabilities = distinct(caps)
			}
			res.Capabilities = slices.DeleteFunc(res.Capabilities,
				func(c string) bool { return !slices.Contains(caps, c) })
		}
		return nil
	})
}

func available(n *domain.Number) []string {
	var caps []string
	for _, s := range domain.InOrder(n.Services) {
		if c := n.Services[s].Teams; c != nil {
			caps = append(caps, c.AvailableCapabilities...)
		}
	}
	return caps
}

// distinct returns a sorted copy without repetitions.
func distinct[T ~string](s []T) []T {
	c := slices.Clone(s)
	slices.Sort(c)
	return slices.Compact(c)
}
