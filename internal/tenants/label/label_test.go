package label_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/label"
)

const short = "gw.example.com" // 14 characters: labels of 10 fit

// long returns a base domain of n characters.
func long(n int) string { return strings.Repeat("b", n-4) + ".net" }

// TestPropose is the rule as a table: the initial domain without ".onmicrosoft.com", cut at a hyphen to 10 characters
// or to what a full name of 48 leaves, made unique with a number.
func TestPropose(t *testing.T) {
	const com = ".onmicrosoft.com"
	for _, c := range []struct{ initial, base, taken, want string }{
		// As it is.
		{"contoso" + com, short, "", "contoso"},
		{"contoso", short, "", "contoso"},
		{"a" + com, short, "", "a"},
		{"abcdefghij" + com, short, "", "abcdefghij"},
		{"contoso.onmicrosoft.us", short, "", "contoso"},
		{"contoso.partner.onmschina.cn", short, "", "contoso"},
		{" contoso" + com + " ", short, "", "contoso"},
		{"a-b" + com, short, "", "a-b"},
		// Case.
		{"ConToso" + com, short, "", "contoso"},
		{"CONTOSO.ONMICROSOFT.COM", short, "", "contoso"},
		// Cut.
		{"abcdefghijk" + com, short, "", "abcdefghij"},
		{"contoso-netherlands" + com, short, "", "contoso"},
		{"northwind-traders-uk" + com, short, "", "northwind"},
		{"acme-bau-gmbh" + com, short, "", "acme-bau"},
		{"abcdefghij-k" + com, short, "", "abcdefghij"},
		{"a-verylongname" + com, short, "", "a-verylong"},
		{"ab-verylongname" + com, short, "", "ab-verylon"},
		{"abc-verylongname" + com, short, "", "abc"},
		{"abcdefghi-jk" + com, short, "", "abcdefghi"},
		{"a-bcdefgh-ijk" + com, short, "", "a-bcdefgh"},
		// The full name has at most 48 characters: label + ".1r1." + base.
		{"abcdefghijk" + com, long(33), "", "abcdefghij"},
		{"abcdefghijk" + com, long(34), "", "abcdefghi"},
		{"contoso" + com, long(40), "", "con"},
		{"contoso" + com, "", "", "contoso"},
		{"abcdefghijk" + com, "", "", "abcdefghij"},
		// Hyphens.
		{"-contoso-" + com, short, "", "contoso"},
		{"con--toso" + com, short, "", "con-toso"},
		{"con_toso" + com, short, "", "con-toso"},
		{"con toso" + com, short, "", "con-toso"},
		{"con–toso" + com, short, "", "con-toso"},
		// Letters beyond a–z, also encoded.
		{"müller" + com, short, "", "mueller"},
		{"MÜLLER" + com, short, "", "mueller"},
		{"mu\u0308ller" + com, short, "", "mueller"},
		{"xn--mller-kva" + com, short, "", "mueller"},
		{"straße" + com, short, "", "strasse"},
		{"crédit" + com, short, "", "credit"},
		{"łódź" + com, short, "", "lodz"},
		{"smørrebrød" + com, short, "", "smoerrebro"},
		{"ＡＣＭＥ" + com, short, "", "acme"},
		{"xn--" + com, short, "", "tenant"},
		// Nothing is left.
		{"", short, "", "tenant"},
		{"日本" + com, short, "", "tenant"},
		{"---" + com, short, "tenant", "tenant2"},
		// Digits first.
		{"3m" + com, short, "", "3m"},
		{"365" + com, short, "", "365"},
		{"1r1" + com, short, "", "1r1-2"},
		// Reserved names.
		{"r1" + com, short, "", "r1-2"},
		{"1-R2" + com, short, "", "1-r2-2"},
		{"provapi" + com, short, "", "provapi2"},
		{"hooks" + com, short, "hooks2", "hooks3"},
		{"Onboard" + com, short, "", "onboard2"},
		{"hooks-hotels" + com, short, "", "hooks2"},
		{"r1x" + com, short, "", "r1x"},
		{"r" + com, short, "r", "r-2"},
		// Collisions.
		{"contoso" + com, short, "contoso", "contoso2"},
		{"Contoso" + com, short, "contoso contoso2 contoso3", "contoso4"},
		{"abcdefghijk" + com, short, "abcdefghij", "abcdefghi2"},
		{"contoso" + com, short, "contoso contoso2 contoso3 contoso4 contoso5 contoso6 contoso7 contoso8 contoso9",
			"contoso10"},
		{"abcdefghi-jk" + com, short, "abcdefghi", "abcdefghi2"},
		{"abcdefghij-k" + com, short, "abcdefghij", "abcdefghi2"},
		{"area51" + com, short, "area51", "area51-2"},
		{"acme-bau-gmbh" + com, short, "acme-bau", "acme-bau2"},
		{"acmes-bau-gmbh" + com, short, "acmes-bau", "acmes-bau2"},
		{"ab" + com, long(42), "a", "none"},
	} {
		used := map[string]bool{}
		for _, l := range strings.Fields(c.taken) {
			used[l] = true
		}
		got, err := label.Propose(c.initial, c.base, func(l string) (bool, error) { return used[l], nil })
		if c.want == "none" {
			if !fault.HasCode(err, "NoFreeLabel") {
				t.Errorf("Propose(%q, %q) = %q, %v, want NoFreeLabel", c.initial, c.base, got, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("Propose(%q, %q) with %q taken = %q, %v, want %q", c.initial, c.base, c.taken, got, err, c.want)
		}
	}
}

// TestProposalsAreValid: whatever the initial domain is, the proposal is a label that the directory accepts, is neither
// reserved nor taken, and is the same when asked again.
func TestProposalsAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		initial := rapid.OneOf(rapid.String(),
			rapid.StringMatching(`(xn--)?[a-zäöüß0-9_-]{0,27}\.onmicrosoft\.com`),
			rapid.StringMatching(`(r|1r|1-r|hooks|provapi|onboard)[0-9]?\.onmicrosoft\.com`)).Draw(t, "initial")
		base := long(rapid.IntRange(6, 38).Draw(t, "base"))
		used := map[string]bool{}
		taken := func(l string) (bool, error) { return used[l], nil }
		for range rapid.IntRange(1, 12).Draw(t, "labels") {
			got, err := label.Propose(initial, base, taken)
			if err != nil {
				t.Fatalf("Propose(%q, %q): %v", initial, base, err)
			}
			if err := label.Check(got, base); err != nil || used[got] || got != strings.ToLower(got) ||
				strings.Contains(got, "--") || len(got)+len(".1r1.")+len(base) > 48 {
				t.Fatalf("Propose(%q, %q) = %q: %v, taken %v", initial, base, got, err, used[got])
			}
			if again, _ := label.Propose(initial, base, taken); again != got {
				t.Fatalf("Propose(%q, %q) = %q, then %q", initial, base, got, again)
			}
			used[got] = true
		}
	})
}

func TestProposeFails(t *testing.T) {
	none := func(string) (bool, error) { return false, nil }
	if got, err := label.Propose("contoso.onmicrosoft.com", long(43), none); !fault.HasCode(err, "InvalidLabel") {
		t.Errorf("below a base domain of 43 characters: %q, %v, want InvalidLabel", got, err)
	}
	down := errors.New("database down")
	if _, err := label.Propose("contoso", short, func(string) (bool, error) { return false, down }); err != down {
		t.Errorf("error %v, want that of taken", err)
	}
	asked := 0
	got, err := label.Propose("contoso", short, func(string) (bool, error) { asked++; return true, nil })
	if !fault.HasCode(err, "NoFreeLabel") || asked != 9999 {
		t.Errorf("with all labels taken: %q, %v after %d labels, want NoFreeLabel after 9999", got, err, asked)
	}
}

// TestCheck: a chosen label may be in upper case, as the contract allows.
func TestCheck(t *testing.T) {
	for l, want := range map[string]string{
		"contoso": "", "Contoso": "", "1": "", "a-b": "", "abcdefghij": "", "r": "", "r1x": "", "hook": "",
		"": "InvalidLabel", "abcdefghijk": "InvalidLabel", "a_b": "InvalidLabel", "-a": "InvalidLabel",
		"a-": "InvalidLabel", "a.b": "InvalidLabel", "ü": "InvalidLabel", "a\n": "InvalidLabel",
		"1r1": "ReservedLabel", "1R2": "ReservedLabel", "1-r1": "ReservedLabel", "r1": "ReservedLabel",
		"R10": "ReservedLabel", "provapi": "ReservedLabel", "Hooks": "ReservedLabel", "onboard": "ReservedLabel",
	} {
		err := label.Check(l, short)
		if want == "" && err != nil || want != "" && !fault.HasCode(err, want) {
			t.Errorf("Check(%q) = %v, want %q", l, err, want)
		}
	}
	if err := label.Check("abcdefghij", long(34)); !fault.HasCode(err, "InvalidLabel") {
		t.Errorf("a full name of 49 characters: %v, want InvalidLabel", err)
	}
}

func ExamplePropose() {
	accounts := map[string]domain.Label{"contoso": {Subdomain: "contoso"}}
	taken := func(l string) (bool, error) { _, ok := accounts[l]; return ok, nil }

	l, err := label.Propose("contoso-netherlands.onmicrosoft.com", "gw.example.com", taken)
	fmt.Println(l, err)
	// Output: contoso2 <nil>
}
