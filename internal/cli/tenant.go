package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
)

func newTenant(t *target) *cobra.Command {
	return group("tenant", "Onboarding of customers' Microsoft 365 tenants", tenantList(t), tenantShow(t), tenantSet(t),
		tenantInvite(t), tenantAccess(t), tenantSignIn(t), tenantCheck(t), tenantDialPlan(t), tenantPlan(t),
		tenantApply(t), tenantTemplate(t), tenantMove(t), tenantSnapshot(t), tenantReport(t), tenantDrift(t),
		tenantDelete(t))
}

func tenantList(t *target) *cobra.Command {
	var state, waiting, drift, template string
	cmd := &cobra.Command{Use: "list", Short: "List the tenants, and what they wait for",
		Example: "  tandem tenant list --waiting person\n  tandem tenant list --template branch --drift found"}
	f := cmd.Flags()
	f.StringVar(&state, "state", "", "those in `STATE`: new, working, waiting, onboarded, left")
	f.StringVar(&waiting, "waiting", "", "those that wait for `PARTY`: person, microsoft, dns, tandem")
	f.StringVar(&drift, "drift", "", "`found`: those with differences; none: those without")
	f.StringVar(&template, "template", "", "those with this `TEMPLATE`")
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, _ []string) (api.TenantList, error) {
		var q api.ListTenantsParams
		if state != "" {
			q.State = new(api.TenantState(state))
		}
		if waiting != "" {
			q.Waiting = new(api.TenantParty(waiting))
		}
		if drift != "" {
			q.Drift = new(api.ListTenantsParamsDrift(drift))
		}
		if template != "" {
			q.Template = &template
		}
		all, err := c.Tenants(ctx, q)
		return api.TenantList{Tenants: all}, err
	}, printTenants)
}

func printTenants(p *page, l api.TenantList) {
	g := &grid{head: []string{"account", "state", "drift", "sign-in", "consent", "spare", "synced", "users",
		"waits for"}}
	for _, x := range l.Tenants {
		o, waits := cmp.Or(x.Overview, &api.TenantOverview{}), ""
		if w := x.Waiting; w != nil {
			waits = fmt.Sprintf("%s (%s): %s", w.For, age(w.Since), w.Reason)
		}
		spare, signIn, consent := "", since(o.SignedIn), since(o.Consented)
		if o.SpareLicences != nil {
			spare = fmt.Sprint(*o.SpareLicences)
		}
		if !o.SignInLost.IsZero() {
			signIn = "lost " + since(o.SignInLost)
		}
		if !o.ConsentLost.IsZero() {
			consent = "lost " + since(o.ConsentLost)
		}
		g.add(x.Account, x.State, either(o.DriftChecked.IsZero(), "", fmt.Sprint(o.Drift)), signIn, consent, spare,
			since(o.Synced), o.ActiveUsers, waits)
	}
	p.table(g)
}

// since returns how long ago something was: in days from two days on; "" if it never was.
func since(t time.Time) string {
	const day = 24 * time.Hour
	switch d := time.Since(t); {
	case t.IsZero():
		return ""
	case d >= 2*day:
		return fmt.Sprintf("%dd", d/day)
	}
	return age(t)
}

func tenantShow(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "show ACCOUNT", Short: "Show the tenant of an account"},
		func(ctx context.Context, c *client.Client, args []string) (*api.Tenant, error) {
			x, _, err := c.Tenant(ctx, args[0])
			return x, err
		}, printTenant)
}

func printTenant(p *page, x *api.Tenant) {
	field := func(label, format string, args ...any) { p.field(fmt.Sprintf("%-10s", label), format, args...) }
	field("account", "%s", x.Account)
	field("tenant", "%s", either(x.TenantID == "", "not known yet", x.TenantID))
	if x.Settings.Template != "" {
		field("template", "%s", x.Settings.Template)
	}
	field("state", "%s%s", x.State, either(x.Purpose == "", "", " ("+x.Purpose+")"))
	if w := x.Waiting; w != nil {
		field("waits", "for %s since %s: %s", w.For, stamp(w.Since), w.Reason)
		if w.Longest > 0 {
			field("", "usually %s, at most %s", duration(w.Usual), duration(w.Longest))
		}
	}
	s := &x.Settings
	if s.Label != "" {
		field("wanted", "label %s%s", s.Label, either(s.OwnLabel, ", taken over from API clients", ""))
	}
	for _, l := range x.Labels {
		field("label", "%s (%s): %s", l.Label, l.Trunk, strings.Join(l.Names, ", "))
	}
	printSettings(field, &api.TemplateSettings{Trunk: api.TemplateSettingsTrunk(s.Trunk), Country: s.Country,
		AreaCode: s.AreaCode, Licence: s.Licence, OwnUsageOnly: s.OwnUsageOnly, Extensions: s.Extensions,
		Emergency: s.Emergency, Rules: s.Rules, Prefix: s.Prefix, RoutePattern: s.RoutePattern, Users: s.Users})
	if n := len(s.ExceptUsers); n > 0 {
		field("except", "%s", domain.Count(n, "user"))
	}
	if x.Made > 0 {
		field("objects", "%d%s", x.Made, either(x.Prefix == "", "", ", named "+x.Prefix))
	}
	if x.Users > 0 {
		field("users", "%d", x.Users)
	}
}

// duration returns a time in the largest unit in which it is a whole number, such as 10 minutes.
func duration(seconds int) string {
	n, unit := seconds, "second"
	switch {
	case n > 0 && n%3600 == 0:
		n, unit = n/3600, "hour"
	case n > 0 && n%60 == 0:
		n, unit = n/60, "minute"
	}
	return domain.Count(n, unit)
}

// wishes are the flags of settings that tenants and templates have in common.
type wishes struct {
	trunk, country, areaCode, licence string
	rules                             string // file
	ownUsageOnly                      bool
	prefix, pattern                   string
	department, location              string
	extensions, emergency             []string
}

func (w *wishes) flags(f *pflag.FlagSet) {
	f.StringVar(&w.trunk, "trunk", "", "`MODEL`: derived (default) or gateways")
	f.StringVar(&w.country, "country", "", "`COUNTRY` of the dial plan, such as GB (default: the tenant's)")
	f.StringVar(&w.rules, "rules", "", "`FILE` with the rules of the dial plan as JSON, in place of those made for "+
		"the country; - is standard input")
	f.StringVar(&w.areaCode, "area-code", "", "area `CODE` within which numbers are dialled without it")
	f.StringArrayVar(&w.extensions, "extensions", nil, "`RANGE` of extensions, 2xxx or 2xxx=+1425555 (repeatable)")
	f.BoolVar(&w.ownUsageOnly, "own-usage-only", false, "users reach numbers through Tandem only")
	f.StringArrayVar(&w.emergency, "emergency", nil,
		"`NUMBER` of an emergency policy of its own, 112 or 112=999;911 (repeatable); the gateway has to know it")
	f.StringVar(&w.licence, "licence", "", "service `PLAN` of the users that activate names (default: what is free)")
	f.StringVar(&w.prefix, "prefix", "", "`NAME` of every object that is made (default: that of the configuration)")
	f.StringVar(&w.pattern, "route-pattern", "", "regular `EXPRESSION` of the numbers that the route takes (default: "+
		"all)")
	f.StringVar(&w.department, "users-department", "", "the users of this `DEPARTMENT` should be active")
	f.StringVar(&w.location, "users-location", "", "the users of this usage `LOCATION` should be active, such as GB")
}

// dialRules returns the rules of the file; none without one, so that they are made for the country again.
func (w *wishes) dialRules(t *target, cmd *cobra.Command) ([]api.DialRule, error) {
	if w.rules == "" {
		return []api.DialRule{}, nil
	}
	return readFile[api.DialRule](t, cmd.InOrStdin(), w.rules)
}

// changed returns settings with what the flags of w say; all else stays. more are further settings, by flag.
func changed[S any](was S, w *wishes, f *pflag.FlagSet, more map[string]any) (settings S, err error) {
	extensions, emergency := []api.Extensions{}, []api.EmergencyNumber{}
	for _, x := range w.extensions {
		r, base, _ := strings.Cut(x, "=")
		extensions = append(extensions, api.Extensions{Range: r, Base: base})
	}
	for _, x := range w.emergency {
		dial, mask, _ := strings.Cut(x, "=")
		emergency = append(emergency, api.EmergencyNumber{DialString: dial, Mask: mask})
	}

	text, err := json.Marshal(was)
	if err != nil {
		return settings, err
	}
	set := map[string]any{}
	if err := json.Unmarshal(text, &set); err != nil {
		return settings, err
	}
	all := map[string]any{"trunk": w.trunk, "country": w.country, "area-code": w.areaCode, "extensions": extensions,
		"own-usage-only": w.ownUsageOnly, "emergency": emergency, "licence": w.licence, "prefix": w.prefix,
		"route-pattern": w.pattern}
	maps.Copy(all, more)
	members := map[string]string{"tenant": "tenantId", "own-label": "ownLabel", "area-code": "areaCode",
		"own-usage-only": "ownUsageOnly", "route-pattern": "routePattern", "except-user": "exceptUsers"}
	for flag, value := range all {
		if f.Changed(flag) {
			set[cmp.Or(members[flag], flag)] = value
		}
	}
	users, ok := set["users"].(map[string]any)
	if !ok {
		users = map[string]any{}
	}
	if f.Changed("users-department") {
		users["department"] = w.department
	}
	if f.Changed("users-location") {
		users["usageLocation"] = w.location
	}
	set["users"] = users
	if text, err = json.Marshal(set); err != nil {
		return settings, err
	}
	return settings, json.Unmarshal(text, &settings) // not into was: that would keep what elements of lists had
}

func tenantSet(t *target) *cobra.Command {
	var w wishes
	var tenant, label, template string
	var except []string
	var ownLabel bool
	cmd := &cobra.Command{Use: "set ACCOUNT", Short: "Say which tenant an account has, and what is wanted for it"}
	f := cmd.Flags()
	f.StringVar(&tenant, "tenant", "", "the tenant's `ID` at Microsoft (default, and if empty: an invitation finds it)")
	f.StringVar(&label, "label", "", "first `LABEL` of its names (default: the account's, or made from its name)")
	f.BoolVar(&ownLabel, "own-label", false, "take over a label whose tokens API clients have given")
	f.StringVar(&template, "template", "", "`TEMPLATE` for what is not said here (tandem tenant template)")
	f.StringArrayVar(&except, "except-user", nil, "object `ID` of a user who should not be active although selected "+
		"(repeatable)")
	w.flags(f)

	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (*api.Tenant, error) {
		was, tag, err := c.Tenant(ctx, args[0])
		remote, known := errors.AsType[*client.Error](err)
		isNew := known && (remote.Code == "TenantNotFound" || remote.Code == "NotAuthorised")
		if err != nil && !isNew {
			return nil, err
		}
		var s api.TenantSettings
		match := (*string)(nil)
		if !isNew {
			s, match = was.Settings, &tag
		}
		rules, err := w.dialRules(t, cmd)
		if err != nil {
			return nil, err
		}
		s, err = changed(s, &w, f, map[string]any{"tenant": tenant, "label": label, "own-label": ownLabel,
			"template": template, "rules": rules, "except-user": slices.DeleteFunc(except, func(id string) bool {
				return id == ""
			})})
		if err != nil {
			return nil, err
		}
		return c.PutTenant(ctx, args[0], s, match)
	}, printTenant)
}

func tenantDialPlan(t *target) *cobra.Command {
	var dialled string
	cmd := run(t, online, &cobra.Command{Use: "dial-plan ACCOUNT", Short: "Show the rules of a tenant's dial plan"},
		func(ctx context.Context, c *client.Client, args []string) (*api.DialPlan, error) {
			return c.DialPlan(ctx, args[0], dialled)
		}, func(p *page, d *api.DialPlan) {
			g := &grid{head: []string{"dialled", "becomes", "by rule"}}
			for _, x := range d.Examples {
				g.add(x.Dialled, x.Number, either(x.Rule == "", "none: the user's country code", x.Rule))
			}
			p.table(g)
			p.line("")
			rules := &grid{head: []string{"rule", "pattern", "translation"}}
			for _, r := range d.Rules {
				rules.add(r.Name, r.Pattern, r.Translation)
			}
			p.table(rules)
			for _, l := range d.LeftOut {
				p.line("left out: %s", l)
			}
		})
	cmd.Flags().StringVar(&dialled, "dialled", "", "also show what becomes of this `NUMBER`")
	return cmd
}

func tenantPlan(t *target) *cobra.Command {
	var leave, repair, removeConsent bool
	var snapshot string
	cmd := run(t, online, &cobra.Command{Use: "plan ACCOUNT", Short: "Show what would change in a tenant"},
		func(ctx context.Context, c *client.Client, args []string) (*api.TenantPlan, error) {
			r := api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard, Snapshot: snapshot,
				RemoveConsent: removeConsent}
			switch {
			case leave:
				r.Purpose = api.PlanRequestPurposeLeave
			case repair:
				r.Purpose = api.PlanRequestPurposeRepair
			case snapshot != "":
				r.Purpose = api.PlanRequestPurposeRestore
			}
			return c.PlanTenant(ctx, args[0], r)
		}, printPlan)
	f := cmd.Flags()
	f.BoolVar(&leave, "leave", false, "remove everything that Tandem has there")
	f.BoolVar(&removeConsent, "remove-consent", false, "with --leave: remove Tandem's application from the tenant, too")
	f.BoolVar(&repair, "repair", false, "put back what others have changed")
	f.StringVar(&snapshot, "restore", "", "restore a `SNAPSHOT`")
	cmd.MarkFlagsMutuallyExclusive("leave", "repair", "restore")
	return cmd
}

func tenantApply(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "apply ACCOUNT PLAN", Short: "Approve a plan and begin to carry it out"},
		func(ctx context.Context, c *client.Client, args []string) (*api.TenantPlan, error) {
			return c.ApplyPlan(ctx, args[0], args[1])
		}, func(p *page, x *api.TenantPlan) {
			p.line("plan %s is being carried out: %s, %s; tandem tenant show %s says how far it is", x.ID,
				domain.Count(len(x.Steps), "step"), domain.Count(len(x.Users), "user"), x.Account)
		})
}

func tenantDelete(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "delete ACCOUNT", Short: "Forget a tenant in which Tandem has nothing"},
		func(ctx context.Context, c *client.Client, args []string) (nothing, error) {
			return nothing{}, c.DeleteTenant(ctx, args[0])
		}, nil)
}

// marks are those of terraform plan.
var marks = map[api.PlanStepAction]string{"create": "+", "change": "~", "delete": "-"}

func printPlan(p *page, x *api.TenantPlan) {
	p.line("Plan %s to %s %s", x.ID, x.Purpose, x.Account)
	p.line("")
	actions := map[api.PlanStepAction]int{}
	for _, s := range x.Steps {
		actions[s.Action]++
	}
	order := slices.Concat(x.Steps, x.Users)
	if x.Purpose == string(api.PlanRequestPurposeLeave) {
		order = slices.Concat(x.Users, x.Steps)
	}
	for _, s := range order {
		takes := ""
		if s.Longest > 0 && s.Type != "user" {
			takes = fmt.Sprintf("  (usually %s, at most %s)", duration(s.Usual), duration(s.Longest))
		}
		p.field("  "+marks[s.Action]+" ", "%s %s%s", s.Type, titled(s.Name, s.User, s.DisplayName), takes)
		printDifferences(p, s)
	}
	if x.RemovesConsent {
		p.field("  - ", "consent of Tandem's application and the stored sign-in, at the end; a restore needs new ones")
	}
	for _, list := range []struct {
		title string
		notes []api.PlanNote
	}{{"Solve first:", x.Conflicts}, {"Stays:", x.Kept}, {"Opened to users by usages of others:", x.Opened}} {
		if len(list.notes) == 0 {
			continue
		}
		p.line("")
		p.line("%s", list.title)
		for _, n := range list.notes {
			p.field("  ", "%s %s: %s", n.Type, titled(n.Name, n.User, n.DisplayName), n.Text)
		}
	}

	p.line("")
	if len(x.Steps)+len(x.Users)+len(x.Conflicts) == 0 {
		p.line("Nothing to do.")
		return
	}
	p.line("%d to create, %d to change, %d to delete, %s.", actions["create"], actions["change"], actions["delete"],
		domain.Count(len(x.Users), "user"))
	if len(x.Conflicts) == 0 {
		p.line("To carry it out: tandem %s %s", either(x.Account == carrierAccount, "carrier apply",
			"tenant apply "+x.Account), x.ID)
	}
}

// titled returns the name of an object; of a user whose name is known the user principal name and the display name.
func titled(name, user, display string) string {
	switch {
	case user == "":
		return name
	case display == "":
		return user
	}
	return user + " (" + display + ")"
}

// printDifferences prints the fields of a step: the new value, or the old and the new one.
func printDifferences(p *page, s api.PlanStep) {
	for _, d := range s.Differences {
		label := "      " + d.Field + "  "
		switch {
		case s.Action == "delete":
		case d.Old == nil:
			p.field(label, "%s", compact(d.New))
		default:
			p.field(label, "%s -> %s", compact(d.Old), compact(d.New))
		}
	}
}

// compact returns a value as JSON, and a list of structures as their number.
func compact(v any) string {
	const shownEntries = 4 // such as the emergency numbers of a policy; the rules of a dial plan are more
	if list, ok := v.([]any); ok && len(list) > shownEntries {
		if _, ok := list[0].(map[string]any); ok {
			return fmt.Sprintf("%d entries", len(list))
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
