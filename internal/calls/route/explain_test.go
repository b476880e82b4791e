package route_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
)

var update = flag.Bool("update", false, "rewrite the expected halves of testdata/explain")

// TestExplain decides the calls of testdata/explain, one file each: the call, a line "---", then the decision and every
// rule tried. Directory and policy are those of newWorld and config.
func TestExplain(t *testing.T) {
	files, err := filepath.Glob("testdata/explain/*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("found %d cases (%v), want at least 40", len(files), err)
	}
	p, w := policy(t), newWorld()
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want, _ := strings.Cut(string(text), "---\n")
			f := call(t, in)
			x := route.Explain(w, p, f)
			got := render(x)
			if *update {
				if err := os.WriteFile(file, []byte(in+"---\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("explanation of\n%s\ndiffers (-want +got):\n%s", in, diff)
			}
			if d := route.Decide(w, p, f); !reflect.DeepEqual(d, x.Decision) {
				t.Errorf("Decide = %+v, want what Explain decides: %+v", d, x.Decision)
			}
		})
	}
}

// call parses the first half of a case.
func call(t *testing.T, text string) (f domain.CallFacts) {
	t.Helper()
	party := func(s string) domain.Party {
		n, _ := domain.ParseE164(s)
		return domain.Party{Number: n, Text: s}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "group":
			f.PeerGroup = value
		case "called":
			f.Called = value
		case "host":
			f.Host, f.HostUnknown = value, value == "?"
		case "from":
			f.From = party(value)
		case "asserted":
			f.Asserted = append(f.Asserted, party(value))
		case "history":
			f.History = append(f.History, party(value))
		case "referredBy":
			f.ReferredBy = party(value)
		case "X-MS-FMC":
			f.Anchored, f.AnchoredBy = true, value
		default:
			t.Fatalf("unknown fact %q", key)
		}
	}
	return f
}

func render(x route.Explanation) string {
	var b strings.Builder
	d := x.Decision
	fmt.Fprintf(&b, "%s by %s\n", d.Outcome, d.Rule)
	line := func(name, value string) {
		if value != "" && value != "none" {
			fmt.Fprintf(&b, "  %s: %s\n", name, value)
		}
	}
	if d.Status != 0 {
		line("answer", fmt.Sprintf("%d %q", d.Status, d.Warning))
	}
	line("service", d.Service.String())
	line("groups", strings.Join(d.Groups, ", "))
	if d.Account != nil {
		line("account", d.Account.Name)
	}
	line("identity", string(d.Identity))
	line("identity from", d.IdentitySource.String())
	if d.Caller != d.Identity {
		line("caller", string(d.Caller))
	}
	line("in From", string(d.From))
	line("header", d.Header)
	if d.Emergency {
		line("emergency", "yes")
	}
	b.WriteString("rules\n")
	for _, s := range x.Steps {
		fmt.Fprintf(&b, "  %-22s %-8s %s\n", s.Rule, s.Result, s.Text)
		for _, f := range s.Facts {
			fmt.Fprintf(&b, "  %-22s %-8s   %s=%s\n", "", "", f.Name, f.Value)
		}
	}
	return b.String()
}
