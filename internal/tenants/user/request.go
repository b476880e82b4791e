package user

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// MaxItems is how many users a request activates or deactivates at most.
const MaxItems = 1000

// Inventory has the numbers of accounts.
type Inventory interface {
	// Unusable returns, of these numbers, those that users of the account cannot have, each with the reason: it is not
	// the account's, or it is not enabled for Direct Routing.
	Unusable(ctx context.Context, account string, numbers []domain.E164) (map[domain.E164]string, error)
	// Usable returns up to limit numbers of the account after one that its users can have, in order.
	Usable(ctx context.Context, account string, after domain.E164, limit int) ([]domain.E164, error)
}

// Service does what callers ask for. Its methods are safe for concurrent use.
type Service struct {
	Store     Store
	Clouds    Clouds
	Inventory Inventory
	Log       *slog.Logger // may be nil
}

// Item is one user of a request, by id or user principal name.
type Item struct{ User, Number, CallerID string }

// Request asks to activate users, either named or selected.
type Request struct {
	Items []Item
	// Rule selects users that are inactive, for activation, or activated, for the opposite.
	Rule *onboard.Selection
	// NextNumber gives those without a number the next free ones of the account.
	NextNumber    bool
	OverrideGroup bool // see Activation
	DryRun        bool // change nothing
}

// Outcome is what became of one user of a request.
type Outcome struct {
	User, ID, Number string
	Code, Refused    string // why it was not accepted; empty if it was
}

// candidate is an item on its way through the checks.
type candidate struct {
	Item
	Outcome
	user *User
}

func (c *candidate) refuse(code, format string, args ...any) {
	if c.Code == "" {
		c.Code, c.Refused = code, fmt.Sprintf(format, args...)
	}
}

// Activate asks to activate users. Each is accepted or refused on its own; those accepted are being activated when it
// returns. more is set if the rule selects further users, which another request has.
func (s *Service) Activate(ctx context.Context, account string, r Request) (result []Outcome, more bool, err error) {
	began := time.Now()
	var tenant *onboard.Tenant
	var all []*candidate
	err = s.Store.View(ctx, account, func(ctx context.Context, tx Tx) (err error) {
		if tenant, err = onboarded(ctx, tx); err == nil {
			all, more, err = candidates(ctx, tx, r.Items, r.Rule, Inactive)
		}
		return err
	})
	if err != nil {
		return nil, false, err
	}
	cloud, err := s.Clouds(ctx, tenant)
	if err != nil {
		return nil, false, err
	}

	if err := s.checkNumbers(ctx, account, cloud, all); err != nil {
		return nil, false, err
	}
	if r.NextNumber {
		if err := s.nextNumbers(ctx, account, cloud, all); err != nil {
			return nil, false, err
		}
	}

	run := s.Store.View
	if !r.DryRun {
		run = func(ctx context.Context, account string, fn func(context.Context, Tx) error) error {
			return s.Store.Update(ctx, nil, account, "", fn)
		}
	}
	var accepted []*candidate
	err = run(ctx, account, func(ctx context.Context, tx Tx) error {
		accepted = copies(all)
		if _, err := onboarded(ctx, tx); err != nil { // its lock keeps requests from taking the same numbers
			return err
		}
		for _, c := range accepted {
			if err := activate(ctx, tx, tenant, c, r); err != nil {
				return err
			}
		}
		return nil
	})
	result = outcomes(accepted)
	if err == nil && !r.DryRun {
		s.log("users are to be activated", account, result, began)
	}
	return result, more, err
}

// log logs what became of a request.
func (s *Service) log(what, account string, all []Outcome, began time.Time) {
	refused := 0
	for _, o := range all {
		if o.Code != "" {
			refused++
		}
	}
	cmp.Or(s.Log, slog.New(slog.DiscardHandler)).Info(what, "account", account, "accepted", len(all)-refused, "refused",
		refused, "took", time.Since(began).Round(time.Millisecond))
}

// onboarded returns the tenant, or why its users cannot be activated.
func onboarded(ctx context.Context, tx Tx) (*onboard.Tenant, error) {
	t, err := tx.Tenant(ctx)
	switch {
	case err != nil:
		return nil, err
	case t.Account == onboard.Carrier:
		return nil, fault.New(fault.Conflict, "TenantOfOperator",
			"users of the operator's own tenant are not activated")
	case t.Purpose == "":
		return nil, fault.New(fault.Conflict, "TenantNotOnboarded", "tenant %s is not onboarded; make and apply a "+
			"plan first", t.Account)
	case t.Purpose == onboard.Leave:
		return nil, fault.New(fault.Conflict, "TenantLeaves", "tenant %s is being left, or was; onboard it again first",
			t.Account)
	}
	return t, nil
}

func copies(all []*candidate) []*candidate {
	list := make([]*candidate, len(all))
	for i, c := range all {
		list[i] = new(*c)
	}
	return list
}

func outcomes(all []*candidate) []Outcome {
	list := make([]Outcome, len(all))
	for i, c := range all {
		list[i] = c.Outcome
	}
	return list
}

// candidates returns the users that a request names or selects, at most MaxItems.
func candidates(ctx context.Context, tx Tx, items []Item, rule *onboard.Selection,
	states ...State) (all []*candidate, more bool, err error) {
	for _, item := range items {
		c := &candidate{Item: item}
		c.user, err = tx.User(ctx, item.User)
		if fault.Is(err, fault.NotFound) {
			c.Outcome.User = item.User
			c.refuse("UserNotFound", "%s", fault.As(err).Message)
		} else if err != nil {
			return nil, false, err
		}
		all = append(all, c)
	}
	if len(all) > MaxItems {
		return nil, false, fault.New(fault.TooLarge, "TooManyUsers", "a request is for up to %d users; divide it",
			MaxItems)
	}

	if rule == nil {
		states = nil
	}
	for _, state := range states {
		found, err := tx.Users(ctx, Filter{State: state, Department: rule.Department, Location: rule.Location,
			Kind: "user"}, Key{}, MaxItems+1-len(all))
		if err != nil {
			return nil, false, err
		}
		for _, u := range found {
			all = append(all, &candidate{Item: Item{User: u.UPN}, user: new(u)})
		}
		if len(all) > MaxItems {
			all, more = all[:MaxItems], true
			break
		}
	}
	for _, c := range all {
		if c.user != nil {
			c.Outcome.User, c.ID = c.user.UPN, c.user.ID
		}
	}
	return all, more, nil
}

// checkNumbers refuses the candidates whose number is not a number of the account, or is not free in the tenant.
func (s *Service) checkNumbers(ctx context.Context, account string, cloud Cloud, all []*candidate) error {
	var bases []domain.E164
	var numbers []string
	seen := map[string]bool{}
	for _, c := range all {
		if c.Item.Number == "" {
			continue
		}
		full, base, err := ParseNumber(c.Item.Number)
		switch {
		case err != nil:
			c.refuse("InvalidNumber", "%v", err)
			continue
		case seen[full]:
			c.refuse("NumberTwice", "the request has the number %s twice", full)
			continue
		}
		seen[full] = true
		c.Outcome.Number, bases, numbers = full, append(bases, base), append(numbers, full)
	}
	if len(numbers) == 0 {
		return nil
	}

	unusable, err := s.Inventory.Unusable(ctx, account, bases)
	if err != nil {
		return err
	}
	held, err := cloud.Held(ctx, numbers)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Outcome.Number == "" {
			continue
		}
		if why, ok := unusable[Base(c.Outcome.Number)]; ok {
			c.refuse("NumberNotInInventory", "%s", why)
		}
		if h, ok := held[c.Outcome.Number]; ok {
			why, err := conflict(ctx, cloud, h, c.ID, account, s.Store)
			if err != nil {
				return err
			}
			if why != "" {
				c.refuse("NumberInUse", "%s", why)
			}
		}
	}
	return nil
}

// nextNumbers gives the candidates without a number the next free ones.
func (s *Service) nextNumbers(ctx context.Context, account string, cloud Cloud, all []*candidate) error {
	used := map[domain.E164]bool{}
	var without []*candidate
	for _, c := range all {
		if c.Outcome.Number != "" {
			used[Base(c.Outcome.Number)] = true
		} else if c.Code == "" && c.Item.Number == "" {
			without = append(without, c)
		}
	}

	const size = 200
	var after domain.E164
	for len(without) > 0 {
		page, err := s.Inventory.Usable(ctx, account, after, size)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1]
		err = s.Store.View(ctx, account, func(ctx context.Context, tx Tx) error {
			held, err := tx.NumbersFrom(ctx, page[0], after)
			for number := range held {
				used[Base(number)] = true
			}
			return err
		})
		if err != nil {
			return err
		}

		free := slices.DeleteFunc(page, func(n domain.E164) bool { return used[n] })
		for len(free) > 0 && len(without) > 0 {
			var ask []string
			for _, n := range free[:min(len(free), len(without))] {
				ask = append(ask, string(n))
			}
			free = free[len(ask):]
			held, err := cloud.Held(ctx, ask)
			if err != nil {
				return err
			}
			for _, n := range ask {
				if h, ok := held[n]; !ok || h.Target == "" && h.Type == "directRouting" {
					without[0].Outcome.Number, without, used[domain.E164(n)] = n, without[1:], true
				}
			}
		}
	}
	return nil
}

// activate makes the last checks of a candidate, on its row, and asks for it if r is no dry run.
func activate(ctx context.Context, tx Tx, t *onboard.Tenant, c *candidate, r Request) error {
	if c.Code != "" {
		return nil
	}
	u, err := tx.User(ctx, c.ID)
	if err != nil {
		return err
	}
	number := c.Outcome.Number
	a := &Activation{plan.Activation{ID: u.ID, Number: number, CallerID: c.CallerID}, r.OverrideGroup}
	switch why := grouped(plan.UserObject(&t.Settings, a.Activation), u, r.OverrideGroup); {
	case number == "" && r.NextNumber:
		c.refuse("NoFreeNumber", "the account has no free number")
	case number == "":
		c.refuse("NoNumber", "name a number, or ask for the next free one")
	case u.State == Unlicensed:
		c.refuse("UserUnlicensed", "unlicensed: %s. Assign a licence with Phone System", u.Missing())
	case u.State == Blocked:
		c.refuse("UserBlocked", "the account may not sign in; enable it first")
	case u.State == Deleted:
		c.refuse("UserDeleted", "the user was deleted on %s; restore it first", u.Deleted.Format(time.DateOnly))
	case why != "":
		c.refuse("PolicyByGroup", "%s", why)
	}
	if c.Code != "" {
		return nil
	}
	held, err := tx.NumbersFrom(ctx, Base(number), Base(number))
	if err != nil {
		return err
	}
	if id, ok := held[number]; ok && id != u.ID {
		holder, err := tx.User(ctx, id)
		if err != nil {
			return err
		}
		c.refuse("NumberInUse", "%s is, or is to be, the number of the user %s", number, cmp.Or(holder.UPN, id))
		return nil
	}
	if r.DryRun {
		return nil
	}

	u.Activation, u.Pending, u.Waiting = a, true, nil
	if err := tx.Ask(ctx, u); err != nil {
		return err
	}
	return tx.Audit(ctx, "tenant.user.activate", t.Account+"/"+u.ID, map[string]any{"user": u.UPN,
		"number": Base(number).Redacted(), "overrideGroup": r.OverrideGroup})
}

// Deactivate asks to put back what users had before their activation. more is as for Activate.
func (s *Service) Deactivate(ctx context.Context, account string, users []string, rule *onboard.Selection,
	dryRun bool) (result []Outcome, more bool, err error) {
	began := time.Now()
	items := make([]Item, len(users))
	for i, u := range users {
		items[i].User = u
	}
	run := s.Store.View
	if !dryRun {
		run = func(ctx context.Context, account string, fn func(context.Context, Tx) error) error {
			return s.Store.Update(ctx, nil, account, "", fn)
		}
	}
	err = run(ctx, account, func(ctx context.Context, tx Tx) error {
		if _, err := tx.Tenant(ctx); err != nil {
			return err
		}
		all, others, err := candidates(ctx, tx, items, rule, Active, Activating)
		if err != nil {
			return err
		}
		more = others
		for _, c := range all {
			switch {
			case c.Code != "":
			case c.user.Activation == nil && !c.user.Pending:
				c.refuse("NotActivated", "Tandem has not activated this user")
			default:
				if c.Outcome.Number = c.user.Voice.Number; dryRun {
					continue
				}
				if err := deactivate(ctx, tx, account, c.user); err != nil {
					return err
				}
			}
		}
		result = outcomes(all)
		return nil
	})
	if err == nil && !dryRun {
		s.log("users are to be deactivated", account, result, began)
	}
	return result, more, err
}

func deactivate(ctx context.Context, tx Tx, account string, u *User) error {
	number := ""
	if u.Activation != nil {
		number = Base(u.Activation.Number).Redacted()
	}
	u.Activation, u.Pending, u.Waiting = nil, true, nil
	if err := tx.Ask(ctx, u); err != nil {
		return err
	}
	return tx.Audit(ctx, "tenant.user.deactivate", account+"/"+u.ID, map[string]any{"user": u.UPN, "number": number})
}

// Refresh reads one user at Microsoft and returns it.
func (s *Service) Refresh(ctx context.Context, account, idOrUPN string) (u *User, err error) {
	var tenant *onboard.Tenant
	id := idOrUPN
	err = s.Store.View(ctx, account, func(ctx context.Context, tx Tx) (err error) {
		if tenant, err = tx.Tenant(ctx); err != nil {
			return err
		}
		if u, err = tx.User(ctx, idOrUPN); err == nil {
			id = u.ID
		} else if fault.Is(err, fault.NotFound) {
			err = nil // a new one, perhaps
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	cloud, err := s.Clouds(ctx, tenant)
	if err != nil {
		return nil, err
	}
	found, err := cloud.Look(ctx, id)
	if err != nil {
		return nil, err
	}
	err = s.Store.Update(ctx, nil, account, "", func(ctx context.Context, tx Tx) (err error) {
		if found == nil {
			if err = tx.Remove(ctx, []string{id}, nil); err == nil {
				u, err = tx.User(ctx, id)
			}
			return err
		}
		u, err = put(ctx, tx, found)
		return err
	})
	return u, err
}

// Sync asks for a pass over the users now; a full one replaces one over the changes that is under way.
func (s *Service) Sync(ctx context.Context, account, mode string) error {
	return s.Store.Update(ctx, nil, account, "", func(ctx context.Context, tx Tx) error {
		t, err := tx.Tenant(ctx)
		if err == nil && !Synchronised(t) {
			err = fault.New(fault.Conflict, "NotSynchronised", "the tenant of %s was left, or is the operator's own: "+
				"its users are not read", account)
		}
		if err != nil {
			return err
		}
		passes, err := tx.Passes(ctx, remembered)
		if err != nil {
			return err
		}
		p := next(passes)
		if p.Mode == Delta {
			if p.Why = "requested"; mode == Full {
				p.Mode, p.UserPage = Full, ""
			}
		}
		if len(passes) > 0 && passes[0].Ended.IsZero() {
			old := &passes[0]
			if old.Mode == Full || mode != Full {
				return tx.Sync(ctx)
			}
			old.Ended, old.Failure = time.Now(), "replaced by a full pass"
			if err := tx.PutPass(ctx, old); err != nil {
				return err
			}
		}
		if err := tx.PutPass(ctx, p); err != nil {
			return err
		}
		if err := tx.Audit(ctx, "tenant.users.sync", account, map[string]any{"mode": p.Mode}); err != nil {
			return err
		}
		return tx.Sync(ctx)
	})
}
