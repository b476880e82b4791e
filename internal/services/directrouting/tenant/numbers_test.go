package tenant_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin/powershell"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/sim/pwsh"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
	"github.com/tandemgw/tandem/internal/testkit"
)

// TestMain makes the test the simulated PowerShell, if it was started as that.
func TestMain(m *testing.M) {
	pwsh.Child()
	os.Exit(m.Run())
}

// powershell has the tenant's Teams administered by PowerShell, whose directory it returns.
func (b *bed) powershell() string {
	dir := b.t.TempDir()
	command, err := pwsh.Install(dir, pwsh.Config{URL: b.cloud.URL(microsoft.Teams), Roots: b.authority.PEM()})
	b.must(err)
	cfg := powershell.Default()
	cfg.Command = command
	w := powershell.New(cfg, powershell.Options{Log: slog.New(slog.NewTextHandler(b.t.Output(), nil))})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(func() { cancel(); running.Wait() })
	c := b.app(b.real).Connect(b.tenant.ID, nil, time.Time{})
	b.reach.Teams = w.Admin(b.tenant.ID, powershell.SignIn{Graph: c.Source(graphName),
		Teams: c.Source(entra.TeamsAdmin)})
	return dir
}

// refuseNumbers makes Graph's API of numbers unusable in the tenant: not granted, or with such a status.
func (b *bed) refuseNumbers(status int) {
	if status != 403 {
		b.cloud.Inject(microsoft.Fault{Kind: microsoft.Refuse, Service: microsoft.Graph, Status: status,
			Path: "/telephoneNumberManagement/"})
		return
	}
	b.tenant.Edit(func(s *microsoft.State) {
		for _, p := range s.Principals {
			p.Roles = slices.DeleteFunc(p.Roles, func(r microsoft.AppRole) bool {
				return strings.HasPrefix(r.Name, "TeamsTelephoneNumber.")
			})
		}
	})
}

// Where Graph's API of numbers is not usable, users and resource accounts get their numbers by PowerShell, and get
// back what they had. A lost answer is read back. Elsewhere no cmdlet touches a number.
func TestNumbersByPowerShell(t *testing.T) {
	for name, status := range map[string]int{"usable": 0, "not granted": 403, "404": 404, "501": 501} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 2)
			dir := p.powershell()
			if status != 0 {
				p.refuseNumbers(status)
				p.must(pwsh.Arm(dir, pwsh.Fault{Cmdlet: "Set-CsPhoneNumberAssignment", Kind: pwsh.DieAfter},
					pwsh.Fault{Cmdlet: "Remove-CsPhoneNumberAssignment", Kind: pwsh.DieAfter}))
			}
			replaced, without := "more00000@"+p.tenant.Initial, "more00001@"+p.tenant.Initial
			p.tenant.Edit(func(s *microsoft.State) {
				s.Numbers["+442079469999"] = &microsoft.Number{Number: "+442079469999", Uploaded: true,
					Target: s.User(replaced).ID, Category: "primary"}
				s.Numbers["+442079460004"] = &microsoft.Number{Number: "+442079460004", Source: "onPremises",
					Uploaded: true}
			})
			before := string(p.tenant.Dump())
			p.sync(user.Full)
			account := p.list(user.Filter{Kind: user.ResourceAccount})[0].UPN

			numbers := map[string]string{replaced: "+442079460001", without: "+442079460002;ext=7",
				account: "+442079460003"}
			r := user.Request{OverrideGroup: true, Items: []user.Item{{User: p.upn(p.licensed()[0]),
				Number: "+442079460004"}}}
			for _, upn := range []string{replaced, without, account} {
				r.Items = append(r.Items, user.Item{User: upn, Number: numbers[upn]})
			}
			out := p.activate(r)
			if diff := cmp.Diff([]string{"NumberInUse", "", "", ""}, refusals(out)); diff != "" ||
				!strings.Contains(out[0].Refused, "on-premises Active Directory") {
				t.Fatalf("refused: %+v", out)
			}
			if w := p.settle(); len(w) > 0 {
				t.Fatalf("waiting: %v", w)
			}
			for upn, number := range numbers {
				if u := p.user(upn); u.State != user.Active || u.Voice.Number != number {
					t.Errorf("%s is %s with %s: %+v", upn, u.State, u.Voice.Number, u.Waiting)
				}
			}

			p.deactivate(replaced, without, account)
			if w := p.settle(); len(w) > 0 {
				t.Fatalf("waiting: %v", w)
			}
			if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(string(p.tenant.Dump()), "\n")); diff != "" {
				t.Errorf("after the deactivation (-before +after):\n%s", diff)
			}
			seen, err := pwsh.Seen(dir)
			if status != 0 { // else nothing has started PowerShell
				p.must(err)
			}
			count := func(cmdlet string) int { return strings.Count(strings.Join(seen, "\n"), cmdlet) }
			set, removed := count(`"Set-CsPhoneNumberAssignment"`), count(`"Remove-CsPhoneNumberAssignment"`)
			if status == 0 && count("PhoneNumberAssignment") > 0 || status != 0 && (set != 5 || removed != 1) {
				t.Errorf("numbers were set %d and removed %d times by cmdlets", set, removed)
			}
		})
	}
}

// The answer of a cmdlet is lost where Graph has nothing of Teams: PowerShell reads the number back.
func TestNumberIsReadBackByPowerShell(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	dir := b.powershell()
	b.cloud.Inject(microsoft.Fault{Kind: microsoft.Refuse, Service: microsoft.Graph, Status: 404,
		Path: "/admin/teams/"})
	var holder string
	b.tenant.Edit(func(s *microsoft.State) {
		u := s.AddUser(&microsoft.User{UPN: "holder@" + b.tenant.Initial, UsageLocation: "GB"})
		s.License(u, microsoft.License{SKU: s.SKUs[0].ID})
		holder = u.ID
	})
	number := func(old, number string) error {
		_, err := b.reach.SetVoice(t.Context(), plan.Step{Action: plan.Change, Ref: plan.Ref{Type: plan.User,
			Name: holder}, Differences: []plan.Difference{{Field: "number", Old: old, New: number}}})
		return err
	}
	for _, kind := range []pwsh.Kind{pwsh.DieAfter, pwsh.Die} {
		b.must(pwsh.Arm(dir, pwsh.Fault{Cmdlet: "Set-CsPhoneNumberAssignment", Kind: kind},
			pwsh.Fault{Cmdlet: "Remove-CsPhoneNumberAssignment", Kind: kind}))
		done := kind == pwsh.DieAfter
		if err := number("", string(firstNumber)); done && err != nil ||
			!done && !fault.HasCode(err, teamsadmin.CodeUnknown) {
			t.Errorf("%s: number given: %v", kind, err)
		}
		b.must(number("", string(firstNumber)))
		if err := number(string(firstNumber), ""); done && err != nil ||
			!done && !fault.HasCode(err, teamsadmin.CodeUnknown) {
			t.Errorf("%s: number taken: %v", kind, err)
		}
	}
}

// What a cmdlet refuses is shown at the user. The HTTPS service cannot set numbers, and says so; the log has why Graph
// could not.
func TestNumbersThatAreRefused(t *testing.T) {
	t.Parallel()
	p := newPeople(t, testkit.Open(t, testkit.SQLiteConfig(t)), 1)
	p.refuseNumbers(403)
	p.sync(user.Full)
	upn := "more00000@" + p.tenant.Initial
	r := user.Request{Items: []user.Item{{User: upn, Number: string(firstNumber)}}}

	_, _, err := p.Activate(t.Context(), "contoso", r)
	cause, ok := errors.AsType[*graph.Error](err)
	if f := fault.As(err); f == nil || f.Kind != fault.Forbidden || f.Code != teamsadmin.CodeNoNumbers ||
		!strings.Contains(f.Message, "no documented route") || !ok || cause.Status != 403 {
		t.Errorf("by the HTTPS service: %v", err)
	}

	dir := p.powershell()
	p.must(pwsh.Arm(dir, pwsh.Fault{Cmdlet: "Set-CsPhoneNumberAssignment", Kind: pwsh.Refuse, Code: "Unknown,X",
		Text: "User 'x' lacks appropriate licenses to assign a 'DirectRouting' number."}))
	p.activate(r)
	p.settle()
	if u := p.user(upn); u.State != user.Activating || u.Waiting == nil ||
		!strings.Contains(u.Waiting.Reason, "lacks appropriate licenses") {
		t.Errorf("after a refusal: %+v, waiting %+v", u, u.Waiting)
	}
	p.activate(r)
	if w := p.settle(); len(w) > 0 || p.user(upn).State != user.Active {
		t.Errorf("after asking again: %+v, waiting %v", p.user(upn), w)
	}
}
