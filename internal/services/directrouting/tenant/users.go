package tenant

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

var _ user.Cloud = (*Cloud)(nil)

const (
	// pageSize is that of lists of users, and of voice configurations, whose largest size is not published [I].
	pageSize = 999
	// batchSize is how many requests Graph takes at once.
	batchSize = 20
	// numberWait is how long an order for a number of a user is waited for: later looks find what came of it.
	numberWait = time.Minute
)

// phonePlans are the service plans with which an account can have a number (teams-tenant §2).
var phonePlans = map[string]string{
	"4828c8ec-dc2e-4779-b502-87ac9ce28ab7": "MCOEV",
	"ed777b71-af04-42ca-9798-84344c66f7c6": "MCOEVSMB",
	"db23fce2-a974-42ef-9002-d78dd42a0f22": "MCOEV_GOV",
	"f47330e9-c134-43b3-9993-e7f004506889": "MCOEV_VIRTUALUSER",
}

func profile(u graph.User) user.Profile {
	p := user.Profile{ID: strings.ToLower(u.ID), UPN: u.UserPrincipalName, Name: u.DisplayName,
		Department: u.Department, Location: u.UsageLocation, Blocked: !u.AccountEnabled,
		Facts: user.Facts{OnPremises: u.OnPremisesSyncEnabled}}
	for _, x := range u.AssignedPlans {
		if name := phonePlans[strings.ToLower(x.ServicePlanID)]; name != "" {
			since := *cmp.Or(x.AssignedDateTime, &time.Time{})
			p.Plans = append(p.Plans, user.Plan{Name: name, Status: x.CapabilityStatus, Since: since})
		}
	}
	return p
}

func voice(c graph.UserConfiguration) user.Voice {
	v := user.Voice{ID: strings.ToLower(c.ID), UPN: c.UserPrincipalName, Kind: c.AccountType,
		Policies: map[string]user.Policy{}}
	for _, n := range c.TelephoneNumbers {
		if n.AssignmentCategory == "primary" {
			v.Number = plus(n.TelephoneNumber)
		}
	}
	for _, p := range c.EffectivePolicyAssignments {
		for field, t := range policies {
			if p.PolicyType != string(t) {
				continue
			}
			x := user.Policy{Name: p.Assignment.DisplayName}
			if p.Assignment.AssignmentType != "direct" {
				x.Group = cmp.Or(p.Assignment.GroupID, p.Assignment.AssignmentType)
			}
			v.Policies[field] = x
		}
	}
	return v
}

// plus writes a number as one and the same: Teams shows some without "+".
func plus(number string) string {
	return "+" + strings.TrimPrefix(strings.TrimPrefix(number, "tel:"), "+")
}

// Profiles implements user.Cloud.
func (c *Cloud) Profiles(ctx context.Context, from string, fn func([]user.Profile, string) error) error {
	return pages(ctx, c.Graph, graph.Users(graph.Query{Select: graph.UserFields, Top: pageSize}), from, profile, fn)
}

// Voices implements user.Cloud.
func (c *Cloud) Voices(ctx context.Context, from string, fn func([]user.Voice, string) error) error {
	return pages(ctx, c.Graph, graph.UserConfigurations(graph.Query{Top: pageSize}), from, voice, fn)
}

// pages calls fn with the pages of a list.
func pages[A, B any](ctx context.Context, g *graph.Client, l graph.List[A], from string, convert func(A) B,
	fn func([]B, string) error) error {
	for page, err := range l.Pages(ctx, g, from) {
		if err != nil {
			return err
		}
		items := make([]B, len(page.Items))
		for i, x := range page.Items {
			items[i] = convert(x)
		}
		if err := fn(items, page.Next); err != nil {
			return err
		}
	}
	return nil
}

// Changes implements user.Cloud. The feed has nothing of Teams, so the voice configurations are read beside it.
func (c *Cloud) Changes(ctx context.Context, from string, fn func([]user.Change, string, string) error) error {
	for page, err := range graph.UserChanges(graph.UserFields...).Pages(ctx, c.Graph, from) {
		if err != nil {
			return err
		}
		changes := make([]user.Change, len(page.Items))
		var live []*user.Change
		for i, u := range page.Items {
			changes[i].Profile = profile(u)
			switch {
			case u.Removed == nil:
				live = append(live, &changes[i])
			case u.Removed.Reason == "deleted":
				changes[i].Gone = true
			default:
				changes[i].Binned = true
			}
		}
		if err := c.addVoices(ctx, live); err != nil {
			return err
		}
		if err := fn(changes, page.Next, page.Delta); err != nil {
			return err
		}
	}
	return nil
}

// addVoices reads the voice configurations of users, some batches at the same time.
func (c *Cloud) addVoices(ctx context.Context, changes []*user.Change) error {
	var sending sync.WaitGroup
	free := make(chan struct{}, 4)
	errs := make([]error, (len(changes)+batchSize-1)/batchSize)
	for i := range errs {
		free <- struct{}{}
		sending.Go(func() {
			defer func() { <-free }()
			errs[i] = c.addBatch(ctx, changes[i*batchSize:min(len(changes), (i+1)*batchSize)])
		})
	}
	sending.Wait()
	return errors.Join(errs...)
}

func (c *Cloud) addBatch(ctx context.Context, changes []*user.Change) error {
	calls := make([]*graph.Call[graph.UserConfiguration], len(changes))
	for i, x := range changes {
		calls[i] = graph.GetUserConfiguration(x.Profile.ID)
	}
	if err := batch(ctx, c.Graph, calls); err != nil {
		return err
	}
	for i, call := range calls {
		if call.Err() == nil {
			changes[i].Voice = new(voice(call.Value))
		}
	}
	return nil
}

// batch sends calls together. That something does not exist is not its error.
func batch[T any](ctx context.Context, g *graph.Client, calls []*graph.Call[T]) error {
	parts := make([]graph.Part, len(calls))
	for i, call := range calls {
		parts[i] = call
	}
	if err := g.Batch(ctx, parts...); err != nil {
		return err
	}
	for _, call := range calls {
		if err := call.Err(); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	return nil
}

// Latest implements user.Cloud.
func (c *Cloud) Latest(ctx context.Context) (link string, err error) {
	for page, err := range graph.LatestUserChanges(graph.UserFields...).Pages(ctx, c.Graph, "") {
		if err != nil {
			return "", err
		}
		link = page.Delta
	}
	if link == "" {
		err = fault.New(fault.Unavailable, graph.CodeUnreadable, "Microsoft Graph gives no link to changes of users")
	}
	return link, err
}

// Sized implements user.Cloud.
func (c *Cloud) Sized(users int) { c.Graph.SetUsers(users) }

// Look implements user.Cloud. A user principal name takes two requests, an id one.
func (c *Cloud) Look(ctx context.Context, id string) (*user.Change, error) {
	u := graph.GetUser(id, graph.UserFields...)
	config := graph.GetUserConfiguration(id)
	if strings.Contains(id, "@") {
		found, err := u.Do(ctx, c.Graph)
		if err != nil {
			return nil, notFound(err)
		}
		config = graph.GetUserConfiguration(found.ID)
		_, _ = config.Do(ctx, c.Graph) // see Err
	} else if err := c.Graph.Batch(ctx, u, config); err != nil {
		return nil, err
	}
	if err := u.Err(); err != nil {
		return nil, notFound(err)
	}

	found := &user.Change{Profile: profile(u.Value)}
	switch err := config.Err(); {
	case err == nil:
		found.Voice = new(voice(config.Value))
	case !fault.Is(err, fault.NotFound):
		return nil, err
	}
	return found, nil
}

func notFound(err error) error {
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// Binned implements user.Cloud.
func (c *Cloud) Binned(ctx context.Context, id string) (name string, since time.Time, ok bool, err error) {
	o, err := graph.GetDeleted(id).Do(ctx, c.Graph)
	if err != nil {
		return "", time.Time{}, false, notFound(err)
	}
	return cmp.Or(o.UserPrincipalName, o.DisplayName), *cmp.Or(o.DeletedDateTime, &time.Time{}), true, nil
}

// Held implements user.Cloud.
func (c *Cloud) Held(ctx context.Context, numbers []string) (map[string]user.Holding, error) {
	held := map[string]user.Holding{}
	numbers = slices.DeleteFunc(slices.Clone(numbers), func(n string) bool { return n == "" })
	for chunk := range slices.Chunk(numbers, batchSize) {
		calls := make([]*graph.Call[[]graph.NumberAssignment], len(chunk))
		for i, n := range chunk {
			calls[i] = graph.FindNumber(n)
		}
		err := batch(ctx, c.Graph, calls)
		if i := slices.IndexFunc(calls, func(call *graph.Call[[]graph.NumberAssignment]) bool {
			return unusable(call.Err())
		}); i >= 0 {
			err = c.heldByTeams(ctx, chunk, held, calls[i].Err())
		}
		if err != nil {
			return nil, err
		}
		for i, call := range calls {
			for _, a := range call.Value {
				held[chunk[i]] = user.Holding{Number: chunk[i], Type: a.NumberType, Source: a.NumberSource,
					Status: a.AssignmentStatus, Target: strings.ToLower(a.AssignmentTargetID)}
			}
		}
	}
	return held, nil
}

// heldByTeams is Held for numbers that Graph refused to read.
func (c *Cloud) heldByTeams(ctx context.Context, numbers []string, held map[string]user.Holding, refusal error) error {
	if c.Teams == nil {
		return refusal
	}
	for _, number := range numbers {
		found, err := c.Teams.Numbers(ctx, teamsadmin.ByNumber, number)
		if err != nil {
			return because(err, refusal)
		}
		for _, n := range found {
			h := user.Holding(n)
			h.Number, h.Target = number, strings.ToLower(n.Target)
			held[number] = h
		}
	}
	return nil
}

// unusable reports whether Graph refused a request because its API of numbers is not granted, or not there in the
// tenant's cloud. Which answer such a cloud gives is not documented; for other APIs it is 400 with this text [K].
func unusable(err error) bool {
	e, ok := errors.AsType[*graph.Error](err)
	return ok && (e.Status == http.StatusForbidden || e.Status == http.StatusNotFound ||
		e.Status == http.StatusNotImplemented || strings.HasPrefix(e.Message, "Resource not found for the segment"))
}

// because returns the error of the Teams service. If it cannot do numbers, the cause is why Graph could not.
func because(err, refusal error) error {
	if fault.HasCode(err, teamsadmin.CodeNoNumbers) {
		return fault.As(err).Because(refusal)
	}
	return err
}

// SetVoice implements user.Cloud.
func (c *Cloud) SetVoice(ctx context.Context, s plan.Step) (string, error) {
	for _, d := range s.Differences {
		if d.Field != "number" {
			continue
		}
		old, _ := d.Old.(string)
		number, _ := d.New.(string)
		detail, err := c.setNumber(ctx, s.Name, old, number, numberWait)
		if detail == "" && err == nil {
			continue
		}
		now, err2 := graph.GetUserConfiguration(s.Name).Do(ctx, c.Graph) // whatever was said: what is there decides
		if err2 != nil {
			return detail, cmp.Or(err, notFound(err2))
		}
		if voice(now).Number != number {
			return detail, err
		}
	}
	return "", c.grant(ctx, s)
}

// setNumber gives a user a number as the primary one or, if number is empty, takes the old one: by Graph or, where its
// API of numbers is not usable, by the Teams service. detail is what Microsoft says of a number that failed.
func (c *Cloud) setNumber(ctx context.Context, user, old, number string, most time.Duration) (detail string,
	err error) {
	call, set := graph.AssignNumber(number, user), teamsadmin.Admin.AssignNumber
	if number == "" {
		call, set = graph.UnassignNumber(old), teamsadmin.Admin.UnassignNumber
	}
	detail, refusal := c.order(ctx, call, most)
	if c.Teams == nil || !unusable(refusal) {
		return detail, refusal
	}

	changed := cmp.Or(number, old)
	err = set(c.Teams, ctx, user, changed)
	if err == nil || fault.HasCode(err, teamsadmin.CodeNoNumbers) {
		return "", because(err, refusal)
	}
	// Whatever was said, or if nothing was: what is there decides.
	held, err2 := c.Teams.Numbers(ctx, teamsadmin.ByHolder, user)
	has := slices.ContainsFunc(held, func(n teamsadmin.Number) bool { return plus(n.Number) == plus(changed) })
	if err2 == nil && has == (number != "") {
		err = nil
	}
	return "", err
}

// order begins an operation on a number and waits until it has ended, but no longer than most. It returns what
// Microsoft says of one that failed.
func (c *Cloud) order(ctx context.Context, call *graph.Call[graph.OperationID], most time.Duration) (detail string,
	err error) {
	id, err := call.Do(ctx, c.Graph)
	if err != nil {
		return "", err
	}
	began := time.Now()
	for every := 250 * time.Millisecond; time.Since(began) < most; every = min(2*every, 10*time.Second) {
		o, err := graph.GetOperation(id).Do(ctx, c.Graph)
		if err != nil {
			return "", err
		}
		if !o.Waiting() {
			return refusal(o), nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(every):
		}
	}
	return "", nil
}

// refusal returns why an operation failed, or one of its numbers did; "" if all succeeded.
func refusal(o graph.Operation) string {
	texts := []string{}
	for _, n := range o.Numbers {
		if n.StatusDetail != "" {
			texts = append(texts, n.StatusDetail)
		}
	}
	if o.Status == "succeeded" && len(texts) == 0 {
		return ""
	}
	return strings.Join(texts, " ") + " [" + o.Status + ", operation " + o.ID + "]"
}

// grant gives and takes the policies of a step: by Graph, and by the Teams service those that Graph refuses, because
// which types it accepts is not documented.
func (c *Cloud) grant(ctx context.Context, s plan.Step) error {
	type change struct {
		field, name string
		id          *graph.Call[string]
		set         *graph.Call[graph.None]
	}
	var changes []*change
	var ids []*graph.Call[string]
	for _, d := range s.Differences {
		t, ok := policies[d.Field]
		if !ok {
			continue
		}
		x := &change{field: d.Field}
		if x.name, _ = d.New.(string); x.name != "" {
			x.id = graph.GetPolicyID(string(t), x.name)
			ids = append(ids, x.id)
		}
		changes = append(changes, x)
	}
	if len(changes) == 0 {
		return nil
	}
	if len(ids) > 0 {
		parts := make([]graph.Part, len(ids))
		for i, call := range ids {
			parts[i] = call
		}
		if err := c.Graph.Batch(ctx, parts...); err != nil {
			return err
		}
	}

	var sets []graph.Part
	for _, x := range changes {
		a := graph.PolicyAssignment{UserID: s.Name, PolicyType: string(policies[x.field])}
		switch {
		case x.name == "":
			x.set = graph.UnassignPolicies(a)
		case x.id.Err() == nil && x.id.Value != "":
			a.PolicyID = x.id.Value
			x.set = graph.AssignPolicies(a)
		case refused(x.id.Err()) || x.id.Err() == nil:
			continue // by the Teams service
		default:
			return x.id.Err()
		}
		sets = append(sets, x.set)
	}
	if len(sets) > 0 {
		if err := c.Graph.Batch(ctx, sets...); err != nil {
			return err
		}
	}

	for _, x := range changes {
		var err error
		if x.set != nil {
			if err = x.set.Err(); err == nil {
				continue
			}
		}
		if err != nil && (!refused(err) || c.Teams == nil) {
			return err
		}
		if c.Teams == nil {
			return fault.New(fault.Conflict, "PolicyUnknown", "Microsoft Graph does not know the policy %s, and no "+
				"other way to Teams is usable: sign in for the integration", x.name)
		}
		if err := c.Teams.Grant(ctx, s.Name, policies[x.field], x.name); err != nil {
			return err
		}
	}
	return nil
}

// refused reports whether Graph refused a change for good.
func refused(err error) bool {
	return fault.Is(err, fault.Invalid) || fault.Is(err, fault.NotFound) || fault.Is(err, fault.Forbidden)
}
