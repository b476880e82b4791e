package cli

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

func newUser(t *target) *cobra.Command {
	return group("user", "Users of tenants and their numbers", userList(t), userShow(t), userSync(t), userActivate(t),
		userDeactivate(t), userNumber(t))
}

func userList(t *target) *cobra.Command {
	var state, department, location, text, number, kind string
	cmd := &cobra.Command{Use: "list ACCOUNT", Short: "List users and resource accounts of a tenant"}
	f := cmd.Flags()
	f.StringVar(&state, "state", "", "`STATE`: inactive, activating, active, unlicensed, blocked, deleted …")
	f.StringVar(&department, "department", "", "only this `DEPARTMENT`")
	f.StringVar(&location, "location", "", "only this usage `LOCATION`, such as GB")
	f.StringVar(&text, "text", "", "only those whose name or user principal name begins with `TEXT`")
	f.StringVar(&number, "number", "", "`WHICH`: held (have a number) or none")
	f.StringVar(&kind, "type", "", "only this account `TYPE`: user, resourceAccount, guest …")
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (api.UserList, error) {
		var q api.ListUsersParams
		if state != "" {
			q.State = new(api.UserState(state))
		}
		if number != "" {
			q.Number = new(api.ListUsersParamsNumber(number))
		}
		if kind != "" {
			q.AccountType = new(api.ListUsersParamsAccountType(kind))
		}
		for value, into := range map[*string]**string{&department: &q.Department, &location: &q.UsageLocation,
			&text: &q.Text} {
			if *value != "" {
				*into = value
			}
		}
		all, err := c.Users(ctx, args[0], q)
		return api.UserList{Users: all}, err
	}, func(p *page, l api.UserList) {
		g := &grid{head: []string{"user", "state", "number", "department", "remark"}}
		for _, x := range l.Users {
			g.add(x.User, x.State, x.Number, x.Department, userRemark(&x))
		}
		p.table(g)
	})
}

// userRemark says what is special about a user: what it waits for, or lacks.
func userRemark(x *api.User) string {
	switch {
	case x.Waiting != nil:
		return string(x.Waiting.For) + ": " + x.Waiting.Reason
	case x.State == api.UserStateUnlicensed && x.Number != "":
		return "still holds the number; missing " + x.Missing
	case x.State == api.UserStateUnlicensed:
		return "missing " + x.Missing
	}
	return either(x.AccountType == "user", "", x.AccountType)
}

func userShow(t *target) *cobra.Command {
	var fresh bool
	cmd := &cobra.Command{Use: "show ACCOUNT USER", Short: "Show a user, by user principal name or object id"}
	cmd.Flags().BoolVar(&fresh, "fresh", false, "read the user at Microsoft first")
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (*api.User, error) {
		if fresh {
			if _, err := c.RefreshUser(ctx, args[0], args[1]); err != nil {
				return nil, err
			}
		}
		return c.User(ctx, args[0], args[1])
	}, printUser)
}

func printUser(p *page, x *api.User) {
	field := func(label, format string, args ...any) { p.field(fmt.Sprintf("%-11s", label), format, args...) }
	field("user", "%s (%s)", x.User, x.ID)
	field("state", "%s", x.State)
	for _, f := range [][2]string{{"name", x.Name}, {"department", x.Department}, {"location", x.UsageLocation},
		{"missing", x.Missing}, {"number", x.Number}} {
		if f[1] != "" {
			field(f[0], "%s", f[1])
		}
	}
	for _, q := range x.Policies {
		field("policy", "%s %s%s", q.Kind, q.Name, either(q.Group == "", "", " (by the group "+q.Group+")"))
	}
	if w := x.Waiting; w != nil {
		field("waits", "for %s since %s: %s", w.For, stamp(w.Since), w.Reason)
	}
	for _, h := range x.History {
		field("had", "%s", period(h.Number, h))
	}
}

// period writes when a number was whose.
func period(what string, h api.NumberUser) string {
	return fmt.Sprintf("%s from %s to %s", what, stamp(h.Began),
		either(h.Ended.IsZero(), "now", stamp(h.Ended)))
}

func userSync(t *target) *cobra.Command {
	var full, list bool
	cmd := &cobra.Command{Use: "sync ACCOUNT", Short: "Read the users of a tenant at Microsoft now"}
	cmd.Flags().BoolVar(&full, "full", false, "read all users, and not what changed")
	cmd.Flags().BoolVar(&list, "list", false, "begin nothing; show the passes, and how far the last one is")
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (api.UserSyncList, error) {
		if !list {
			if err := c.SyncUsers(ctx, args[0], either(full, "full", "delta")); err != nil {
				return api.UserSyncList{}, err
			}
		}
		all, err := c.UserSyncs(ctx, args[0])
		return api.UserSyncList{Syncs: all}, err
	}, func(p *page, l api.UserSyncList) {
		g := &grid{head: []string{"pass", "mode", "began", "took", "users", "removed", "why"}}
		for _, x := range l.Syncs {
			took, why := "under way", x.Why
			if !x.Ended.IsZero() {
				took = x.Ended.Sub(x.Began).Round(100 * time.Millisecond).String()
			}
			if x.Failure != "" {
				why += "; " + x.Failure
			}
			g.add(x.Pass, x.Mode, stamp(x.Began), took, x.Users, x.Removed, why)
		}
		p.table(g)
	})
}

// userRule are the flags that select users.
func userRule(cmd *cobra.Command, department, location *string) {
	cmd.Flags().StringVar(department, "department", "", "all users of this `DEPARTMENT` that are suitable")
	cmd.Flags().StringVar(location, "location", "", "all users of this usage `LOCATION` that are suitable")
}

func userActivate(t *target) *cobra.Command {
	var r api.UserActivation
	var file, number, caller string
	cmd := &cobra.Command{Use: "activate ACCOUNT [USER …]",
		Short: "Give users numbers and Tandem's policies", Args: accountFirst}
	f := cmd.Flags()
	f.StringVar(&file, "csv", "", "`FILE` with lines user,number[,callerID] (\"-\": stdin)")
	userRule(cmd, &r.Department, &r.UsageLocation)
	f.StringVar(&number, "number", "", "the `NUMBER` of the one user that is named")
	f.StringVar(&caller, "caller-id", "", "caller id `POLICY` of the users that are named")
	f.BoolVar(&r.NextNumber, "next-number", false, "give those without a number the next free ones")
	f.BoolVar(&r.OverrideGroup, "override-group", false, "give policies directly that a user has by a group")
	f.BoolVar(&r.DryRun, "dry-run", false, "only say what would become of each user")
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if number != "" && len(args) != 2 {
			return misuse(cmd, errors.New("--number is for one user"))
		}
		for _, u := range args[1:] {
			r.Items = append(r.Items, api.UserItem{User: u, Number: number, CallerID: caller})
		}
		if file == "" {
			return nil
		}
		text, err := readInput(t, cmd.InOrStdin(), file)
		if err != nil {
			return err
		}
		items, err := readAssignments(either(file == "-", "standard input", file), text)
		r.Items = append(r.Items, items...)
		return err
	}
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (api.UserOutcomes, error) {
		all, err := c.ActivateUsers(ctx, args[0], r)
		return outcomes(all, err)
	}, printOutcomes(&r.DryRun, "being activated", "would be activated"))
}

func userDeactivate(t *target) *cobra.Command {
	var r api.UserDeactivation
	cmd := &cobra.Command{Use: "deactivate ACCOUNT [USER …]", Short: "Give users back what they had before",
		Args: accountFirst}
	userRule(cmd, &r.Department, &r.UsageLocation)
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only say what would become of each user")
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (api.UserOutcomes, error) {
		r.Users = args[1:]
		all, err := c.DeactivateUsers(ctx, args[0], r)
		return outcomes(all, err)
	}, printOutcomes(&r.DryRun, "being deactivated", "would be deactivated"))
}

// accountFirst wants an account before any number of users.
func accountFirst(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return misuse(cmd, fmt.Errorf("%s needs ACCOUNT", cmd.Name()))
	}
	return nil
}

// outcomes returns what became of users, and an error that says how many were refused.
func outcomes(all []api.UserOutcome, err error) (api.UserOutcomes, error) {
	refused := 0
	for _, x := range all {
		if x.Code != "" {
			refused++
		}
	}
	switch {
	case err != nil && len(all) > 0: // of several requests
		err = finding{fmt.Errorf("%s accepted and %d refused, then: %w", domain.Count(len(all)-refused, "user"),
			refused, err)}
	case err == nil && refused > 0:
		err = finding{fault.New(fault.Conflict, "UsersRefused", "%d of %s refused, for the reasons above",
			refused, domain.Count(len(all), "user"))}
	}
	return api.UserOutcomes{Users: all}, err
}

func printOutcomes(dry *bool, done, would string) func(*page, api.UserOutcomes) {
	return func(p *page, l api.UserOutcomes) {
		g := &grid{head: []string{"user", "number", "outcome"}}
		for _, x := range l.Users {
			g.add(x.User, x.Number, either(x.Code == "", either(*dry, would, done), "refused: "+x.Reason))
		}
		p.table(g)
	}
}

func userNumber(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "number ACCOUNT NUMBER", Short: "Show which users had a number when"}
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (api.NumberUserList, error) {
		all, err := c.NumberUsers(ctx, args[0], args[1])
		return api.NumberUserList{Users: all}, err
	}, func(p *page, l api.NumberUserList) {
		for _, h := range l.Users {
			p.line("%s", period(h.User, h))
		}
	})
}

// assignable is how a number is written in a file. Tandem does not guess other spellings.
var assignable = regexp.MustCompile(`^(tel:)?\+?[1-9][0-9]{1,14}(;ext=[0-9]{1,15})?$`)

// readAssignments reads the lines user,number[,callerID] of a file, whose first one may be a heading. Each mistake is
// named by its line.
func readAssignments(file string, text []byte) (items []api.UserItem, err error) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("\ufeff"))))
	r.FieldsPerRecord, r.TrimLeadingSpace, r.Comment = -1, true, '#'
	var problems []error
	problem := func(line int, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s, line %d: %s", file, line, fmt.Sprintf(format, args...)))
	}
	lines := map[string]int{} // by user, and by number
	for {
		record, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", file, err))
			break
		}
		line, _ := r.FieldPos(0)
		if len(items) == 0 && len(record) > 0 && slices.Contains([]string{"user", "upn"}, record[0]) {
			continue
		}
		switch {
		case len(record) < 2 || len(record) > 3 || record[0] == "":
			problem(line, "want user,number[,callerID]")
			continue
		case record[1] != "" && !assignable.MatchString(record[1]):
			problem(line, "%q is not a number; write +3221231212, or +3221231212;ext=1234", record[1])
		}
		for _, key := range record[:2] {
			if first := lines[key]; first > 0 && key != "" {
				problem(line, "%s is also in line %d", key, first)
			}
			lines[key] = line
		}
		items = append(items, api.UserItem{User: record[0], Number: record[1]})
		if len(record) == 3 {
			items[len(items)-1].CallerID = record[2]
		}
	}
	if len(problems) > 0 {
		return nil, usageError{errors.Join(problems...)}
	}
	return items, nil
}
