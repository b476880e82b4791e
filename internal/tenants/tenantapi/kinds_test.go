package tenantapi_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The contract enumerates each kind of event that concerns tenants, and no other.
func TestContractNamesAllKinds(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..", "..")
	contract, err := os.ReadFile(filepath.Join(root, "api", "manage", "v1.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, kinds, found := strings.Cut(string(contract), "What happened. `stream.start`")
	kinds, _, ends := strings.Cut(kinds, "subject:")
	if !found || !ends {
		t.Fatal("the contract has no kinds of events")
	}
	want := unique(regexp.MustCompile("`((?:tenant|template|carrier)\\.[A-Za-z.]+)`"), kinds)

	var code strings.Builder
	err = filepath.WalkDir(filepath.Join(root, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		code.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got := unique(regexp.MustCompile(`"((?:tenant|template|carrier)(?:\.[A-Za-z]+)+)"`), code.String())
	if diff := cmp.Diff(want, got); diff != "" || len(got) < 30 {
		t.Errorf("kinds of events (-contract +code):\n%s", diff)
	}
}

// unique returns what the first group of a pattern matches in a text, sorted.
func unique(p *regexp.Regexp, text string) (all []string) {
	for _, m := range p.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}
