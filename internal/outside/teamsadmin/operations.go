package teamsadmin

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

const maxPages = 1000

// list reads an array: the answer itself or, if member is not empty, that member of it, with the pages that follow. An
// answer without the array, and 404, mean that the service has changed.
func list[T any](ctx context.Context, c *Client, path, member string) (all []T, err error) {
	next := path
	for range maxPages {
		var answer json.RawMessage
		err := c.call(ctx, http.MethodGet, next, nil, &answer)
		if fault.Is(err, fault.NotFound) {
			return nil, c.api.Unreadable(path, "404", err)
		} else if err != nil {
			return nil, err
		}
		var envelope map[string]json.RawMessage
		var token string
		if member != "" {
			_ = json.Unmarshal(answer, &envelope) // without an envelope there is no array
			_ = json.Unmarshal(envelope["skipToken"], &token)
			answer = envelope[member]
		}

		var page []T
		if err := json.Unmarshal(answer, &page); err != nil || page == nil {
			return nil, c.api.Unreadable(path, "no list", err)
		}
		if all = append(all, page...); token == "" {
			return all, nil
		}
		next = path + "?skipToken=" + url.QueryEscape(token)
	}
	return nil, c.api.Unreadable(path, "no last page", nil)
}

// stored is an object as the service has it.
type stored map[string]any

func (s stored) identity() string { id, _ := s["Identity"].(string); return id }

func (s stored) object(t Type) Object {
	settings := Settings(maps.Clone(s))
	delete(settings, "Identity")
	delete(settings, "Key")
	return Object{t, Plain(s.identity()), settings}
}

// path returns where the objects of a type are.
func (t Type) path() string { return "/Skype.Policy/configurations/" + url.PathEscape(string(t)) }

func (s stored) path(t Type) string {
	return t.path() + "/configuration/" + url.PathEscape(s.identity())
}

// read returns all objects of a type.
func (c *Client) read(ctx context.Context, t Type) ([]stored, error) {
	all, err := list[stored](ctx, c, t.path(), "")
	if slices.ContainsFunc(all, func(s stored) bool { return s.identity() == "" }) {
		return nil, c.api.Unreadable(t.path(), "an object without Identity", nil)
	}
	return all, err
}

// find returns one object. It reads the list, as the module does: 404 does not tell a missing object from a service
// that has changed.
func (c *Client) find(ctx context.Context, t Type, identity string) (stored, error) {
	all, err := c.read(ctx, t)
	for _, s := range all {
		if strings.EqualFold(Plain(s.identity()), Plain(identity)) {
			return s, nil
		}
	}
	return nil, cmp.Or(err, error(fault.New(fault.NotFound, "NotFound", "%s %q does not exist, or is not visible yet",
		t, identity)))
}

// List implements Admin.
func (c *Client) List(ctx context.Context, t Type) (objects []Object, err error) {
	all, err := c.read(ctx, t)
	for _, s := range all {
		objects = append(objects, s.object(t))
	}
	return objects, err
}

// Read implements Admin.
func (c *Client) Read(ctx context.Context, t Type, identity string) (Object, error) {
	s, err := c.find(ctx, t, identity)
	if err != nil {
		return Object{}, err
	}
	return s.object(t), nil
}

// Create implements Admin.
func (c *Client) Create(ctx context.Context, o Object) error {
	body := Settings{"Identity": o.Identity}
	maps.Copy(body, o.Settings)
	return c.call(ctx, http.MethodPost, o.Type.path(), body, nil)
}

// Change implements Admin.
func (c *Client) Change(ctx context.Context, o Object) error {
	s, err := c.own(ctx, o.Type, o.Identity)
	if err != nil {
		return err
	}
	return c.put(ctx, o.Type, s, o.Settings)
}

// Delete implements Admin.
func (c *Client) Delete(ctx context.Context, t Type, identity string) error {
	s, err := c.own(ctx, t, identity)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodDelete, s.path(t), nil, nil)
}

// own finds an object that may be changed or deleted.
func (c *Client) own(ctx context.Context, t Type, identity string) (stored, error) {
	if err := NotGlobal(t, identity); err != nil {
		return nil, err
	}
	return c.find(ctx, t, identity)
}

// NotGlobal returns a fault if identity is that of the Global object of a type.
func NotGlobal(t Type, identity string) error {
	if strings.EqualFold(Plain(identity), "Global") {
		return fault.New(fault.Invalid, "GlobalObject", "%s Global applies to the whole tenant and is not changed", t)
	}
	return nil
}

// put changes settings of an object. Its key goes back with them, if it has one.
func (c *Client) put(ctx context.Context, t Type, s stored, settings Settings) error {
	body := Settings{}
	maps.Copy(body, settings)
	if s["Key"] != nil {
		body["Key"] = s["Key"]
	}
	return c.call(ctx, http.MethodPut, s.path(t), body, nil)
}

const pstnUsages Type = "OnlinePstnUsages"

// Usages implements Admin.
func (c *Client) Usages(ctx context.Context) ([]string, error) {
	_, usages, err := c.usages(ctx)
	return usages, err
}

func (c *Client) usages(ctx context.Context) (s stored, usages []string, err error) {
	if s, err = c.find(ctx, pstnUsages, "Global"); err != nil {
		return nil, nil, err
	}
	v, ok := s["Usage"]
	l, isList := v.([]any)
	ok = ok && (isList || v == nil) // a tenant without usages may have null
	for _, v := range l {
		u, isText := v.(string)
		usages, ok = append(usages, u), ok && isText
	}
	if !ok {
		return nil, nil, c.api.Unreadable(pstnUsages.path(), "Usage is no list of texts", nil)
	}
	return s, usages, nil
}

// AddUsages implements Admin.
func (c *Client) AddUsages(ctx context.Context, usages ...string) error {
	return ChangeUsages(ctx, Add, usages, c.Usages, c.modify)
}

// RemoveUsages implements Admin.
func (c *Client) RemoveUsages(ctx context.Context, usages ...string) error {
	return ChangeUsages(ctx, Remove, usages, c.Usages, c.modify)
}

// modify changes the list of usages by a modifier, as @{Add=…} does in the cmdlets. Its form in this service was not
// found [I]; ChangeUsages notices if it is ignored, or understood as the new list.
func (c *Client) modify(ctx context.Context, how string, items []string) error {
	s, _, err := c.usages(ctx)
	if err != nil {
		return err
	}
	return c.put(ctx, pstnUsages, s, Settings{"Usage": map[string][]string{how: items}})
}

// Grant implements Admin. The route is that of the module's own grant of 2026: the type in the path, the name alone in
// the body. It was read in the code of others, who report to have tried it [C]; an older reading had PUT …/users/{user}
// with both in the body. null removes [I].
func (c *Client) Grant(ctx context.Context, user string, t Type, policy string) error {
	body := map[string]any{"PolicyName": nil}
	if policy != "" {
		body["PolicyName"] = policy
	}
	return c.call(ctx, http.MethodPatch, "/Skype.Policy/users/"+url.PathEscape(user)+"/policies/"+
		url.PathEscape(string(t)), body, nil)
}

// GroupGrants implements Admin. That the path can be read is assumed [I].
func (c *Client) GroupGrants(ctx context.Context) ([]GroupGrant, error) {
	return list[GroupGrant](ctx, c, "/Skype.Policy/groupPolicyAssignments", "")
}

// noNumbers returns the fault of methods for numbers. Of the routes for them, only reads were found [C].
func noNumbers() error {
	return fault.New(fault.Forbidden, CodeNoNumbers, "Microsoft Graph does not let Tandem set telephone numbers in "+
		"this tenant, and the HTTPS service has no documented route to assign them: authorise the app again, so that "+
		"it has TeamsTelephoneNumber.ReadWrite.All, or set onboarding.teams to powershell")
}

// AssignNumber implements Admin: it cannot.
func (c *Client) AssignNumber(context.Context, string, string) error { return noNumbers() }

// UnassignNumber implements Admin: it cannot.
func (c *Client) UnassignNumber(context.Context, string, string) error { return noNumbers() }

// Numbers implements Admin: it cannot.
func (c *Client) Numbers(context.Context, NumberFilter, string) ([]Number, error) {
	return nil, noNumbers()
}

// SIPDomains implements Admin. The members of the answer are those of Get-CsOnlineSipDomain [I].
func (c *Client) SIPDomains(ctx context.Context) (names []string, err error) {
	const path = "/Teams.Tenant/VerifiedSipDomains"
	all, err := list[struct{ Name, Status string }](ctx, c, path, "")
	for _, d := range all {
		if d.Name == "" {
			return nil, c.api.Unreadable(path, "a domain without Name", nil)
		}
		if !strings.EqualFold(d.Status, "Disabled") {
			names = append(names, d.Name)
		}
	}
	return names, err
}

// Users implements Admin.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	return list[User](ctx, c, "/Teams.User/users", "users")
}

// CreateResourceAccount implements Admin. The members of the body are the parameters of
// New-CsOnlineApplicationInstance [I].
func (c *Client) CreateResourceAccount(ctx context.Context, userPrincipalName, displayName,
	applicationID string) error {
	return c.call(ctx, http.MethodPost, "/Teams.PlatformService/v2/ApplicationInstances", map[string]string{
		"UserPrincipalName": userPrincipalName, "DisplayName": displayName, "ApplicationId": applicationID}, nil)
}
