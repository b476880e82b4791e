package provapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
	"github.com/tandemgw/tandem/internal/services"
)

func digestOf(n *strictjson.Node) [32]byte {
	h := sha256.New()
	n.Canonical(h)
	return [32]byte(h.Sum(nil))
}

// FuzzBody: reading a body fails only with a fault of ours, agrees with encoding/json on what JSON is, and what was
// read and rendered reads back as the same thing.
func FuzzBody(f *testing.F) {
	for _, s := range []string{
		`{"name":"acme","correlationId":"x","serviceDetails":{"teamsTenantId":"a7f4bd5c-cc01-40f4-8baa-2b6bdb272b8a",` +
			`"teamsDirectRouting":{"enabled":true,"syncEnabled":false,"configuration":{"callScreening":true,` +
			`"subdomain":"a","subdomainTokens":{"region1Token":"1","region2Token":"2"}}}}}`,
		`{"telephoneNumber":"+14255550142","accountName":"acme","serviceDetails":{"teamsOperatorConnect":` +
			`{"enabled":true,"assignmentStatus":"assigned","configuration":{"usage":"u",` +
			`"choosableCapabilities":["a"],"additionalUsages":[],"allowTenantAddressUpdate":true}}},` +
			`"configuration":{"customSipHeader":"h"}}`,
		`{"numbers":[{"telephoneNumber":"+14255550142"},7,{}]}`,
		`{"customerRelationship":{"status":null,"comment":"c"}}`, `{"customerRelationship":null}`,
		`{"a":1,"a":2}`, `[1,]`, `{"a":}`, `{"a":"\u0000"}`, `{"a":"\ud800"}`, "{} {}",
		`{"a":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}`, `{"n":1e999,"m":-0}`,
		"",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !utf8.Valid(raw) {
			t.Skip("not UTF-8: refused earlier")
		}
		n, err := strictjson.Parse(raw)
		var problem *fault.Error
		if err != nil {
			if !errors.As(err, &problem) || problem.Kind != fault.Invalid ||
				len(problem.Message)+len(problem.Target) > 2000 {
				t.Fatalf("strictjson.Parse(%q) = %v: not a small fault of kind invalid", raw, err)
			}
			if problem.Code == strictjson.CodeInvalidJSON && json.Valid(raw) &&
				!strings.Contains(problem.Message, "nested deeper") {
				t.Fatalf("strictjson.Parse(%q) = %v, but it is JSON", raw, err)
			}
			return
		}
		if !json.Valid(raw) {
			t.Fatalf("strictjson.Parse(%q) accepts what is not JSON", raw)
		}
		// The digest of a repeatable request does not depend on how the body is written.
		var v any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		again, err := json.MarshalIndent(v, " ", "\t")
		if err != nil {
			t.Fatal(err)
		}
		m, err := strictjson.Parse(again)
		if err != nil || digestOf(m) != digestOf(n) {
			t.Fatalf("%q and %q mean the same but have different digests (%v)", raw, again, err)
		}
		known := services.All().Services().InContract()
		r := reader{services: known}
		if a := r.account(n); r.Err() == nil {
			out := web.Encode(renderAccount(&a))
			r2 := reader{services: known}
			m, err := strictjson.Parse(out)
			if err != nil {
				t.Fatalf("the rendered account %s cannot be read: %v", out, err)
			}
			b := r2.account(m)
			if r2.Err() != nil {
				t.Fatalf("the rendered account %s is refused: %v", out, r2.Err())
			}
			if again := web.Encode(renderAccount(&b)); !bytes.Equal(out, again) {
				t.Fatalf("account %s came back as %s", out, again)
			}
		}
		r = reader{services: known}
		if a := r.number(n, ""); r.Err() == nil {
			out := web.Encode(renderNumber(&a))
			r2 := reader{services: known}
			m, err := strictjson.Parse(out)
			if err != nil {
				t.Fatalf("the rendered number %s cannot be read: %v", out, err)
			}
			b := r2.number(m, "")
			if r2.Err() != nil {
				t.Fatalf("the rendered number %s is refused: %v", out, r2.Err())
			}
			if again := web.Encode(renderNumber(&b)); !bytes.Equal(out, again) {
				t.Fatalf("number %s came back as %s", out, again)
			}
		}
		r = reader{services: known}
		r.relationship(n)
		_, _ = batch(&API{services: known}, &call{body: n}, identifier) // any outcome but a panic
		_, _ = batch(&API{services: known}, &call{body: n}, (*reader).number)
	})
}

// FuzzContinuation: a text that we did not seal does not open.
func FuzzContinuation(f *testing.F) {
	ring, err := secret.Ephemeral()
	if err != nil {
		f.Fatal(err)
	}
	a := &API{deps: Deps{Sealer: ring}}
	c := func(text string) *call {
		return &call{op: &operations[0], query: map[string]string{continuation: text}}
	}
	good, err := ring.SealToken(cursorPurpose(c("")), []byte(`{"a":"acme","s":10}`))
	if err != nil {
		f.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString(good)
	if cur, err := a.readCursor(c(text)); err != nil || cur.After != "acme" {
		f.Fatalf("our own cursor does not open: %v", err)
	}
	for _, plain := range []string{`{"a":"","s":10}`, `{"a":"x","s":0}`, `{"a":"x","s":501}`,
		`{"a":"x","s":1,"l":-1}`, `x`} {
		bad, err := ring.SealToken(cursorPurpose(c("")), []byte(plain))
		if err != nil {
			f.Fatal(err)
		}
		if _, err := a.readCursor(c(base64.RawURLEncoding.EncodeToString(bad))); !fault.HasCode(err,
			web.CodeInvalidContinuation) {
			f.Errorf("the cursor %s = %v, want InvalidContinuation", plain, err)
		}
	}
	f.Add(text)
	f.Add(text[:20])
	f.Add("!!!")
	f.Fuzz(func(t *testing.T, s string) {
		if raw, err := base64.RawURLEncoding.DecodeString(s); err == nil && bytes.Equal(raw, good) {
			t.Skip("the good one")
		}
		if _, err := a.readCursor(c(s)); !fault.HasCode(err, web.CodeInvalidContinuation) {
			t.Fatalf("readCursor(%q) = %v, want InvalidContinuation", s, err)
		}
		_, _ = filter.Parse(filter.Accounts(services.All().Services()), s)
	})
}

// FuzzRequest: whatever the method, target and headers, the answer is one of ours with a code, and nothing panics.
func FuzzRequest(f *testing.F) {
	for _, s := range []struct{ method, target, tags, date, id string }{
		{"GET", "/accounts?api-version=2024-02-29-preview&top=1", `"1"`, "Tue, 05 Mar 2024 10:00:00 GMT", "x"},
		{"PUT", "/accounts/a%2Fb?api-version=2024-02-29-preview", `W/"1", "2"`, "2024-03-05T10:00:00Z", ""},
		{"POST", "/accounts/a:deleteNumbers?api-version=2024-02-29-preview", "*", "", ""},
		{"DELETE", "/accounts/a/numbers/%2B14255550142?%zz", `"`, "x", "\x00"},
	} {
		f.Add(s.method, s.target, s.tags, s.date, s.id)
	}
	ring, err := secret.Ephemeral()
	if err != nil {
		f.Fatal(err)
	}
	api := New(Default(), Deps{Authenticator: anyCaller{}, Sources: anywhere{}, Limiter: anywhere{}, Sealer: ring,
		Log: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, method, target, tags, date, id string) {
		r, err := http.NewRequest(method, "http://x"+target, strings.NewReader("{"))
		if err != nil || r.URL.Path == "" {
			t.Skip("net/http refuses it before us")
		}
		r.RequestURI = target
		r.Header["If-Match"], r.Header["If-Unmodified-Since"] = []string{tags}, []string{date}
		r.Header["X-Ms-Client-Request-Id"] = []string{id}
		r.Header["Repeatability-Request-Id"], r.Header["Repeatability-First-Sent"] = []string{id}, []string{date}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		// There is no directory behind it: requests that would reach one panic and are answered 500.
		if w.Code < 400 || w.Header().Get("x-ms-error-code") == "" ||
			r.Method != http.MethodHead && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%s %s answered %d %q", method, target, w.Code, w.Body)
		}
	})
}

type anyCaller struct{}

func (anyCaller) Authenticate(_ context.Context, _ []string) (string, []string, error) {
	return "x", []string{roleAdmin}, nil
}

type anywhere struct{}

func (anywhere) Of(*http.Request) netip.Addr         { return netip.Addr{} }
func (anywhere) Permits(netip.Addr) bool             { return true }
func (anywhere) TrustsPeer(*http.Request) bool       { return false }
func (anywhere) Allow(context.Context) time.Duration { return 0 }
