package powershell

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/outside/wire"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// CodeWrongTenant is the code of the fault when PowerShell reached another tenant than the one it was signed in to.
const CodeWrongTenant = "WrongTenant"

// checkEvery is for how long a child counts as signed in to its tenant before a change.
const checkEvery = time.Minute

// SignIn says how children sign in to a tenant: by access tokens, both of the application, or both of the person who
// signed in. They never sign in interactively, nor by a broker, which is the module's default from 7.9.0 on.
type SignIn struct{ Graph, Teams wire.Tokens }

// Admin implements teamsadmin.Admin for one tenant. It is safe for concurrent use; commands run one after the other.
type Admin struct {
	w      *Worker
	tenant string
	signIn SignIn
}

var _ teamsadmin.Admin = (*Admin)(nil)

// Admin returns the administration of a tenant, named by its id.
func (w *Worker) Admin(tenant string, signIn SignIn) *Admin { return &Admin{w, tenant, signIn} }

// run runs a cmdlet and decodes the objects that it returns, with the properties of Select.
func run[T any](ctx context.Context, a *Admin, cmdlet string, parameters map[string]any, properties ...string) ([]T,
	error) {
	s, err := a.w.acquire(ctx, a.tenant)
	if err != nil {
		return nil, err
	}
	defer a.w.release(s)

	r := request{Cmdlet: cmdlet, Parameters: parameters, Select: properties}
	items, err := a.signedIn(ctx, s, r)
	if fault.HasCode(err, teamsadmin.CodeTokenRefused) { // nothing was done
		a.signIn.Graph.Refused(s.child.tokens[0], "")
		a.signIn.Teams.Refused(s.child.tokens[1], "")
		items, err = a.signedIn(ctx, s, r)
	}
	if err != nil {
		return nil, err
	}
	all := make([]T, len(items))
	for i, item := range items {
		if err := decode(item, &all[i]); err != nil {
			return nil, unreadable(cmdlet, err)
		}
	}
	return all, nil
}

// decode decodes an object. A list with one item may be the item itself: PowerShell unrolls lists easily [I].
func decode(item []byte, v any) error {
	var properties map[string]any
	if err := json.Unmarshal(item, &properties); err != nil {
		return err
	}
	for name, p := range properties {
		if _, whole := p.([]any); !whole && p != nil && lists.MatchString(name) {
			properties[name] = []any{p}
		}
	}
	item, err := json.Marshal(properties)
	if err != nil {
		return err
	}
	return json.Unmarshal(item, v)
}

// lists matches the properties that are lists.
var lists = regexp.MustCompile(`(List|Usages?|Rules|Numbers|Assignments)$`)

func unreadable(cmdlet string, cause error) error {
	return fault.New(fault.Unavailable, teamsadmin.CodeUnreadable, "what %s returns is not understood; the module may "+
		"have changed: use a version that this release was made for", cmdlet).Because(cause)
}

// signedIn runs a cmdlet in a child that is signed in to the tenant: checked after the sign-in, and before a change if
// that was some time ago.
func (a *Admin) signedIn(ctx context.Context, s *slot, r request) ([]json.RawMessage, error) {
	var tokens [2]secret.Text
	var err error
	for i, source := range []wire.Tokens{a.signIn.Graph, a.signIn.Teams} {
		if tokens[i], err = source.Token(ctx); err != nil {
			return nil, err
		}
	}

	if s.child.signed && s.child.tokens != tokens { // a child signs in once
		s.child.kill()
		if s.child, err = a.w.start(ctx, s); err != nil {
			return nil, err
		}
	}
	if !s.child.signed {
		s.child.tokens = tokens
		// Without TenantId, as in the examples of the page: 2.6.0 refused it beside tokens [C].
		if _, err := a.call(ctx, s, request{Cmdlet: "Connect-MicrosoftTeams", Parameters: map[string]any{
			"AccessTokens": []string{tokens[0].Reveal(), tokens[1].Reveal()}}}); err != nil {
			return nil, err
		}
		s.child.signed = true
	}
	if s.child.checked.IsZero() || changes(r.Cmdlet) && time.Since(s.child.checked) > a.w.checkEvery {
		if err := a.check(ctx, s); err != nil {
			return nil, err
		}
	}
	return a.call(ctx, s, r)
}

const getTenant = "Get-CsTenant"

// check asks which tenant the child reaches, and kills it if that is another.
func (a *Admin) check(ctx context.Context, s *slot) error {
	items, err := a.call(ctx, s, request{Cmdlet: getTenant, Select: []string{"TenantId"}})
	if err != nil {
		return err
	}
	var reached struct{ TenantID string }
	if len(items) != 1 || json.Unmarshal(items[0], &reached) != nil || reached.TenantID == "" {
		return unreadable(getTenant, nil)
	}
	s.child.checked = time.Now()
	if strings.EqualFold(reached.TenantID, a.tenant) {
		return nil
	}

	s.child.kill()
	s.child = nil
	s.broke()
	found := clean(reached.TenantID)
	a.w.opt.Log.Error("PowerShell reached another tenant; it was stopped and nothing was written", "tenant", a.tenant,
		"reached", found)
	if a.w.opt.WrongTenant != nil {
		a.w.opt.WrongTenant(a.tenant, found)
	}
	return fault.New(fault.Unavailable, CodeWrongTenant, "PowerShell was signed in to the tenant %s and reached %s; "+
		"nothing was written, and it is started again", a.tenant, found).After(time.Until(s.retry))
}

// changes reports whether a cmdlet can change the tenant.
func changes(cmdlet string) bool {
	return !strings.HasPrefix(cmdlet, "Get-") && cmdlet != "Connect-MicrosoftTeams"
}

// call runs a cmdlet in the child of s, which loses its child if that breaks.
func (a *Admin) call(ctx context.Context, s *slot, r request) ([]json.RawMessage, error) {
	if ctx.Err() != nil { // nothing is sent
		return nil, busy("other commands for this tenant", ctx.Err())
	}
	limited, cancel := context.WithTimeout(ctx, a.w.cfg.CommandTimeout)
	defer cancel()
	if r.Parameters == nil {
		r.Parameters = map[string]any{}
	}
	began, outcome := time.Now(), "ok"
	defer func() { a.w.seconds.WithLabelValues(outcome).Observe(time.Since(began).Seconds()) }()

	items, _, err := s.child.call(limited, r)
	if err == nil {
		s.failures = 0
		return items, nil
	}
	if e, reported := errors.AsType[*cmdletError](err); reported {
		outcome = "refused"
		return nil, refused(r.Cmdlet, e)
	}

	outcome = "lost"
	s.child = nil
	if ctx.Err() == nil {
		s.broke()
	}
	a.w.opt.Log.Warn("PowerShell broke off a command", "tenant", a.tenant, "cmdlet", r.Cmdlet, "error", err)
	if changes(r.Cmdlet) {
		return nil, unknown(r.Cmdlet, err)
	}
	return nil, fault.New(fault.Unavailable, CodeWorker, "PowerShell did not finish %s; retry", r.Cmdlet).
		After(time.Until(s.retry)).Because(err)
}

// made are the parameters that are lists of objects of their own, with the cmdlet that makes one in memory, and its
// further parameters [P]. A list given as such is the whole list: @{Add=…} on a new emergency policy would start from
// the numbers of Global, and one on a new dial plan from its default rule.
var made = map[string]map[string]any{
	"NormalizationRules": {"$cmdlet": "New-CsVoiceNormalizationRule", "Parent": "Global", "InMemory": true},
	"EmergencyNumbers":   {"$cmdlet": "New-CsTeamsEmergencyNumber"},
}

// parameters returns the parameters of New-Cs… and Set-Cs… for an object.
func parameters(o teamsadmin.Object) (map[string]any, error) {
	all := map[string]any{"Identity": o.Identity}
	for name, v := range o.Settings {
		if name == "Fqdn" && v == o.Identity {
			continue // of a parameter set of its own, which excludes Identity
		}
		more, ok := made[name]
		if !ok {
			all[name] = v
			continue
		}
		var items []map[string]any
		raw, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(raw, &items)
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "TeamsRefused", "%s of %s %q is no list of objects", name, o.Type,
				o.Identity).Because(err)
		}
		for _, item := range items {
			maps.DeleteFunc(item, func(_ string, v any) bool { return v == nil })
			maps.Copy(item, more)
		}
		all[name] = items
	}
	return all, nil
}

// List implements teamsadmin.Admin.
func (a *Admin) List(ctx context.Context, t teamsadmin.Type) (objects []teamsadmin.Object, err error) {
	cmdlet := "Get-Cs" + string(t)
	all, err := run[teamsadmin.Settings](ctx, a, cmdlet, nil, "*")
	for _, s := range all {
		identity, _ := s["Identity"].(string)
		if identity == "" {
			return nil, unreadable(cmdlet, nil)
		}
		delete(s, "Identity")
		delete(s, "Key")
		objects = append(objects, teamsadmin.Object{Type: t, Identity: teamsadmin.Plain(identity), Settings: s})
	}
	return objects, err
}

// Read implements teamsadmin.Admin. It reads the list, whose absence of an object is no matter of error texts.
func (a *Admin) Read(ctx context.Context, t teamsadmin.Type, identity string) (teamsadmin.Object, error) {
	all, err := a.List(ctx, t)
	if err != nil {
		return teamsadmin.Object{}, err
	}
	for _, o := range all {
		if strings.EqualFold(o.Identity, teamsadmin.Plain(identity)) {
			return o, nil
		}
	}
	return teamsadmin.Object{}, fault.New(fault.NotFound, "NotFound", "%s %q does not exist, or is not visible yet", t,
		identity)
}

// Create implements teamsadmin.Admin. A new emergency policy is read back: if it has other numbers than the given ones,
// the code is teamsadmin.CodeForeignNumbers.
func (a *Admin) Create(ctx context.Context, o teamsadmin.Object) error {
	p, err := parameters(o)
	if err == nil {
		_, err = run[any](ctx, a, "New-Cs"+string(o.Type), p)
	}
	if err != nil || o.Type != teamsadmin.EmergencyPolicy {
		return err
	}
	is, err := a.Read(ctx, o.Type, o.Identity)
	if fault.Is(err, fault.NotFound) {
		return nil // not visible yet; the caller reads it back as well
	} else if err != nil {
		return unknown("New-Cs"+string(o.Type), err)
	}
	wanted, _ := p["EmergencyNumbers"].([]map[string]any)
	got, _ := is.Settings["EmergencyNumbers"].([]any)
	for _, v := range got {
		number, _ := v.(map[string]any)
		if !slices.ContainsFunc(wanted, func(w map[string]any) bool {
			return w["EmergencyDialString"] == number["EmergencyDialString"]
		}) {
			return fault.New(fault.Conflict, CodeForeignNumbers, "the emergency policy %q was made without the number "+
				"%v and has it, as the Global policy may; correct it before it is granted", o.Identity,
				number["EmergencyDialString"])
		}
	}
	return nil
}

// CodeForeignNumbers is the code of the fault when a new emergency policy has numbers of the Global one.
const CodeForeignNumbers = "ForeignEmergencyNumbers"

// Change implements teamsadmin.Admin.
func (a *Admin) Change(ctx context.Context, o teamsadmin.Object) error {
	p, err := parameters(o)
	if err == nil {
		err = teamsadmin.NotGlobal(o.Type, o.Identity)
	}
	if err == nil {
		_, err = run[any](ctx, a, "Set-Cs"+string(o.Type), p)
	}
	return err
}

// Delete implements teamsadmin.Admin.
func (a *Admin) Delete(ctx context.Context, t teamsadmin.Type, identity string) error {
	if err := teamsadmin.NotGlobal(t, identity); err != nil {
		return err
	}
	_, err := run[any](ctx, a, "Remove-Cs"+string(t), map[string]any{"Identity": identity})
	return err
}

// Usages implements teamsadmin.Admin.
func (a *Admin) Usages(ctx context.Context) ([]string, error) {
	const cmdlet = "Get-CsOnlinePstnUsage"
	all, err := run[struct{ Usage []string }](ctx, a, cmdlet, nil, "Usage")
	if err == nil && len(all) != 1 {
		err = unreadable(cmdlet, nil)
	}
	if err != nil {
		return nil, err
	}
	return all[0].Usage, nil
}

// AddUsages implements teamsadmin.Admin.
func (a *Admin) AddUsages(ctx context.Context, usages ...string) error {
	return teamsadmin.ChangeUsages(ctx, teamsadmin.Add, usages, a.Usages, a.changeUsages)
}

// RemoveUsages implements teamsadmin.Admin.
func (a *Admin) RemoveUsages(ctx context.Context, usages ...string) error {
	return teamsadmin.ChangeUsages(ctx, teamsadmin.Remove, usages, a.Usages, a.changeUsages)
}

func (a *Admin) changeUsages(ctx context.Context, how string, usages []string) error {
	_, err := run[any](ctx, a, "Set-CsOnlinePstnUsage", map[string]any{"Identity": "Global",
		"Usage": map[string][]string{how: usages}})
	return err
}

// Grant implements teamsadmin.Admin.
func (a *Admin) Grant(ctx context.Context, user string, t teamsadmin.Type, policy string) error {
	p := map[string]any{"Identity": user, "PolicyName": nil}
	if policy != "" {
		p["PolicyName"] = policy
	}
	_, err := run[any](ctx, a, "Grant-Cs"+string(t), p)
	return err
}

// GroupGrants implements teamsadmin.Admin.
func (a *Admin) GroupGrants(ctx context.Context) ([]teamsadmin.GroupGrant, error) {
	return run[teamsadmin.GroupGrant](ctx, a, "Get-CsGroupPolicyAssignment", nil, "GroupId", "PolicyType", "PolicyName")
}

// AssignNumber implements teamsadmin.Admin.
func (a *Admin) AssignNumber(ctx context.Context, user, number string) error {
	return a.setNumber(ctx, "Set-CsPhoneNumberAssignment", user, number)
}

// UnassignNumber implements teamsadmin.Admin.
func (a *Admin) UnassignNumber(ctx context.Context, user, number string) error {
	return a.setNumber(ctx, "Remove-CsPhoneNumberAssignment", user, number)
}

// setNumber runs a cmdlet on a number of a user. Since June 2026 the pages name the parameters TelephoneNumber and
// NumberType, with the names here as aliases; older modules have only these [P].
func (a *Admin) setNumber(ctx context.Context, cmdlet, user, number string) error {
	_, err := run[any](ctx, a, cmdlet, map[string]any{"Identity": user, "PhoneNumber": number,
		"PhoneNumberType": "DirectRouting"})
	return err
}

// Numbers implements teamsadmin.Admin. Values are written like DirectRouting and OnPremises.
func (a *Admin) Numbers(ctx context.Context, by teamsadmin.NumberFilter, value string) (all []teamsadmin.Number,
	err error) {
	found, err := run[struct {
		TelephoneNumber, NumberType, NumberSource, PstnAssignmentStatus, AssignedPstnTargetID string
	}](ctx, a, "Get-CsPhoneNumberAssignment", map[string]any{string(by): value}, "TelephoneNumber", "NumberType",
		"NumberSource", "PstnAssignmentStatus", "AssignedPstnTargetId")
	lower := func(s string) string { return strings.ToLower(s[:min(1, len(s))]) + s[min(1, len(s)):] }
	for _, n := range found {
		if n.TelephoneNumber == "" {
			return nil, unreadable("Get-CsPhoneNumberAssignment", nil)
		}
		all = append(all, teamsadmin.Number{Number: n.TelephoneNumber, Type: lower(n.NumberType),
			Source: lower(n.NumberSource), Status: lower(n.PstnAssignmentStatus), Target: n.AssignedPstnTargetID})
	}
	return all, err
}

// SIPDomains implements teamsadmin.Admin.
func (a *Admin) SIPDomains(ctx context.Context) (names []string, err error) {
	all, err := run[struct{ Name, Status string }](ctx, a, "Get-CsOnlineSipDomain", nil, "Name", "Status")
	for _, d := range all {
		if d.Name == "" {
			return nil, unreadable("Get-CsOnlineSipDomain", nil)
		}
		if !strings.EqualFold(d.Status, "Disabled") {
			names = append(names, d.Name)
		}
	}
	return names, err
}

// Users implements teamsadmin.Admin.
func (a *Admin) Users(ctx context.Context) (users []teamsadmin.User, err error) {
	all, err := run[struct {
		Identity, UserPrincipalName string
		EffectivePolicyAssignments  []teamsadmin.EffectivePolicy
	}](ctx, a, "Get-CsOnlineUser", nil, "Identity", "UserPrincipalName", "EffectivePolicyAssignments")
	for _, u := range all {
		users = append(users, teamsadmin.User{ID: u.Identity, UserPrincipalName: u.UserPrincipalName,
			Policies: u.EffectivePolicyAssignments})
	}
	return users, err
}

// CreateResourceAccount implements teamsadmin.Admin.
func (a *Admin) CreateResourceAccount(ctx context.Context, userPrincipalName, displayName, applicationID string) error {
	_, err := run[any](ctx, a, "New-CsOnlineApplicationInstance", map[string]any{"UserPrincipalName": userPrincipalName,
		"DisplayName": displayName, "ApplicationId": applicationID})
	return err
}
