package powershell_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin/powershell"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/sim/pwsh"
)

const token = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJ4In0.c2lnbmF0dXJl"

// Whatever a child does, the outcome of a change is told, and the next command works.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault pwsh.Fault
		kind  fault.Kind
		code  string // of Create; "" if it succeeds
		there bool   // afterwards
		ended bool   // the child was killed, or died
	}{
		"dies before":    {pwsh.Fault{Kind: pwsh.Die}, fault.Unavailable, teamsadmin.CodeUnknown, false, true},
		"dies after":     {pwsh.Fault{Kind: pwsh.DieAfter}, fault.Unavailable, teamsadmin.CodeUnknown, true, true},
		"hangs before":   {pwsh.Fault{Kind: pwsh.Hang}, fault.Unavailable, teamsadmin.CodeUnknown, false, true},
		"hangs after":    {pwsh.Fault{Kind: pwsh.HangAfter}, fault.Unavailable, teamsadmin.CodeUnknown, true, true},
		"prints":         {pwsh.Fault{Kind: pwsh.Garbage}, 0, "", true, false},
		"prints much":    {pwsh.Fault{Kind: pwsh.Flood}, fault.Unavailable, teamsadmin.CodeUnknown, false, true},
		"a huge line":    {pwsh.Fault{Kind: pwsh.Huge}, fault.Unavailable, teamsadmin.CodeUnknown, false, true},
		"another answer": {pwsh.Fault{Kind: pwsh.Early}, fault.Unavailable, teamsadmin.CodeUnknown, false, true},
		"does nothing":   {pwsh.Fault{Kind: pwsh.Nothing}, 0, "", false, false},
		"warns":          {pwsh.Fault{Kind: pwsh.Print, Text: "look: " + token}, 0, "", true, false},
		"throttled": {pwsh.Fault{Kind: pwsh.Refuse, Text: "Too Many Requests", Code: "TooManyRequests,X"},
			fault.Limited, "TooManyRequests", false, false},
		"fails at Microsoft": {pwsh.Fault{Kind: pwsh.Refuse, Text: "Error", Code: "InternalServerError,X"},
			fault.Unavailable, teamsadmin.CodeUnknown, false, false},
		"an unknown error": {pwsh.Fault{Kind: pwsh.Refuse, Text: "Something " + token, Code: "Strange"},
			fault.Unavailable, teamsadmin.CodeUnknown, false, false},
		"no role": {pwsh.Fault{Kind: pwsh.Refuse, Text: "Access Denied.", Code: "Forbidden,X"}, fault.Forbidden,
			teamsadmin.CodeRoleMissing, false, false},
		"in use": {pwsh.Fault{Kind: pwsh.Refuse, Text: "The policy \"x\" cannot be removed.", Code: "BadRequest,X"},
			fault.Unavailable, teamsadmin.CodeInUse, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 1, func(cfg *powershell.Config, _ *pwsh.Config) { cfg.CommandTimeout = 4 * time.Second })
			admin := b.admin(0)
			c.fault.Cmdlet = "New-CsTenantDialPlan"
			b.arm(c.fault)
			err := admin.Create(t.Context(), dialPlan)
			if c.code == "" && err != nil || c.code != "" {
				want(t, "Create", err, c.kind, c.code, "")
			}
			if f := fault.As(err); c.kind == fault.Limited && f.RetryAfter <= 0 {
				t.Errorf("Create: no time for a retry: %+v", f)
			}
			b.eventually("the change", func() bool { return b.exists(0) == c.there })

			_, err = admin.Read(t.Context(), teamsadmin.DialPlan, "Tandem")
			if c.there && err != nil || !c.there && !fault.Is(err, fault.NotFound) {
				t.Errorf("Read afterwards: %v; want it there: %v", err, c.there)
			}
			starts := strings.Count(strings.Join(b.cmdlets(), " "), "Connect-MicrosoftTeams")
			if wanted := map[bool]int{false: 1, true: 2}[c.ended]; starts != wanted {
				t.Errorf("%d children, want %d", starts, wanted)
			}
			if log := b.logged(); strings.Contains(log, "eyJ") || c.fault.Kind == pwsh.Print &&
				strings.Count(log, "look: [token]") != 2 {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// A read that fails says when to retry, not that something may have changed.
func TestReadFails(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, nil)
	b.arm(pwsh.Fault{Cmdlet: "Get-CsTenantDialPlan", Kind: pwsh.Die})
	_, err := b.admin(0).List(t.Context(), teamsadmin.DialPlan)
	want(t, "List", err, fault.Unavailable, powershell.CodeWorker, "retry")
	if f := fault.As(err); f.RetryAfter <= 0 || f.RetryAfter > time.Minute {
		t.Errorf("retry after %v", f.RetryAfter)
	}
}

// Success is reported, but the usages are not there: AddUsages does not report success.
func TestUsagesThatDoNotAppear(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, nil)
	admin := b.admin(0)
	if _, err := admin.Usages(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.arm(pwsh.Fault{Cmdlet: "Set-CsOnlinePstnUsage", Kind: pwsh.Nothing})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := admin.AddUsages(ctx, "Tandem"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("AddUsages: %v; want unavailable", err)
	}
}

// tenant-cases 5: a child that reaches another tenant is killed, and nothing is written.
func TestWrongTenant(t *testing.T) {
	t.Parallel()
	const other = "99999999-0000-4000-8000-000000000009"
	b := newBed(t, 1, nil)
	admin := b.admin(0)
	b.arm(pwsh.Fault{Cmdlet: "Get-CsTenant", Kind: pwsh.Tenant, Text: other})
	err := admin.Create(t.Context(), dialPlan)
	want(t, "Create", err, fault.Unavailable, powershell.CodeWrongTenant, other)
	if !strings.Contains(err.Error(), b.tenants[0].ID) || b.exists(0) ||
		slices.Contains(b.cmdlets(), "New-CsTenantDialPlan") {
		t.Errorf("Create: %v after %v", err, b.cmdlets())
	}
	b.eventually("the child's end", func() bool { return b.children() == 0 })

	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.wrong, []string{b.tenants[0].ID, other}) {
		t.Errorf("events: %v", b.wrong)
	}
}

// A child is asked again before later changes: here before each, in a deployment after a minute.
func TestWrongTenantLater(t *testing.T) {
	t.Parallel()
	const other = "99999999-0000-4000-8000-000000000009"
	b := newBed(t, 1, nil)
	b.worker.CheckAlways()
	admin := b.admin(0)
	if err := admin.Create(t.Context(), dialPlan); err != nil {
		t.Fatal(err)
	}
	b.arm(pwsh.Fault{Cmdlet: "Get-CsTenant", Kind: pwsh.Tenant, Text: other})
	want(t, "Delete", admin.Delete(t.Context(), dialPlan.Type, dialPlan.Identity), fault.Unavailable,
		powershell.CodeWrongTenant, other)
	if slices.Contains(b.cmdlets(), "Remove-CsTenantDialPlan") || !b.exists(0) {
		t.Errorf("commands: %v", b.cmdlets())
	}
}

// tokens gives tokens in their order: the next one after each refusal.
type tokens struct {
	mu   sync.Mutex
	left []string
}

func (k *tokens) Token(context.Context) (secret.Text, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.left) == 0 {
		return secret.Text{}, fault.New(fault.Unauthenticated, "SignInNeeded", "sign in")
	}
	return secret.New(k.left[0]), nil
}

func (k *tokens) Refused(token secret.Text, _ string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.left) > 0 && token.Reveal() == k.left[0] {
		k.left = k.left[1:]
	}
}

func (k *tokens) Forbidden(secret.Text) bool { return false }

// A refused token is replaced once; tokens are nowhere but in the sign-in.
func TestTokens(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, nil)
	real := b.signIn(0)
	text, err := real.Teams.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	admin := b.worker.Admin(b.tenants[0].ID, powershell.SignIn{Graph: &tokens{left: []string{"g1", "g2", "g3"}},
		Teams: &tokens{left: []string{"refused", text.Reveal()}}})
	if err := admin.Create(t.Context(), dialPlan); err != nil {
		t.Fatal(err)
	}
	var used []any
	for _, r := range b.seen() {
		if r.Cmdlet == "Connect-MicrosoftTeams" {
			used = append(used, r.Parameters["AccessTokens"].([]any)...)
			if len(r.Parameters) != 1 {
				t.Errorf("signed in with %v", r.Parameters)
			}
		} else if strings.Contains(fmt.Sprint(r), text.Reveal()) {
			t.Errorf("%s has the token", r.Cmdlet)
		}
	}
	if fmt.Sprint(used) != fmt.Sprint([]string{"g1", "refused", "g2", text.Reveal()}) {
		t.Errorf("signed in with %v", used)
	}
	if strings.Contains(b.logged(), text.Reveal()) {
		t.Error("the log has the token")
	}

	admin = b.worker.Admin(b.tenants[0].ID, powershell.SignIn{Graph: &tokens{}, Teams: &tokens{}})
	want(t, "without tokens", admin.Create(t.Context(), dialPlan), fault.Unauthenticated, "SignInNeeded", "")
}

// The module wants two tokens that expire within 90 minutes of each other: both are renewed.
func TestTokensThatExpireApart(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, nil)
	text, err := b.signIn(0).Teams.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.arm(pwsh.Fault{Cmdlet: "Connect-MicrosoftTeams", Kind: pwsh.Refuse, Code: "Connect-MicrosoftTeams,X",
		Text: "The provided tokens must have less than 5400 seconds difference in the time range of expiration."})
	graph, teams := &tokens{left: []string{"g1", "g2"}}, &tokens{left: []string{"t1", text.Reveal()}}
	admin := b.worker.Admin(b.tenants[0].ID, powershell.SignIn{Graph: graph, Teams: teams})
	if _, err := admin.Usages(t.Context()); err != nil || len(graph.left) != 1 || len(teams.left) != 1 {
		t.Errorf("Usages: %v; left %v, %v", err, graph.left, teams.left)
	}
}

func TestModule(t *testing.T) {
	for text, change := range map[string]func(*powershell.Config, *pwsh.Config){
		"install the module":   func(c *powershell.Config, _ *pwsh.Config) { c.Module = "/nowhere/MicrosoftTeams" },
		"update the module":    func(_ *powershell.Config, s *pwsh.Config) { s.Version = "7.1.0" },
		"to 7.1.1":             func(_ *powershell.Config, s *pwsh.Config) { s.Version = "6.9.1-preview" },
		"install PowerShell 7": func(c *powershell.Config, _ *pwsh.Config) { c.Command = "/nowhere/pwsh" },
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 1, change)
			admin := b.admin(0)
			_, err := admin.Usages(t.Context())
			want(t, "Usages", err, fault.Unavailable, powershell.CodeWorker, text)

			ctx, cancel := context.WithTimeout(t.Context(), 0)
			defer cancel()
			_, err = admin.Usages(ctx) // during the back-off
			want(t, "Usages", err, fault.Unavailable, powershell.CodeWorker, "in a row")
		})
	}
	for _, version := range []string{"7.1.1", "7.10.0", "8.0"} {
		b := newBed(t, 1, func(_ *powershell.Config, s *pwsh.Config) { s.Version = version })
		if _, err := b.admin(0).Usages(t.Context()); err != nil {
			t.Errorf("version %s: %v", version, err)
		}
	}
}

// More tenants than children: each gets its turn, and each child has one tenant.
func TestPool(t *testing.T) {
	b := newBed(t, 4, func(cfg *powershell.Config, _ *pwsh.Config) { cfg.MaxChildren = 2 })
	var jobs sync.WaitGroup
	for i := range b.tenants {
		admin := b.admin(i)
		for range 2 {
			jobs.Go(func() {
				if _, err := admin.Usages(t.Context()); err != nil {
					t.Errorf("tenant %d: %v", i, err)
				}
				if n := b.children(); n > 2 {
					t.Errorf("%v children", n)
				}
			})
		}
	}
	jobs.Wait()
}

// An idle child is stopped, with its home directory.
func TestIdle(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	b := newBed(t, 1, func(cfg *powershell.Config, _ *pwsh.Config) { cfg.IdleTimeout = 100 * time.Millisecond })
	if _, err := b.admin(0).Usages(t.Context()); err != nil {
		t.Fatal(err)
	}
	homes := func() []string {
		names, err := filepath.Glob(filepath.Join(temporary, "tandem-powershell-*", "home-*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	b.eventually("the child's end", func() bool { return b.children() == 0 && len(homes()) == 0 })
	if _, err := b.admin(0).Usages(t.Context()); err != nil {
		t.Error(err)
	}
	b.stop()
	if names, err := filepath.Glob(filepath.Join(temporary, "*")); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// When the worker stops, or the caller does, a command that hangs ends at once.
func TestCommandsEnd(t *testing.T) {
	for name, end := range map[string]func(b *bed, cancel func()){
		"worker": func(b *bed, _ func()) { b.stop() }, "caller": func(_ *bed, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 1, nil)
			b.arm(pwsh.Fault{Cmdlet: "New-CsTenantDialPlan", Kind: pwsh.HangAfter})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error)
			go func() { done <- b.admin(0).Create(ctx, dialPlan) }()
			b.eventually("the change", func() bool { return b.exists(0) })
			end(b, cancel)
			want(t, "Create", <-done, fault.Unavailable, teamsadmin.CodeUnknown, "read the object back")
			b.eventually("the child's end", func() bool { return b.children() == 0 })
		})
	}
}

// tenant-cases 17: the numbers of the Global policy do not get into a new one.
func TestEmergencyNumbers(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, nil)
	admin := b.admin(0)
	if err := admin.AddUsages(t.Context(), "Tandem"); err != nil {
		t.Fatal(err)
	}
	b.tenants[0].Edit(func(s *microsoft.State) {
		s.Configurations["TeamsEmergencyCallRoutingPolicy"]["global"]["EmergencyNumbers"] = []any{map[string]any{
			"EmergencyDialString": "911", "EmergencyDialMask": "933", "OnlinePSTNUsage": "Foreign-1"}}
	})
	policy := teamsadmin.Object{Type: teamsadmin.EmergencyPolicy, Identity: "Tandem",
		Settings: teamsadmin.Settings{"EmergencyNumbers": []any{map[string]any{"EmergencyDialString": "112",
			"EmergencyDialMask": nil, "OnlinePSTNUsage": "Tandem"}}}}
	if err := admin.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	is, err := admin.Read(t.Context(), policy.Type, policy.Identity)
	if err != nil || strings.Contains(fmt.Sprint(is.Settings), "911") ||
		!strings.Contains(fmt.Sprint(is.Settings), "112") {
		t.Errorf("Read = %v, %v", is, err)
	}

	b.tenants[0].Set(func(s *microsoft.Settings) { s.CopyGlobalNumbers = true })
	policy.Identity = "Tandem-2"
	want(t, "Create where Global is copied", admin.Create(t.Context(), policy), fault.Conflict,
		powershell.CodeForeignNumbers, "Global")
}

// The script runs the cmdlets that are used, and no others.
func TestScriptAllowsWhatIsUsed(t *testing.T) {
	script, err := os.ReadFile("worker.ps1")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(script), "$objects = '")
	constants, _, _ := strings.Cut(rest, "\n\n")
	constants = regexp.MustCompile(`['"] \+\s+'`).ReplaceAllString(constants, "") // join the parts
	objects, rest, _ := strings.Cut(constants, "'\n$allowed = \"")
	allowed := strings.TrimSuffix(strings.ReplaceAll(rest, "$objects", objects), "'")
	rule := regexp.MustCompile(allowed)
	for _, cmdlet := range []string{"New-CsTenantDialPlan", "Set-CsOnlineVoiceRoute", "Remove-CsOnlinePSTNGateway",
		"Get-CsOnlineVoiceRoutingPolicy", "Grant-CsCallingLineIdentity", "New-CsTeamsEmergencyCallRoutingPolicy",
		"Set-CsPhoneNumberAssignment", "Remove-CsPhoneNumberAssignment", "Get-CsPhoneNumberAssignment",
		"Set-CsOnlinePstnUsage", "Get-CsOnlinePstnUsage", "New-CsVoiceNormalizationRule", "New-CsTeamsEmergencyNumber",
		"Get-CsTenant", "Get-CsOnlineUser", "Get-CsOnlineSipDomain", "Get-CsGroupPolicyAssignment",
		"New-CsOnlineApplicationInstance", "Connect-MicrosoftTeams"} {
		if !rule.MatchString(cmdlet) {
			t.Errorf("%s is refused by %s", cmdlet, allowed)
		}
	}
	for _, cmdlet := range []string{"Invoke-Expression", "Remove-CsOnlineUser", "New-CsOnlinePstnUsage",
		"Get-CsTenant; Invoke-Expression", "Set-CsTenant", "Disconnect-MicrosoftTeams", ""} {
		if rule.MatchString(cmdlet) {
			t.Errorf("%q is allowed by %s", cmdlet, allowed)
		}
	}
}

func TestConfiguration(t *testing.T) {
	cfg := powershell.Default()
	if errs := cfg.Validate(); len(errs) > 0 {
		t.Errorf("the default: %v", errs)
	}
	cfg = powershell.Config{}
	var targets []string
	for _, err := range cfg.Validate() {
		targets = append(targets, fault.As(err).Target)
	}
	if !slices.Equal(targets, []string{"command", "module", "maxChildren", "startTimeout", "commandTimeout",
		"idleTimeout"}) {
		t.Errorf("an empty one: problems with %v", targets)
	}
}
