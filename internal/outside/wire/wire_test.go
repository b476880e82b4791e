package wire_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/outside/wire"
)

func TestRetryAfterInEveryForm(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		values []string
		want   time.Duration
		stated bool
	}{
		{[]string{"7"}, 7 * time.Second, true},
		{[]string{"0"}, 0, true},
		{[]string{"0.249"}, time.Second, true},
		{[]string{"1.5"}, 2 * time.Second, true},
		{[]string{"0,120"}, 2 * time.Minute, true},
		{[]string{"120, 0"}, 2 * time.Minute, true},
		{[]string{"3", "9"}, 9 * time.Second, true},
		{[]string{"Sun, 29 Nov 2026 12:00:30 GMT"}, 30 * time.Second, true},
		{[]string{"Sun, 29 Nov 2026 11:00:00 GMT"}, 0, true},
		{[]string{"1e300"}, 24 * time.Hour, true},
		{[]string{"inf"}, 24 * time.Hour, true},
		{nil, 0, false},
		{[]string{""}, 0, false},
		{[]string{"soon"}, 0, false},
		{[]string{"-5"}, 0, false},
		{[]string{"NaN"}, 0, false},
	} {
		got, stated := wire.RetryAfter(http.Header{"Retry-After": c.values}, now)
		if got != c.want || stated != c.stated {
			t.Errorf("RetryAfter(%q) = %v, %v; want %v, %v", c.values, got, stated, c.want, c.stated)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"7", "0.249", "0,120", "Sun, 29 Nov 2026 12:00:30 GMT", "1e300", "-1", ","} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, stated := wire.RetryAfter(http.Header{"Retry-After": {s}}, time.Now())
		if got < 0 || got > 24*time.Hour || !stated && got != 0 {
			t.Errorf("RetryAfter(%q) = %v, %v; want 0 to 24 h", s, got, stated)
		}
	})
}

func TestBaseRequiresTLS(t *testing.T) {
	for s, ok := range map[string]bool{
		"https://graph.microsoft.com/v1.0":  true,
		"https://graph.microsoft.com/v1.0/": true,
		"http://127.0.0.1:8080/v1.0":        true,
		"http://[::1]:8080":                 true,
		"http://graph.microsoft.com/v1.0":   false,
		"http://localhost.example/v1.0":     false,
		"graph.microsoft.com":               false,
		"ftp://127.0.0.1":                   false,
		"https://u:p@graph.microsoft.com":   false,
		"https://graph.microsoft.com/?x=1":  false,
		"":                                  false,
	} {
		u, err := wire.Base(s)
		if (err == nil) != ok {
			t.Errorf("Base(%q) = %v, %v; accepted should be %v", s, u, err, ok)
		}
		if err == nil && strings.HasSuffix(u.Path, "/") {
			t.Errorf("Base(%q).Path = %q, want it without a trailing slash", s, u.Path)
		}
	}
}

func TestClientBoundsBodiesAndFollowsNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the redirect was followed")
	}))
	defer elsewhere.Close()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
			return
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 101))
	}))
	defer srv.Close()
	c := wire.Client(srv.Client().Transport, time.Minute, 100)

	resp, err := c.Get(srv.URL + "/redirect")
	if err != nil || resp.StatusCode != http.StatusTemporaryRedirect {
		t.Fatalf("GET /redirect = %v, %v; want the redirect itself", resp, err)
	}
	_ = resp.Body.Close()

	resp, err = c.Get(srv.URL + "/long")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a body of 101 bytes was read whole; want an error after 100")
	}

	if _, err := wire.Client(nil, time.Minute, 100).Get(srv.URL); err == nil {
		t.Error("a server with an unknown certificate was trusted")
	}
}
