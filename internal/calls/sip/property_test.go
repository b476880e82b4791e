package sip

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// genMessage draws messages that Parse should accept, with all the freedom of the
// grammar: case, compact forms, spacing, folds, lists, bodies.
func genMessage(t *rapid.T) string {
	var b strings.Builder
	pick := func(label string, s ...string) string { return rapid.SampledFrom(s).Draw(t, label) }
	sp := func() string { return pick("space", "", " ", "  ", "\t", "\r\n ", " \r\n\t ") }
	if rapid.Bool().Draw(t, "request") {
		b.WriteString(pick("method", "INVITE", "BYE", "OPTIONS", "invite", "X-Y!") + " " +
			pick("uri", "sip:a@b", "tel:+1-555", "sip:+1555;rn=+2@h:5060;x", "sips:h?a=b", "x:y") + " " +
			pick("version", "SIP/2.0", "sip/2.0"))
	} else {
		b.WriteString("SIP/2.0 " + pick("code", "100", "200", "699") + pick("reason", "", " ", " OK", "  Très bien "))
	}
	b.WriteString("\r\n")
	for range rapid.IntRange(0, 30).Draw(t, "lines") {
		name := pick("name", "Via", "v", "VIA", "From", "f", "To", "t", "i", "CSeq", "Contact", "m", "X-Any", "x",
			"Subject", "s", "Route", "P-Asserted-Identity", "a.b-c!")
		value := rapid.StringMatching(`[ -~é\t]{0,40}`).Draw(t, "value")
		b.WriteString(name + pick("colon", ":", " :", "\t:", ": ") + sp() + value + sp() + "\r\n")
	}
	body := rapid.StringN(0, 50, -1).Draw(t, "body")
	if rapid.Bool().Draw(t, "length") {
		b.WriteString(pick("length name", "Content-Length", "l", "CONTENT-LENGTH") + ":" + sp() +
			itoa(len(body)) + "\r\n")
	}
	return b.String() + "\r\n" + body
}

func TestPrintingWhatWasParsedGivesTheSameBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := genMessage(t)
		m, p := Parse(in, nil)
		if p != nil {
			t.Fatalf("Parse(%q): %v", in, p)
		}
		if got := m.String(); got != in {
			t.Fatalf("printed %q, parsed %q", got, in)
		}
		m.edited() // print line by line
		if got := m.String(); got != in {
			t.Fatalf("printed by lines %q, parsed %q", got, in)
		}
		r := NewReader(strings.NewReader(in), nil)
		f, err := r.Next()
		if m.Has(KindContentLength) && m.Count(KindContentLength) == 1 {
			if err != nil || f.Problem != nil || f.Message.String() != in {
				t.Fatalf("the stream reader gives %+v %v for %q", f, err, in)
			}
		}
	})
}

func TestAnEditChangesOnlyThatLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := genMessage(t)
		m, p := Parse(in, nil)
		if p != nil {
			t.Fatalf("Parse(%q): %v", in, p)
		}
		if m.Len() == 0 {
			t.Skip()
		}
		before := make([]string, 0, m.Len())
		for _, h := range m.Headers() {
			before = append(before, string(h.appendTo(nil)))
		}
		i := rapid.IntRange(0, m.Len()-1).Draw(t, "line")
		want := strings.Builder{}
		want.WriteString(m.StartLine() + "\r\n")
		value := rapid.StringMatching(`[!-~]{0,20}`).Draw(t, "new value")
		kind := m.At(i).Kind()
		name := m.At(i).Name()
		op := rapid.SampledFrom([]string{"set", "remove", "insert"}).Draw(t, "edit")
		for j, l := range before {
			if j == i {
				switch op {
				case "set":
					l = name + ": " + value + "\r\n"
				case "remove":
					l = ""
				case "insert":
					l = "X-New: " + value + "\r\n" + l
				}
			}
			want.WriteString(l)
		}
		want.WriteString("\r\n" + m.Body())
		switch op {
		case "set":
			m.SetAt(i, value)
		case "remove":
			m.RemoveAt(i)
		case "insert":
			m.InsertAt(i, NamedLine("X-New", value))
		}
		if got := m.String(); got != want.String() {
			t.Fatalf("%s line %d (%v) of %q:\ngot  %q\nwant %q", op, i, kind, in, got, want.String())
		}
	})
}

func TestSplittingAndJoiningValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.SampledFrom([]string{
			"<sip:a@b>", `"x, y" <sip:a,b@c>;q=1`, "token", `"\\" <sip:q@r>`, `"a\"," <sip:q@r>;x="1,2"`,
			"SIP/2.0/UDP h;branch=1",
		}), 1, 6).Draw(t, "values")
		sep := rapid.SampledFrom([]string{",", ", ", " ,\t"}).Draw(t, "separator")
		var got []string
		for v := range SplitValues(strings.Join(values, sep)) {
			got = append(got, v)
		}
		if strings.Join(got, "\n") != strings.Join(values, "\n") {
			t.Fatalf("got %q, want %q", got, values)
		}
	})
}

func TestWithParamSetsThatParameterOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SampledFrom([]string{
			"<sip:a@b;tag=uri>", `"q;tag=no" <sip:a@b>`, "sip:a@b", "<sip:a@b>",
		}).Draw(t, "address")
		ps := rapid.SliceOfN(rapid.SampledFrom([]string{
			"x", "y=1", `z=";tag=q"`, "TAG=old", "w = 2",
		}), 0, 4).Draw(t, "parameters")
		v := base
		for _, p := range ps {
			v += ";" + p
		}
		set := WithParam(v, "tag", "new")
		if tagOf(set) != "new" {
			t.Fatalf("WithParam(%q) = %q", v, set)
		}
		if tagOf(v) == "" {
			if set != v+";tag=new" {
				t.Fatalf("WithParam(%q) = %q", v, set)
			}
		} else if want := strings.Replace(v, "TAG=old", "tag=new", 1); set != want {
			t.Fatalf("WithParam(%q) = %q, want %q", v, set, want)
		}
		for tagOf(v) != "" {
			v = WithParam(v, "tag", "")
		}
		if strings.Contains(v, "TAG=") || !strings.HasPrefix(v, base) {
			t.Fatalf("after removal %q", v)
		}
	})
}

func TestParametersBeginWhereTheSlowPathFindsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[a<>;"\\]{0,14}`).Draw(t, "value")
		if got, want := paramsAt(s), scanTo(s, 0, ';'); got != want {
			t.Fatalf("paramsAt(%q) = %d, want %d", s, got, want)
		}
	})
}
