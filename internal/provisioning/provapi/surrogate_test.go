package provapi_test

import "testing"

// TestHalfCharactersAreRefused: what is stored is what was sent, never a replacement for it.
func TestHalfCharactersAreRefused(t *testing.T) {
	b := onSQLite(t, options{})
	put := func(correlation string) *exchange {
		return b.do("PUT", "/accounts/acme", `{"name":"acme","correlationId":"`+correlation+`"}`)
	}
	for _, half := range []string{`\ud800`, `\uDC00`, `a\ud83d`, `\ud83d\u0041`, `\ud83dx\ude00`, `\ude00\ud83d`,
		`\\\ud800`, `\ud83d\ude00\ud83d`} {
		put(half).fails(400, "InvalidFieldValue")
	}
	for sent, want := range map[string]string{`\ud83d\ude00`: "😀", `\u00e9\uD83D\uDE00x`: "é😀x", `\\ud800`: `\ud800`,
		`\ufffd`: "\ufffd"} {
		if put(sent).status/100 != 2 {
			t.Errorf("%s is refused", sent)
		}
		if got := b.do("GET", "/accounts/acme", "").want(200).object()["correlationId"]; got != want {
			t.Errorf("%s is stored as %q, want %q", sent, got, want)
		}
	}
}
