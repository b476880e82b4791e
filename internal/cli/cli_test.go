package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

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
	if !strings.Contains(out.String(), want) {
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
	for line := range strings.Lines(ref) {
		if flag, usage, ok := strings.Cut(line, "` | "); ok && strings.TrimSpace(strings.Trim(usage, "|\n ")) == "" {
			t.Errorf("flag without a description: %s", flag)
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

func TestGridIsReadableWithoutATerminal(t *testing.T) {
	t.Parallel()
	g := &grid{head: []string{"a", "long head"}}
	g.add("x", 1)
	g.add("longer", "")
	var b strings.Builder
	if err := g.write(&b); err != nil {
		t.Fatal(err)
	}
	want := "A       LONG HEAD\nx       1\nlonger  \n"
	if b.String() != want {
		t.Errorf("grid:\n%q, want\n%q", b.String(), want)
	}
}

func TestGridFitsATerminal(t *testing.T) {
	t.Parallel()
	g := &grid{head: []string{"rule", "result", "why"}}
	g.add("provisioned-service", "decides",
		strings.Repeat("+442079460123 is provisioned for Microsoft Teams Direct Routing ", 3))
	total := 1
	for _, c := range g.widths() {
		total += c.WidthMax + 3
	}
	if total > tableWidth {
		t.Errorf("the table is %d columns wide", total)
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

func TestFilesAreReadStrictly(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{
		`{"telephoneNumber":"+15550100"}`:                                   1,
		`[{"telephoneNumber":"+15550100"},{"telephoneNumber":"+15550101"}]`: 2,
		`{"telephonNumber":"+15550100"}`:                                    -1,
		`nonsense`:                                                          -1,
	} {
		got, err := readNumbers(strings.NewReader(in), "-")
		if (err != nil) != (want < 0) || err == nil && len(got) != want {
			t.Errorf("readNumbers(%s) = %d numbers, %v", in, len(got), err)
		}
		if err != nil && exitCode(err) != exitUsage {
			t.Errorf("readNumbers(%s): exit code %d", in, exitCode(err))
		}
	}
	if _, err := readNumbers(io.NopCloser(nil), "/no/such/file"); exitCode(err) != exitUsage {
		t.Errorf("a file that does not exist: %v", err)
	}
}
