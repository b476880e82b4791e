package tenant

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/tenants/licence"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// activationFields are what is read of an activation user.
var activationFields = []string{"id", "userPrincipalName", "displayName", "accountEnabled", "usageLocation",
	"assignedLicenses", "assignedPlans", "licenseAssignmentStates"}

// applicationID is the application of resource accounts in the place of activation users: Microsoft's auto attendants
// [K].
const applicationID = "ce933385-9390-45d1-9512-c8d228074e07"

func (c *Cloud) activationUser(ctx context.Context, upn string) (plan.Fields, error) {
	u, err := graph.GetUser(upn, activationFields...).Do(ctx, c.Graph)
	if err != nil {
		return nil, err
	}
	skus, err := c.skus(ctx)
	if err != nil {
		return nil, err
	}

	_, domain, _ := strings.Cut(upn, "@")
	f := plan.Fields{"domain": domain, "displayName": u.DisplayName, "enabled": u.AccountEnabled, "licence": ""}
	if held := activating(u, skus); len(held) > 0 {
		f["licence"] = held[0].Plans[0]
	}
	return f, nil
}

func (c *Cloud) skus(ctx context.Context) ([]licence.SKU, error) {
	list, err := graph.SubscribedSKUs().All(ctx, c.Graph)
	skus := make([]licence.SKU, len(list))
	for i, s := range list {
		p := s.PrepaidUnits
		skus[i] = licence.SKU{ID: s.SkuID, Name: s.SkuPartNumber, AppliesTo: s.AppliesTo, Enabled: p.Enabled,
			Warning: p.Warning, Suspended: p.Suspended, LockedOut: p.LockedOut, Consumed: s.ConsumedUnits}
		for _, x := range s.ServicePlans {
			skus[i].Plans = append(skus[i].Plans, licence.Plan{ID: x.ServicePlanID, Name: x.ServicePlanName,
				AppliesTo: x.AppliesTo})
		}
	}
	return skus, err
}

// failed reports whether a licence that a user has did not take effect.
func failed(u graph.User, sku string) bool {
	return slices.ContainsFunc(u.LicenseAssignmentStates, func(s graph.LicenceState) bool {
		return strings.EqualFold(s.SkuID, sku) && s.State == "Error"
	})
}

// activating returns the licences of a user that activate its domain.
func activating(u graph.User, skus []licence.SKU) []licence.Choice {
	return slices.DeleteFunc(licence.All(skus), func(ch licence.Choice) bool {
		return failed(u, ch.SKU) || !slices.ContainsFunc(u.AssignedLicenses, func(l graph.Licence) bool {
			return strings.EqualFold(l.SkuID, ch.SKU)
		})
	})
}

// doActivationUser creates, changes or deletes an activation user.
func (c *Cloud) doActivationUser(ctx context.Context, s plan.Step) error {
	if s.Action == plan.Delete {
		return c.deleteActivationUser(ctx, s.Name)
	}
	want := plan.Fields{}
	for _, d := range s.Differences {
		want[d.Field] = d.New
	}
	wanted, changes := want["licence"].(string)

	u, err := graph.GetUser(s.Name, activationFields...).Do(ctx, c.Graph)
	if fault.Is(err, fault.NotFound) {
		u, err = c.newUser(ctx, s.Name, want)
	}
	if err != nil {
		return err
	}
	if err := c.updateUser(ctx, u, want); err != nil {
		return err
	}
	switch {
	case !changes:
		return nil
	case wanted == "":
		return c.unlicense(ctx, u)
	}
	return c.license(ctx, u, wanted)
}

func (c *Cloud) newUser(ctx context.Context, upn string, want plan.Fields) (graph.User, error) {
	display, _ := want["displayName"].(string)
	if want["licence"] == plan.ResourceAccount {
		if err := c.Teams.CreateResourceAccount(ctx, upn, display, applicationID); err != nil {
			return graph.User{}, err
		}
		return graph.GetUser(upn, activationFields...).Do(ctx, c.Graph)
	}

	organisation, err := c.organisation(ctx)
	if err != nil {
		return graph.User{}, err
	}
	nickname, _, _ := strings.Cut(upn, "@")
	u, err := graph.CreateUser(graph.NewUser{DisplayName: display, MailNickname: nickname, UserPrincipalName: upn,
		UsageLocation: organisation.CountryLetterCode, Password: secret.New(rand.Text() + "aA1-")}).Do(ctx, c.Graph)
	switch {
	case says(err, "already exists"): // created a moment ago, which reads do not show yet
		err = fault.New(fault.Unavailable, "NotVisible", "the user %s is not visible yet", upn).Because(err)
	case says(err, "domain portion"): // verified a moment ago, which not every server knows yet
		err = fault.New(fault.Unavailable, "NotVisible", "the domain of %s cannot be used for users yet", upn).
			Because(err)
	}
	u.UsageLocation = organisation.CountryLetterCode // the answer has a choice of properties only
	u.DisplayName, u.AccountEnabled = display, true
	return u, err
}

// updateUser sets the properties of a user that differ.
func (c *Cloud) updateUser(ctx context.Context, u graph.User, want plan.Fields) error {
	changes := map[string]any{}
	if v, ok := want["displayName"]; ok && v != u.DisplayName {
		changes["displayName"] = v
	}
	if v, ok := want["enabled"]; ok && v != u.AccountEnabled {
		changes["accountEnabled"] = v
	}
	if u.UsageLocation == "" {
		organisation, err := c.organisation(ctx)
		if err != nil {
			return err
		}
		changes["usageLocation"] = organisation.CountryLetterCode
	}
	if len(changes) == 0 {
		return nil
	}
	_, err := graph.UpdateUser(u.ID, changes).Do(ctx, c.Graph)
	return err
}

// license gives a user a licence that takes effect: the one with the plan if possible, else the next best. A licence
// that was given without effect, for example in the grace period of a subscription, is taken back.
func (c *Cloud) license(ctx context.Context, u graph.User, want string) error {
	skus, err := c.skus(ctx)
	if err != nil || len(activating(u, skus)) > 0 {
		return err
	}
	choices := slices.DeleteFunc(licence.Choose(skus), func(ch licence.Choice) bool {
		return failed(u, ch.SKU) || ch.ResourceAccount != (want == plan.ResourceAccount)
	})
	slices.SortStableFunc(choices, func(a, b licence.Choice) int {
		rank := func(ch licence.Choice) int {
			if ch.Plans[0] == want {
				return 0
			}
			return 1
		}
		return cmp.Compare(rank(a), rank(b))
	})

	var useless []string
	for _, l := range u.AssignedLicenses {
		if failed(u, l.SkuID) {
			useless = append(useless, l.SkuID)
		}
	}
	for _, ch := range choices {
		give := []graph.Licence{{SkuID: ch.SKU, DisabledPlans: ch.Disabled}}
		_, err := graph.AssignLicences(u.ID, give, useless).Do(ctx, c.Graph)
		if fault.Is(err, fault.Invalid) && len(useless) > 0 { // which an ended process has perhaps taken
			_, err = graph.AssignLicences(u.ID, give, nil).Do(ctx, c.Graph)
		}
		if fault.Is(err, fault.Invalid) { // refused, so that the next one is tried
			continue
		}
		if err != nil {
			return err
		}
		if ok, err := c.effective(ctx, u.ID, ch.SKU); err != nil || ok {
			return err
		}
		useless = []string{ch.SKU}
	}
	return fault.New(fault.Conflict, "NoLicence", "no licence is free for the activation user %s: buy one that "+
		"contains Microsoft Teams, or free one", u.UserPrincipalName)
}

// effectiveWithin is how long the effect of a licence is waited for before it is taken for granted.
const effectiveWithin = time.Minute

// effective waits until Microsoft says whether a licence took effect, and reports that.
func (c *Cloud) effective(ctx context.Context, user, sku string) (bool, error) {
	began := time.Now()
	for every := 100 * time.Millisecond; ; every = min(2*every, 10*time.Second) {
		u, err := graph.GetUser(user, activationFields...).Do(ctx, c.Graph)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return false, err
		}
		known := slices.ContainsFunc(u.LicenseAssignmentStates, func(s graph.LicenceState) bool {
			return strings.EqualFold(s.SkuID, sku)
		})
		if known || time.Since(began) > effectiveWithin {
			return !failed(u, sku), nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(every):
		}
	}
}

// unlicense takes the licences of a user that activate its domain, after its numbers: without a licence those could not
// be taken any more.
func (c *Cloud) unlicense(ctx context.Context, u graph.User) error {
	skus, err := c.skus(ctx)
	if err != nil {
		return err
	}
	var held []string
	for _, ch := range activating(u, skus) {
		held = append(held, ch.SKU)
	}
	if len(held) == 0 {
		return nil
	}
	if err := c.takeNumbers(ctx, u.ID); err != nil {
		return err
	}
	_, err = graph.AssignLicences(u.ID, nil, held).Do(ctx, c.Graph)
	if fault.Is(err, fault.Invalid) { // an ended process has perhaps taken it, which does not show yet
		return fault.New(fault.Unavailable, "LicenceNotTaken", "Microsoft does not take the licence from %s now: %s",
			u.UserPrincipalName, fault.As(err).Message).Because(err)
	}
	return err
}

// takeNumbers takes the numbers of an activation user, which a person gave it: they would stay with it in the bin.
func (c *Cloud) takeNumbers(ctx context.Context, user string) error {
	v, err := graph.GetUserConfiguration(user).Do(ctx, c.Graph)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	for _, n := range v.TelephoneNumbers {
		detail, err := c.setNumber(ctx, user, n.TelephoneNumber, "", time.Hour) // as long as ctx lasts
		if detail != "" {
			err = fault.New(fault.Invalid, "NumberNotTaken", "Microsoft says: %s", detail)
		}
		switch {
		case fault.Is(err, fault.Invalid):
			return fault.New(fault.Conflict, "NumberHeld", "the activation user %s has a number that cannot be taken "+
				"from it; take it by hand", v.UserPrincipalName).Because(err)
		case err != nil:
			return err
		}
	}
	return err
}

// deleteActivationUser deletes an activation user and, if a person has signed in, purges it. Applications may not.
func (c *Cloud) deleteActivationUser(ctx context.Context, upn string) error {
	u, err := graph.GetUser(upn, activationFields...).Do(ctx, c.Graph)
	switch {
	case fault.Is(err, fault.NotFound):
		if c.Delegated == nil {
			return nil
		}
		if u.ID, err = c.inBin(ctx, upn); err != nil || u.ID == "" {
			return err
		}
	case err != nil:
		return err
	default:
		if err := c.takeNumbers(ctx, u.ID); err != nil {
			return err
		}
		_, err := graph.DeleteUser(u.ID).Do(ctx, c.Graph)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	if c.Delegated == nil {
		return nil
	}

	_, err = graph.Purge(u.ID).Do(ctx, c.Delegated)
	if fault.Is(err, fault.Forbidden) || fault.Is(err, fault.NotFound) { // Microsoft removes it after 30 days
		return nil
	}
	return err
}

// inBin returns the id of the deleted user with a name, "" if there is none. Microsoft puts the id in front of the
// names of deleted users [K].
func (c *Cloud) inBin(ctx context.Context, upn string) (string, error) {
	users, err := graph.DeletedUsers("id", "userPrincipalName").All(ctx, c.Delegated)
	for _, u := range users {
		if strings.HasSuffix(strings.ToLower(u.UserPrincipalName), strings.ToLower(upn)) {
			return u.ID, nil
		}
	}
	return "", err
}
