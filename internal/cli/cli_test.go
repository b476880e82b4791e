package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

func TestReferenceIsUpToDate(t *testing.T) {
	t.Parallel()
	got, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != Reference() {
		t.Error("docs/cli.md differs from the commands; run make generate")
	}
}

// TestHelpShowsTheDefaultDataDirectory: the one without TANDEM_DATA, whatever the variable's value.
func TestHelpShowsTheDefaultDataDirectory(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	env := []string{"TANDEM_DATA=/from/variable", "HOME=/home/ada"}
	if code := Run(t.Context(), Program{Args: []string{"status", "--help"}, Env: env, Stdout: &out,
		Stderr: io.Discard}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	want := "(default $TANDEM_DATA, else " + config.DefaultData([]string{"HOME=/home/ada"}) + ")"
	if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
		t.Errorf("the help does not contain %s:\n%s", want, &out)
	}
}

// TestEveryCommandIsComplete checks that every command and flag is documented.
func TestEveryCommandIsComplete(t *testing.T) {
	t.Parallel()
	ref := Reference()
	for _, want := range []string{"tandem serve", "tandem demo", "tandem config check", "tandem config show",
		"tandem config example", "tandem explain", "tandem token", "tandem client create", "tandem client list",
		"tandem client revoke", "tandem audit verify", "tandem account list", "tandem number list", "tandem status",
		"tandem index", "tandem index accept", "tandem restore", "tandem peers", "tandem version"} {
		if !strings.Contains(ref, "\n## "+want+"\n") {
			t.Errorf("%s is not in the reference", want)
		}
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: flag without a description: %s", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(documented("dev"))
}

// TestEntraManifest: the four application roles are those of the Provisioning API's tokens; those of people are the
// same with the suffix User. Entra wants each id once.
func TestEntraManifest(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if code := Run(t.Context(), Program{Args: []string{"auth", "entra", "--output", "json"}, Stdout: &out,
		Stderr: io.Discard}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	var m struct {
		API      struct{ RequestedAccessTokenVersion int }
		AppRoles []struct {
			AllowedMemberTypes []string
			ID, Value          string
			IsEnabled          bool
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &m); err != nil {
		t.Fatal(err)
	}
	got, ids := map[string][]string{}, map[string]bool{}
	for _, r := range m.AppRoles {
		kind := strings.Join(r.AllowedMemberTypes, " ")
		got[kind] = append(got[kind], r.Value)
		if _, err := uuid.Parse(r.ID); err != nil || ids[r.ID] || !r.IsEnabled {
			t.Errorf("role %+v: %v", r, err)
		}
		ids[r.ID] = true
	}
	want := map[string][]string{
		"Application": {"ProvisioningAPI.Admin", "ProvisioningAPI.Read", "ProvisioningAPI.Write",
			"ProvisioningAPI.Delete"},
		"User": {"ProvisioningAPI.AdminUser", "ProvisioningAPI.ReadUser", "ProvisioningAPI.WriteUser",
			"ProvisioningAPI.DeleteUser"}}
	if diff := cmp.Diff(want, got); diff != "" || m.API.RequestedAccessTokenVersion != 2 {
		t.Errorf("token version %d, roles (-want +got):\n%s", m.API.RequestedAccessTokenVersion, diff)
	}
}

// TestCommandsWaitOnlyIfAsked: without --wait a busy server is an error at once, with a hint; with it the command
// repeats the request until the time is used up, and says what it waits for.
func TestCommandsWaitOnlyIfAsked(t *testing.T) {
	t.Parallel()
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests < 3 {
			w.Header().Set("Retry-After", "0")
			w.Header().Set("x-ms-error-code", "TooManyRequests")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		_, _ = io.WriteString(w, `{"name":"a"}`)
	}))
	defer server.Close()
	run := func(args ...string) (code int, errs string) {
		var b strings.Builder
		args = append([]string{"account", "show", "a", "--url", server.URL}, args...)
		code = Run(t.Context(), Program{Args: args, Stdout: io.Discard, Stderr: &b})
		return code, b.String()
	}
	if code, errs := run(); code != exitUnavailable || requests != 1 || !strings.Contains(errs, "--wait 1m0s or more") {
		t.Errorf("without --wait: exit code %d after %d requests: %s", code, requests, errs)
	}
	if code, errs := run("--wait", "1h"); code != exitOK || requests != 3 ||
		strings.Count(errs, "TooManyRequests; waiting ") != 1 {
		t.Errorf("with --wait: exit code %d after %d requests: %s", code, requests, errs)
	}
}

// TestEventsSayWhereToContinue: whenever the command ends, unless there is no place to continue from.
func TestEventsSayWhereToContinue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		since, stream, code string
		want                string // after --since in the output; empty for no such output
	}{
		{"", "id: 7\ndata: {\"id\":\"7\",\"kind\":\"account.put\"}\n\n", "MissingToken", "7"},
		{"7", "", "MissingToken", "7"},
		{"", "", "MissingToken", ""},
		{"7", "", "resync", ""},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c.stream != "" && r.Header.Get("Last-Event-ID") == c.since {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, c.stream)
				return
			}
			w.Header().Set("x-ms-error-code", c.code)
			w.WriteHeader(http.StatusBadRequest)
		}))
		var errs strings.Builder
		code := Run(t.Context(), Program{Args: []string{"events", "--url", server.URL, "--since", c.since},
			Stdout: io.Discard, Stderr: &errs})
		_, place, said := strings.Cut(errs.String(), "tandem events --since \\\n  ")
		place, _, _ = strings.Cut(place, "\n")
		if code == exitOK || said != (c.want != "") || place != c.want {
			t.Errorf("%+v: exit code %d, continue from %q: %s", c, code, place, &errs)
		}
		server.Close()
	}
}

// TestUnreachableServersAreExplained: the error names the place and the remedy.
func TestUnreachableServersAreExplained(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // its port refuses connections now
	dir, url := t.TempDir(), "http://"+l.Addr().String()
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"status", "--data", dir}, exitUnavailable,
			[]string{"tandem serve is not running on " + dir, "manage.sock", "no such file", "start it", "--data"}},
		{[]string{"status", "--url", url}, exitUnavailable,
			[]string{"nothing listens at " + url, "tandem serve", "manage.listen"}},
	} {
		checkError(t, c.args, c.code, c.want...)
	}
	if os.Geteuid() != 0 { // root may open everything
		if err := os.Chmod(dir, 0); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Chmod(dir, 0o700) }() // so that it can be removed
		checkError(t, []string{"account", "list", "--data", dir}, exitRefused, dir+"/manage.sock", "sudo -u")
	}
}

// checkError runs a command that must fail with an exit code and an error that contains each text.
func checkError(t *testing.T, args []string, want int, texts ...string) {
	t.Helper()
	var errs strings.Builder
	code := Run(t.Context(), Program{Args: args, Stdout: io.Discard, Stderr: &errs})
	for _, text := range texts {
		if code != want || !strings.Contains(errs.String(), text) {
			t.Errorf("tandem %s: exit code %d, %s; want %d and %q", strings.Join(args, " "), code, &errs, want, text)
		}
	}
}

// TestUnknownSubcommands: a misspelled command is an error at every level, and prints no help on standard output.
func TestUnknownSubcommands(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"foo"}, {"number", "foo"}, {"number", "foo", "--output", "json"}, {"index", "foo"},
		{"client", "--output", "json", "foo"}, {"status", "foo"}} {
		var out, errs strings.Builder
		code := Run(t.Context(), Program{Args: args, Stdout: &out, Stderr: &errs})
		if code != exitUsage || out.Len() > 0 || !strings.Contains(errs.String(), `unknown command "foo"`) {
			t.Errorf("tandem %s: exit code %d, %q, %q", strings.Join(args, " "), code, out.String(), errs.String())
		}
	}
	for _, args := range [][]string{{"number"}, {"number", "--help"}, {"help", "number"}, {"--version"}} {
		var out strings.Builder
		code := Run(t.Context(), Program{Version: "v1", Args: args, Stdout: &out, Stderr: io.Discard})
		if code != exitOK || out.Len() == 0 {
			t.Errorf("tandem %s: exit code %d, %q", strings.Join(args, " "), code, out.String())
		}
	}
}

func TestErrorsBecomeExitCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{usageError{errors.New("x")}, 2},
		{fault.New(fault.NotFound, "X", "x"), 3},
		{fmt.Errorf("wrapped: %w", fault.New(fault.Forbidden, "X", "x")), 4},
		{fault.New(fault.Conflict, "X", "x"), 5},
		{fault.New(fault.Unavailable, "X", "x"), 6},
		{fault.New(fault.Internal, "X", "x"), 1},
		{&client.Error{Status: 400}, 2},
		{&client.Error{Status: 401}, 4},
		{&client.Error{Status: 404}, 3},
		{&client.Error{Status: 412}, 5},
		{&client.Error{Status: 429}, 6},
		{&client.Error{Status: 500}, 1},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("exitCode(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestTableIsOneLinePerRowWithoutATerminal(t *testing.T) {
	t.Parallel()
	g := &grid{head: []string{"a", "long head"}}
	g.add("x", 1)
	g.add("longer", strings.Repeat("word ", 50)+"end")
	var p page
	p.table(g)
	want := "A       LONG HEAD\nx       1\nlonger  " + strings.Repeat("word ", 50) + "end\n"
	if p.String() != want {
		t.Errorf("table:\n%q, want\n%q", p.String(), want)
	}
}

func TestBatchesAreOfOneAccountAndFit(t *testing.T) {
	t.Parallel()
	var in []client.Number
	for i := range 250 {
		in = append(in, client.Number{AccountName: map[bool]string{true: "a", false: "b"}[i < 130]})
	}
	var sizes []int
	for b := range batches(in) {
		sizes = append(sizes, len(b))
		for _, n := range b {
			if n.AccountName != b[0].AccountName {
				t.Error("a batch of two accounts")
			}
		}
	}
	if fmt.Sprint(sizes) != "[100 30 100 20]" {
		t.Errorf("batches of %v", sizes)
	}
}

// TestFilesAreReadStrictly: what is wrong is named in words, with its place, and an absent member is not an empty one.
func TestFilesAreReadStrictly(t *testing.T) {
	t.Parallel()
	const good = `{"telephoneNumber":"+15550100","accountName":"a","serviceDetails":{}}`
	service := func(details string) string {
		return strings.Replace(good, "{}", `{"teamsDirectRouting":`+details+`}`, 1)
	}
	for _, c := range [][2]string{
		{good, ""},
		{"[" + good + "," + good + "]", ""},
		{`[]`, ""},
		{service(`{"enabled":false}`), ""},
		{"{\n\n\"accountName\" \"a\"}", "line 3: invalid character"},
		{good + `x`, "after top-level value"},
		{`"+15550100"`, "f.json: the body must be an object, not a string"},
		{`{"accountName":"a","serviceDetails":{}}`, "f.json: telephoneNumber is missing"},
		{service(`{}`), "serviceDetails.teamsDirectRouting.enabled is missing"},
		{service(`{"enabled":"yes"}`),
			"serviceDetails.teamsDirectRouting.enabled must be a boolean, not a string"},
		{"[" + good + `,{"telephoneNumber":15550100,"accountName":"a","serviceDetails":{}}]`,
			"[1].telephoneNumber must be a string, not a number"},
		{`{"telephonNumber":"+15550100","accountName":null,"serviceDetails":[]}`,
			"f.json: telephoneNumber is missing\nf.json: accountName must be a string, not null\n" +
				"f.json: serviceDetails must be an object, not an array\nf.json: telephonNumber is not a member"},
		{`{"telephoneNumber":"1","telephoneNumber":"2"}`, "telephoneNumber appears twice"},
		{"[" + good + `,{"a":1,"a":2}]`, "f.json: [1]: the member a appears twice"},
	} {
		in, want := c[0], c[1]
		_, err := decode[client.Number]("f.json", []byte(in))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("decode(%s): %v, want %s", in, err, want)
		}
		if err != nil && exitCode(err) != exitUsage {
			t.Errorf("decode(%s): exit code %d", in, exitCode(err))
		}
	}
	if _, err := readFile[client.Number](&target{}, nil, "/no/such/file"); exitCode(err) != exitUsage {
		t.Errorf("a file that does not exist: %v", err)
	}
}
