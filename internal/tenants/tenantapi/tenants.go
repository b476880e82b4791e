// Package tenantapi implements the management API's operations on tenants (api/manage/v1.yaml). What they do is in the
// other packages of the job; this one has requests and answers.
package tenantapi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/tenants/dialplan"
	"github.com/tandemgw/tandem/internal/tenants/move"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/rollout"
)

// Tenants implements the operations with the tag tenants.
type Tenants struct {
	Planner *onboard.Planner
	Store   onboard.Store
	// Account returns an error of kind fault.NotFound if there is no account with that name.
	Account func(ctx context.Context, name string) error
	Sealer  web.Sealer // of cursors
	// Fleet returns up to limit tenants after an account, in order.
	Fleet    func(ctx context.Context, f onboard.Filter, after string, limit int) ([]onboard.Listed, error)
	Rollouts *rollout.Service
	Moves    *move.Service
	Names    Names
}

// ListTenants implements the operation listTenants.
func (o Tenants) ListTenants(ctx context.Context,
	r api.ListTenantsRequestObject) (api.ListTenantsResponseObject, error) {
	q, f := r.Params, onboard.Filter{}
	if q.State != nil {
		f.State = onboard.State(*q.State)
	}
	if q.Waiting != nil {
		f.Waiting = onboard.Party(*q.Waiting)
	}
	if q.Template != nil {
		f.Template = *q.Template
		if _, err := o.Planner.Resolve(ctx, onboard.Wishes{Template: f.Template}); err != nil {
			return nil, unknownTemplate(err)
		}
	}
	if q.Drift != nil {
		f.Drift = new(*q.Drift == api.ListTenantsParamsDriftFound)
	}
	all, next, err := web.Page(o.Sealer, "page tenants", q.Limit, q.Cursor,
		func(after string, limit int) ([]onboard.Listed, error) { return o.Fleet(ctx, f, after, limit) },
		func(t onboard.Listed) string { return t.Account })
	if err != nil {
		return nil, err
	}
	page := api.ListTenants200JSONResponse{Next: next, Tenants: make([]api.Tenant, len(all))}
	for i, t := range all {
		page.Tenants[i] = tenant(t.Tenant, nil)
		page.Tenants[i].Overview = &api.TenantOverview{Drift: t.Drift, DriftChecked: t.Compared, Consented: t.Consented,
			SignedIn: t.SignedIn, ConsentLost: t.ConsentLost, SignInLost: t.Lost, SignInProblem: t.Problem,
			Synced: t.Synced, ActiveUsers: t.Active}
		if t.Spare != nil {
			page.Tenants[i].Overview.SpareLicences, page.Tenants[i].Overview.LicencesRead = &t.Spare.Seats, t.Spare.Read
		}
	}
	return page, nil
}

// GetTenant implements the operation getTenant.
func (o Tenants) GetTenant(ctx context.Context, r api.GetTenantRequestObject) (api.GetTenantResponseObject, error) {
	a, err := o.answer(ctx, r.Account)
	return api.GetTenant200JSONResponse{TenantJSONResponse: a}, err
}

// PutTenant implements the operation putTenant.
func (o Tenants) PutTenant(ctx context.Context, r api.PutTenantRequestObject) (api.PutTenantResponseObject, error) {
	if r.Account != onboard.Carrier {
		if err := o.Account(ctx, r.Account); err != nil {
			return nil, err
		}
	}
	was, _, err := o.read(ctx, r.Account)
	if fault.Is(err, fault.NotFound) {
		was, err = &onboard.Tenant{Account: r.Account}, nil
	}
	if err != nil {
		return nil, err
	}
	wishes, err := o.wishes(ctx, was, r.Body)
	if err != nil {
		return nil, err
	}
	anyTag, tags := true, []string(nil)
	if r.Params.IfMatch != nil {
		if anyTag, tags, err = web.ParseTags(*r.Params.IfMatch, "If-Match"); err != nil {
			return nil, err
		}
	}

	err = o.Store.Update(ctx, nil, r.Account, "", func(ctx context.Context, tx onboard.Tx) error {
		t, err := tx.Tenant(ctx)
		if fault.Is(err, fault.NotFound) {
			t, err = &onboard.Tenant{Account: r.Account}, nil
		}
		if err != nil {
			return err
		}
		if !anyTag && !slices.Contains(tags, etag(t)) {
			return fault.New(fault.Precondition, "ConditionNotMet", "the tenant's settings have changed; read them "+
				"again")
		}
		if id := strings.ToLower(r.Body.TenantID); !strings.EqualFold(id, t.ID) {
			if err := unused(ctx, tx, t); err != nil {
				return err
			}
			t.ID = id
		}
		if err := keepsTrunks(t, wishes); err != nil {
			return err
		}
		if err := keepsNames(t, wishes); err != nil {
			return err
		}
		t.Wishes = wishes
		if err := tx.SetTenant(ctx, t); err != nil {
			return err
		}
		return tx.Audit(ctx, "tenant.put", r.Account, r.Body)
	})
	if err != nil {
		return nil, err
	}
	a, err := o.answer(ctx, r.Account)
	return api.PutTenant200JSONResponse{TenantJSONResponse: a}, err
}

// wishes checks what a person has decided for a tenant.
func (o Tenants) wishes(ctx context.Context, t *onboard.Tenant,
	s *api.TenantSettings) (w onboard.Wishes, err error) {
	if s.TenantID != "" && !domain.IsGUID(s.TenantID) {
		return w, fault.New(fault.Invalid, "InvalidTenantId", "%q is not the id of a tenant, which is a GUID",
			s.TenantID).At("tenantId")
	}
	if w, err = wishes(s); err != nil {
		return w, err
	}
	if t.Account == onboard.Carrier {
		if !reflect.DeepEqual(w, onboard.Wishes{}) {
			err = fault.New(fault.Invalid, "CarrierSettings", "the operator's own tenant has its settings from the "+
				"configuration; set nothing but its tenant id")
		}
		return w, err
	}
	if w.Label != "" {
		if err := o.Planner.CheckLabel(ctx, t.Account, w.Label); err != nil {
			return w, err
		}
	}
	resolved, err := o.Planner.Resolve(ctx, w)
	if err != nil {
		return w, unknownTemplate(err)
	}
	return w, o.Planner.Check(resolved, t.MadeFor.Country)
}

// wishes returns settings of a tenant or a template.
func wishes(settings any) (w onboard.Wishes, err error) {
	if w, err = convert[onboard.Wishes](settings); err == nil && w.Users.Location != "" {
		w.Users.Location, err = location(w.Users.Location, "users.usageLocation")
	}
	return w, err
}

// unknownTemplate makes a template that does not exist a mistake of the request.
func unknownTemplate(err error) error {
	if fault.HasCode(err, "TemplateNotFound") {
		return fault.New(fault.Invalid, "TemplateNotFound", "%s", fault.As(err).Message).At("template")
	}
	return err
}

// keepsTrunks refuses another trunk model for a label that the tenant has.
func keepsTrunks(t *onboard.Tenant, w onboard.Wishes) error {
	if w.Trunk == "" || t.State() == onboard.Left {
		return nil
	}
	for _, l := range t.Settings.Labels {
		if (w.Label == "" || strings.EqualFold(w.Label, l.Name)) && l.Trunk != w.Trunk {
			return fault.New(fault.Conflict, "TrunkModel", "the label %q has the trunk model %s, and a label keeps "+
				"its model; the tenant gets the other one with another label (tandem tenant move begin %s --label "+
				"LABEL --trunk %s)", l.Name, l.Trunk, t.Account, w.Trunk).At("trunk")
		}
	}
	return nil
}

// keepsNames refuses another name for the objects of a tenant that has some.
func keepsNames(t *onboard.Tenant, w onboard.Wishes) error {
	if has := t.Settings.Prefix; w.Prefix == "" || w.Prefix == has || has == "" || t.State() == onboard.Left {
		return nil
	}
	return fault.New(fault.Conflict, "NamesStay", "the objects of the tenant are named %s, and keep that name until "+
		"it is left (tandem tenant plan %s --leave)", t.Settings.Prefix, t.Account).At("prefix")
}

// unused refuses a change while Tandem has objects in the tenant.
func unused(ctx context.Context, tx onboard.Tx, t *onboard.Tenant) error {
	made, err := tx.Ledger(ctx)
	if err == nil && len(made) > 0 || t.Pending {
		return fault.New(fault.Conflict, "TenantInUse", "Tandem has objects in the tenant %s of %s; leave it "+
			"first (tandem tenant plan %s --leave)", t.ID, t.Account, t.Account)
	}
	return err
}

// DeleteTenant implements the operation deleteTenant.
func (o Tenants) DeleteTenant(ctx context.Context,
	r api.DeleteTenantRequestObject) (api.DeleteTenantResponseObject, error) {
	account := onboard.Owner(r.Account)
	if m, err := o.Moves.Get(ctx, account); err == nil {
		return nil, fault.New(fault.Conflict, "MoveExists", "account %s moves to %s (%s), which needs %s; finish that "+
			"first (tandem tenant move show %[1]s), or end it (tandem tenant move abandon %[1]s)", account,
			cmp.Or(m.TenantID, "the label "+m.New), m.Stage, r.Account)
	} else if !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	return api.DeleteTenant204Response{}, o.Store.Update(ctx, nil, r.Account, "",
		func(ctx context.Context, tx onboard.Tx) error {
			t, err := tx.Tenant(ctx)
			if fault.Is(err, fault.NotFound) { // its administrator has perhaps signed in already
				t, err = &onboard.Tenant{Account: r.Account}, nil
			}
			if err != nil {
				return err
			}
			if err := unused(ctx, tx, t); err != nil {
				return err
			}
			if err := tx.DeleteTenant(ctx); err != nil {
				return err
			}
			return tx.Audit(ctx, "tenant.delete", r.Account, nil)
		})
}

// GetDialPlan implements the operation getDialPlan.
func (o Tenants) GetDialPlan(ctx context.Context,
	r api.GetDialPlanRequestObject) (api.GetDialPlanResponseObject, error) {
	t, _, err := o.read(ctx, r.Account)
	if err != nil {
		return nil, err
	}
	wishes, err := o.Planner.Resolve(ctx, t.Wishes)
	if err != nil {
		return nil, err
	}
	dial := wishes.Dial
	if dial.Country = cmp.Or(dial.Country, t.MadeFor.Country); dial.Country == "" {
		return nil, fault.New(fault.Conflict, "NoCountry", "the country is not known before the tenant was read; "+
			"set one (tandem tenant set %s --country)", r.Account)
	}
	rules, leftOut, err := o.Planner.Rules(wishes.Rules, dial)
	if err != nil {
		return nil, err
	}
	examples, err := dialplan.Examples(dial.Country, rules)
	if err != nil {
		return nil, err
	}
	if r.Params.Dialled != nil {
		i, number := dialplan.Normalise(rules, *r.Params.Dialled)
		examples = append([]dialplan.Example{{Dialled: *r.Params.Dialled, Number: number, Rule: i}}, examples...)
	}

	a := api.GetDialPlan200JSONResponse{Country: dial.Country, LeftOut: leftOut,
		Rules: make([]api.DialRule, len(rules)), Examples: make([]api.DialExample, len(examples))}
	for i, x := range rules {
		a.Rules[i] = api.DialRule{Name: x.Name, Description: x.Description, Pattern: x.Pattern,
			Translation: x.Translation, InternalExtension: x.InternalExtension}
	}
	for i, x := range examples {
		a.Examples[i] = api.DialExample{Dialled: x.Dialled, Number: x.Number}
		if x.Rule >= 0 {
			a.Examples[i].Rule = rules[x.Rule].Name
		}
	}
	return a, nil
}

// PlanTenant implements the operation planTenant.
func (o Tenants) PlanTenant(ctx context.Context, r api.PlanTenantRequestObject) (api.PlanTenantResponseObject, error) {
	if r.Body.RemoveConsent && r.Body.Purpose != api.PlanRequestPurposeLeave {
		return nil, fault.New(fault.Invalid, "NotLeaving", "only a plan to leave removes Tandem's application from "+
			"the tenant").At("removeConsent")
	}
	p, err := o.Planner.Plan(ctx, r.Account, onboard.Order{Purpose: onboard.Purpose(r.Body.Purpose),
		Snapshot: r.Body.Snapshot, RemoveConsent: r.Body.RemoveConsent}, caller(ctx))
	if err != nil {
		return nil, err
	}
	a, err := o.proposal(ctx, p)
	return api.PlanTenant200JSONResponse(a), err
}

// caller names who sent a request.
func caller(ctx context.Context) string {
	actor := domain.ActorFrom(ctx)
	return actor.Kind + ":" + actor.ID
}

// GetPlan implements the operation getPlan.
func (o Tenants) GetPlan(ctx context.Context, r api.GetPlanRequestObject) (api.GetPlanResponseObject, error) {
	var p *onboard.Proposal
	err := o.Store.View(ctx, r.Account, func(ctx context.Context, tx onboard.Tx) (err error) {
		p, err = tx.Proposal(ctx, r.Plan)
		return err
	})
	if err != nil {
		return nil, err
	}
	a, err := o.proposal(ctx, p)
	return api.GetPlan200JSONResponse(a), err
}

// ApplyPlan implements the operation applyPlan.
func (o Tenants) ApplyPlan(ctx context.Context, r api.ApplyPlanRequestObject) (api.ApplyPlanResponseObject, error) {
	p, err := o.Planner.Apply(ctx, r.Account, r.Plan)
	if err != nil {
		return nil, err
	}
	a, err := o.proposal(ctx, p)
	return api.ApplyPlan202JSONResponse(a), err
}

// read returns a tenant and what Tandem has in it.
func (o Tenants) read(ctx context.Context, account string) (t *onboard.Tenant, made plan.Ledger, err error) {
	err = o.Store.View(ctx, account, func(ctx context.Context, tx onboard.Tx) (err error) {
		if t, err = tx.Tenant(ctx); err == nil {
			made, err = tx.Ledger(ctx)
		}
		return err
	})
	return t, made, err
}

func (o Tenants) answer(ctx context.Context, account string) (a api.TenantJSONResponse, err error) {
	t, made, err := o.read(ctx, account)
	if err != nil {
		return a, err
	}
	return api.TenantJSONResponse{Body: tenant(t, made), Headers: api.TenantResponseHeaders{ETag: etag(t)}}, nil
}

// etag returns the entity tag of what PutTenant replaces.
func etag(t *onboard.Tenant) string {
	text, err := json.Marshal([]any{t.ID, t.Wishes})
	if err != nil {
		panic(err) // it holds values of JSON only
	}
	return fmt.Sprintf(`"%x"`, sha256.Sum256(text))[:19] + `"`
}

// tenant returns a tenant as answers have it. made is nil in lists.
func tenant(t *onboard.Tenant, made plan.Ledger) api.Tenant {
	settings, err := convert[api.TenantSettings](t.Wishes)
	if err != nil {
		panic(err) // what is stored came from such settings
	}
	settings.TenantID = t.ID
	a := api.Tenant{Account: t.Account, TenantID: t.ID, State: api.TenantState(t.State()), Purpose: string(t.Purpose),
		Settings: settings, Prefix: t.Settings.Prefix, Licence: t.Settings.Licence, Labels: []api.TenantLabel{}}
	for _, l := range t.Settings.Labels {
		one := plan.Settings{Labels: []plan.Label{l}, Regions: t.Settings.Regions}
		a.Labels = append(a.Labels, api.TenantLabel{Label: l.Name, Trunk: string(l.Trunk), Names: one.Names()})
	}
	if w := t.Waiting; w != nil {
		a.Waiting = &api.TenantWait{For: api.TenantParty(w.For), Type: string(w.Object.Type), Name: w.Object.Name,
			Reason: w.Reason, Since: w.Since.UTC(), Usual: seconds(w.Usual), Longest: seconds(w.Longest)}
	}
	for r := range made {
		if r.Type == plan.User {
			a.Users++
		} else {
			a.Made++
		}
	}
	return a
}

func seconds(d time.Duration) int { return int(d / time.Second) }

func (o Tenants) proposal(ctx context.Context, p *onboard.Proposal) (api.TenantPlan, error) {
	a := api.TenantPlan{ID: p.ID, Account: p.Account, Purpose: string(p.Purpose), Made: p.Made, By: p.By,
		Applied: p.Applied, Hash: p.Plan.Hash(), Steps: steps(p.Plan.Steps), Users: steps(p.Users),
		Conflicts: notes(p.Plan.Conflicts), Kept: notes(append(slices.Clone(p.Plan.Kept), p.Stays...)),
		Opened: notes(p.Opened), RemovesConsent: p.RemoveConsent &&
			!slices.ContainsFunc(p.Plan.Kept, func(n plan.Note) bool { return n.Type == plan.Consent })}
	var objects []shown
	for i := range a.Users {
		s := &a.Users[i]
		objects = append(objects, shown{s.Type, s.Name, &s.User, &s.DisplayName})
	}
	for _, list := range [][]api.PlanNote{a.Conflicts, a.Kept} {
		for i := range list {
			n := &list[i]
			objects = append(objects, shown{n.Type, n.Name, &n.User, &n.DisplayName})
		}
	}
	return a, o.Names.fill(ctx, p.Account, objects)
}

func steps(all []plan.Step) []api.PlanStep {
	list := make([]api.PlanStep, len(all))
	for i, s := range all {
		list[i] = api.PlanStep{Action: api.PlanStepAction(s.Action), Type: string(s.Type), Name: s.Name,
			Differences: make([]api.PlanDifference, len(s.Differences))}
		if usual, longest := s.Type.Takes(); s.Action != plan.Delete {
			list[i].Usual, list[i].Longest = seconds(usual), seconds(longest)
		}
		for k, d := range s.Differences {
			list[i].Differences[k] = api.PlanDifference{Field: d.Field, Old: d.Old, New: d.New}
		}
	}
	return list
}

func notes(all []plan.Note) []api.PlanNote {
	list := make([]api.PlanNote, len(all))
	for i, n := range all {
		list[i] = api.PlanNote{Type: string(n.Type), Name: n.Name, Text: n.Text}
	}
	return list
}

// convert returns a value as another type with the same members in JSON.
func convert[T any](v any) (to T, err error) {
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &to)
	}
	return to, err
}
