package sip

import (
	"strings"
	"testing"
)

// A value that ended in a semicolon once made WithParam loop forever: one packet stopped a reader.
func TestWithParamEnds(t *testing.T) {
	for _, v := range []string{"", ";", ";;", "a;", "a;;", "a;b;", "a;b=c;;", "<sip:a;b>;", "\"x;",
		"SIP/2.0/UDP h;branch=z;"} {
		if got := WithParam(v, "received", "1"); !strings.HasSuffix(got, ";received=1") {
			t.Errorf("WithParam(%q) = %q", v, got)
		}
		_ = WithParam(v, "b", "")
	}
}

// FuzzWithParam checks that WithParam returns and that the parameter is present afterwards.
func FuzzWithParam(f *testing.F) {
	f.Add("<sip:a@b>;tag=x;y=\"z;\"", "tag", "n")
	f.Add("SIP/2.0/UDP h;branch=z;", "received", "1")
	f.Fuzz(func(t *testing.T, v, name, value string) {
		if !isToken(name) || !isToken(value) {
			return
		}
		if got := WithParam(v, name, value); !strings.Contains(got, name+"="+value) &&
			!strings.Contains(strings.ToLower(got), strings.ToLower(name)+"="+strings.ToLower(value)) {
			t.Errorf("WithParam(%q, %q, %q) = %q", v, name, value, got)
		}
	})
}
