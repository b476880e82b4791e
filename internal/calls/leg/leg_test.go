package leg_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

func parse(t *testing.T, lines ...string) *sip.Message {
	t.Helper()
	m, problem := sip.Parse(strings.Join(lines, "\r\n")+"\r\n\r\n", nil)
	if problem != nil {
		t.Fatal(problem)
	}
	return m
}

func TestFacts(t *testing.T) {
	m := parse(t,
		"INVITE sip:+44%2D(20)7946-0100;rn=+441632960000;npdi@Contoso.1R1.gw.example.com.:5063;user=phone SIP/2.0",
		"From: \"A, B\" <sip:anonymous@anonymous.invalid>;tag=1",
		"To: <sip:x@y>",
		"p-asserted-identity: <sip:alice@contoso.example>, <tel:+44-20-7946-0101;ext=5>",
		"P-Asserted-Identity: <sip:+442079460102@x;user=phone>",
		"History-Info: <sip:+442079460105@h?Reason=SIP%3Bcause%3D302>;index=1.2,<sip:+442079460104@h>;index=1.1",
		"History-Info: <tel:+442079460103>;index=1, <sip:bob@h>;index=1.10",
		"b: <sip:+442079460106@h;x-m=8:orgid:1>;x-t=2",
		"x-ms-fmc: APP",
	)
	got := leg.Facts(m, "teams")
	want := domain.CallFacts{
		PeerGroup: "teams", Called: "+442079460100", Host: "contoso.1r1.gw.example.com",
		From: domain.Party{Text: "anonymous"},
		Asserted: []domain.Party{{Text: "alice"}, {Number: "+442079460101", Text: "+442079460101"},
			{Number: "+442079460102", Text: "+442079460102"}},
		History: []domain.Party{{Number: "+442079460103", Text: "+442079460103"},
			{Number: "+442079460104", Text: "+442079460104"},
			{Number: "+442079460105", Text: "+442079460105"}, {Text: "bob"}},
		ReferredBy: domain.Party{Number: "+442079460106", Text: "+442079460106"},
		Anchored:   true, AnchoredBy: "APP",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Facts differ (-want +got):\n%s", diff)
	}
}

func TestFactsOfOddMessages(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		want domain.CallFacts
	}{
		"tel": {"INVITE tel:999;phone-context=+44 SIP/2.0",
			domain.CallFacts{Called: "999", CalledContext: "+44"}},
		"no user":      {"INVITE sip:gw.example.com SIP/2.0", domain.CallFacts{Host: "gw.example.com"}},
		"a name":       {"INVITE sip:reception@gw SIP/2.0", domain.CallFacts{Called: "reception", Host: "gw"}},
		"other scheme": {"INVITE urn:service:sos SIP/2.0", domain.CallFacts{}},
		"IPv6": {"INVITE sip:+442079460100@[2001:DB8::1]:5060 SIP/2.0",
			domain.CallFacts{Called: "+442079460100", Host: "[2001:db8::1]"}},
		"national number": {"INVITE sip:02079460100@gw SIP/2.0", domain.CallFacts{Called: "02079460100", Host: "gw"}},
	} {
		got := leg.Facts(parse(t, c.line, "From: <<bad"), "")
		c.want.From = domain.Party{Text: "<<bad"}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: Facts differ (-want +got):\n%s", name, diff)
		}
	}
	// Indexes that cannot be read leave the entries in the order of the message.
	got := leg.Facts(parse(t, "INVITE sip:a@b SIP/2.0",
		"History-Info: <sip:+12@h>;index=2, <sip:+13@h>;index=x, <sip:+14@h>"), "")
	if len(got.History) != 3 || got.History[0].Number != "+12" || got.History[2].Number != "+14" {
		t.Errorf("History = %v, want the message's order", got.History)
	}
}

// TestRelayMatchesDocument compares docs/sip-headers.md with the code: every line that the tables list is stopped and
// no other line is, whether its name is known or not.
func TestRelayMatchesDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/sip-headers.md")
	if err != nil {
		t.Fatal(err)
	}
	table := func(from, to string) map[string]bool {
		_, s, ok := strings.Cut(string(text), from)
		if !ok {
			t.Fatalf("no %q in the document", from)
		}
		s, _, _ = strings.Cut(s, to)
		names := map[string]bool{}
		for line := range strings.Lines(s) {
			cells := strings.Split(line, "|")
			if len(cells) < 3 || strings.Contains(cells[1], "towards") {
				continue
			}
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				names[strings.ToLower(m[1])] = true
			}
		}
		return names
	}
	stopped := table("## Lines that do not pass", "Towards a service")
	delete(stopped, "customsipheader")
	stopped[strings.ToLower(leg.DefaultCustomSIPHeader)] = true
	stripped := table("Towards a service, these too", "## Lines Tandem writes")
	if len(stopped) < 15 || len(stripped) < 6 {
		t.Fatalf("read %d and %d names from the document", len(stopped), len(stripped))
	}

	rules := legtest.Rules(t)
	src := sip.NewRequest(sip.INVITE, "sip:a@b")
	var names []string
	for k := sip.KindOther + 1; k.String() != "other"; k++ {
		names = append(names, k.String())
	}
	names = append(names, "X-MS-SBC", "X-MS-TenantID", "X-MSTenantID", "X-MS-FMC", "x-ms-operator-CONTENT",
		"X-Anything", "Remote-Party-ID")
	for _, n := range names {
		src.AddName(n, "value of "+n)
	}
	dst := sip.NewRequest(sip.INVITE, "sip:a@b")
	rules.Relay(dst, src)
	last := -1
	for _, n := range names {
		i := dst.FindName(n)
		if got, want := i < 0, stopped[strings.ToLower(n)]; got != want {
			t.Errorf("%s: stopped = %v, the document says %v", n, got, want)
		}
		if i >= 0 {
			if i <= last || dst.At(i).String() != n+": value of "+n {
				t.Errorf("%s: line %d after %d is %q, want it in its place and unchanged", n, i, last, dst.At(i))
			}
			last = i
		}
	}
	rules.StripForService(dst)
	for _, n := range names {
		if got, want := dst.FindName(n) < 0, stopped[strings.ToLower(n)] || stripped[strings.ToLower(n)]; got != want {
			t.Errorf("towards a service %s: stopped = %v, the document says %v", n, got, want)
		}
	}
}

func TestRelayKeepsBytes(t *testing.T) {
	raw := "INVITE sip:a@b SIP/2.0\r\nv: SIP/2.0/UDP x\r\nsUbJect:\t odd \r\nk: timer,\r\n 100rel\r\n" +
		"X-Long: \"a\r\n  b\"\r\nc: text/plain\r\nl: 5\r\n\r\n\x00\r\n\xff\""
	src, problem := sip.Parse(raw, nil)
	if problem != nil {
		t.Fatal(problem)
	}
	dst := sip.NewRequest(sip.INVITE, "sip:a@b")
	legtest.Rules(t).Relay(dst, src)
	want := "INVITE sip:a@b SIP/2.0\r\nsUbJect:\t odd \r\nk: timer,\r\n 100rel\r\nX-Long: \"a\r\n  b\"\r\n" +
		"c: text/plain\r\nContent-Length: 5\r\n\r\n\x00\r\n\xff\""
	if got := dst.String(); got != want {
		t.Errorf("relayed = %q, want %q", got, want)
	}
}

// An INVITE with Replaces is refused, so Supported must not tell the far side that it may send one.
func TestRelaySupported(t *testing.T) {
	cfg := leg.Default()
	rules := cfg.Rules("test")
	for in, want := range map[string]string{
		"Supported:  timer,100rel": "Supported:  timer,100rel", // untouched
		"k: timer, Replaces,join":  "k: timer",
		"Supported: tdialog":       "",
		"Supported:":               "Supported:",
	} {
		src, p := sip.Parse("OPTIONS sip:a@b.example SIP/2.0\r\n"+in+"\r\nContent-Length: 0\r\n\r\n", nil)
		if p != nil {
			t.Fatal(p)
		}
		dst := sip.NewRequest(sip.OPTIONS, "sip:c@d.example")
		rules.Relay(dst, src)
		got := ""
		if i := dst.Find(sip.KindSupported); i >= 0 {
			got = dst.At(i).String()
		}
		if got != want {
			t.Errorf("Relay(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestConfigProblems(t *testing.T) {
	c := leg.Config{CustomSIPHeader: "X-This-Name-Has-More-Than-32-Characters", Product: "two\nlines", Region: 3}
	var paths []string
	for _, err := range c.Validate() {
		var f *fault.Error
		if !errors.As(err, &f) {
			t.Fatalf("%v is not a *fault.Error", err)
		}
		paths = append(paths, f.Target)
	}
	if diff := cmp.Diff([]string{"customSipHeader", "product", "region"}, paths); diff != "" {
		t.Errorf("problems differ (-want +got):\n%s", diff)
	}
	for _, name := range []string{"Via", "f", "X-MS-SBC", "x-ms-fmc", "X Y", "X:Y", "X\r\nY"} {
		c := leg.Config{CustomSIPHeader: name}
		if len(c.Validate()) == 0 {
			t.Errorf("customSipHeader %q is accepted", name)
		}
	}
	for _, c := range []leg.Config{{}, leg.Default(), {CustomSIPHeader: "X-Account-Ref"}} {
		if p := c.Validate(); len(p) != 0 {
			t.Errorf("%+v: %v, want no problem", c, p)
		}
	}
}

func ExampleAddr_Contact() {
	fmt.Println(leg.Addr{Host: "contoso.1r1.gw.example.com", Port: 5063, Transport: "tls"}.Contact("+442079460100"))
	fmt.Println(leg.Addr{Host: "2001:db8::1"}.Contact(""))
	// Output:
	// <sip:+442079460100@contoso.1r1.gw.example.com:5063;transport=tls>
	// <sip:[2001:db8::1]>
}
