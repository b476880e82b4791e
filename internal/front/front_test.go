package front_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/front"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/web"
)

const (
	onboard = "onboard.gw.example.com"
	hooks   = "hooks.gw.example.com"
	// browser is the Accept of Firefox 140.
	browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
)

// bed is a front with two sites. onboard has none but the status page; hooks echoes bodies, up to 10 bytes.
type bed struct {
	t       *testing.T
	handler http.Handler
	reg     *prometheus.Registry
	log     bytes.Buffer
	state   front.State
}

func newBed(t *testing.T, change func(*front.Config)) *bed {
	t.Helper()
	b := &bed{t: t, reg: prometheus.NewRegistry(),
		state: front.State{Since: time.Date(2026, 11, 29, 3, 4, 5, 0, time.UTC)}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /events", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})
	serve := func(w http.ResponseWriter, r *http.Request) error {
		switch r.URL.Path {
		case "/panic":
			panic("of the job")
		case "/broken":
			return errors.New("password=hunter2 refused by 10.0.0.7")
		case "/read":
			_, err := io.ReadAll(r.Body)
			return err
		case "/invalid":
			return fault.New(fault.Invalid, "Bad", "<script>alert(1)</script> is not a name")
		}
		h, _, err := web.Route(mux, w, r)
		if err == nil {
			h.ServeHTTP(w, r)
		}
		return err
	}
	sources, _ := (&auth.SourcesConfig{TrustedProxies: []string{"192.0.2.80"}}).Parse()
	c := front.Config{BaseDomain: "GW.example.com", State: func() front.State { return b.state }, Sources: sources,
		Sites:    []front.Site{{Host: "onboard"}, {Host: "hooks", Serve: serve, MaxBody: 10}},
		Limiter:  auth.NewSourceLimiter(1000),
		Problems: manage.Problems, Metrics: b.reg,
		Log: slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&c)
	}
	b.handler = front.New(c)
	return b
}

// request is a request of a stranger.
type request struct {
	method, host, path, accept, body, from string
	header                                 http.Header
	tls                                    bool
}

func (b *bed) ask(x request) *httptest.ResponseRecorder {
	b.t.Helper()
	if x.method == "" {
		x.method = http.MethodGet
	}
	r := httptest.NewRequestWithContext(b.t.Context(), x.method, x.path, strings.NewReader(x.body))
	r.Host, r.RemoteAddr = x.host, "198.51.100.1:1234"
	if x.from != "" {
		r.RemoteAddr = x.from + ":1234"
	}
	for k, v := range x.header {
		r.Header[k] = v
	}
	if x.accept != "" {
		r.Header.Set("Accept", x.accept)
	}
	if x.tls {
		r.TLS = &tls.ConnectionState{}
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

// Only the hosts of the front are answered, whatever else a client sends as Host; who asks for another one, or for an
// address, learns no name.
func TestHosts(t *testing.T) {
	b := newBed(t, nil)
	for host, status := range map[string]int{
		onboard: 200, hooks: 200, "OnBoard.GW.Example.COM": 200, onboard + ":8443": 200, onboard + ".": 200,
		onboard + ".:443": 200,
		"":                421, "gw.example.com": 421, "example.com": 421, "provapi.gw.example.com": 421,
		"onboard":      421,
		"x." + onboard: 421, "onboard.gw.example.com.evil.example": 421, "192.0.2.1": 421, "192.0.2.1:443": 421,
		"[2001:db8::1]": 421, "[2001:db8::1]:443": 421, "2001:db8::1": 421, "localhost": 421, ".": 421, ":443": 421,
		onboard + "..": 421, onboard + "/": 421, "user@" + onboard: 421, "\x00": 421, strings.Repeat("a.", 9000): 421,
	} {
		w := b.ask(request{host: host, path: "/status"})
		if w.Code != status {
			t.Errorf("Host %.60q: %d, want %d", host, w.Code, status)
		}
		all := strings.ToLower(w.Body.String())
		if status == 421 && (strings.Contains(all, "example") || strings.Contains(all, "onboard")) {
			t.Errorf("Host %.60q: the answer names something: %s", host, all)
		}
	}
	for _, x := range []struct{ operation, status string }{{"onboard", "200"}, {"hooks", "200"}, {"none", "421"}} {
		if n := testutil.ToFloat64(counter(t, b.reg, x.operation, x.status)); n == 0 {
			t.Errorf("no request to %s with status %s is counted", x.operation, x.status)
		}
	}
}

// counter returns tandem_front_requests_total of an operation and a status.
func counter(t *testing.T, reg *prometheus.Registry, operation, status string) prometheus.Collector {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := prometheus.NewGauge(prometheus.GaugeOpts{Name: "n"})
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "tandem_front_requests_total" && m.Label[0].GetValue() == operation &&
				m.Label[1].GetValue() == status {
				total.Set(m.Counter.GetValue())
			}
		}
	}
	return total
}

// Each error is a page for a browser, and a problem document (RFC 9457) for a program. None says what is inside.
func TestErrors(t *testing.T) {
	b := newBed(t, nil)
	for _, x := range []struct {
		request
		status int
		code   string
	}{
		{request{host: onboard, path: "/"}, 404, "ResourceNotFound"},
		{request{host: onboard, path: "/status/"}, 404, "ResourceNotFound"},
		{request{host: onboard, path: "/%2e%2e/status"}, 404, "ResourceNotFound"},
		{request{host: onboard, path: "*", method: "OPTIONS"}, 404, "ResourceNotFound"},
		{request{host: hooks, path: "/none"}, 404, "ResourceNotFound"},
		{request{host: onboard, path: "/status", method: "POST"}, 405, "UnsupportedHttpVerb"},
		{request{host: hooks, path: "/status", method: "DELETE"}, 405, "UnsupportedHttpVerb"},
		{request{host: hooks, path: "/events"}, 405, "UnsupportedHttpVerb"},
		{request{host: hooks, path: "/events", method: "POST", body: "elevenbytes"}, 413, "RequestBodyTooLarge"},
		{request{host: onboard, path: "/status", body: "x"}, 413, "RequestBodyTooLarge"},
		{request{host: "x.example", path: "/"}, 421, "MisdirectedRequest"},
		{request{host: hooks, path: "/panic"}, 500, "InternalError"},
		{request{host: hooks, path: "/broken"}, 500, "InternalError"},
		{request{host: hooks, path: "/invalid"}, 400, "Bad"},
	} {
		for accept, page := range map[string]bool{browser: true, "text/html": true, "application/xhtml+xml": true,
			"text/html;q=0.5, application/json;q=0.5": true, "TEXT/HTML": true,
			"": false, "*/*": false, "application/json": false, "application/problem+json, text/html;q=0.9": false,
			"text/html;q=0": false, "text/html;q=NaN": false, "text/html;q=x": false, ",;,\x80": false} {
			x.accept = accept
			w := b.ask(x.request)
			if w.Code != x.status {
				t.Errorf("%+v: %d, want %d", x.request, w.Code, x.status)
				continue
			}
			body := w.Body.String()
			if strings.Contains(body, "hunter2") || strings.Contains(body, "10.0.0.7") ||
				strings.Contains(body, "of the job") {
				t.Errorf("%+v: the answer says what is inside: %s", x.request, body)
			}
			if w.Header().Get("Vary") != "Accept" || (w.Header().Get("Allow") == "") == (x.status == 405) {
				t.Errorf("%+v: headers %v", x.request, w.Header())
			}
			if page {
				if w.Header().Get("Content-Type") != "text/html; charset=utf-8" || strings.Contains(body, "<script") {
					t.Errorf("%+v: %v\n%s", x.request, w.Header(), body)
				}
				checkPage(t, body, http.StatusText(x.status))
				continue
			}
			var p api.Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil || p.Code != x.code || p.Status != x.status ||
				p.Detail == "" || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%+v: %v\n%s, want the code %s", x.request, w.Header(), body, x.code)
			}
		}
	}
}

// A body without a length is cut at the limit, and what was read beyond it is an error of the client.
func TestBodyWithoutLength(t *testing.T) {
	b := newBed(t, nil)
	for body, status := range map[string]int{"ten bytes.": 200, "eleven byte": 413} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/read", strings.NewReader(body))
		r.Host, r.ContentLength = hooks, -1
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("a body of %d bytes: %d, want %d", len(body), w.Code, status)
		}
	}
}

// checkPage checks what every page needs to be read by everyone: a language, one title, one heading, a main part, a
// size that follows the screen; and that nothing in it runs or is loaded from elsewhere.
func checkPage(t *testing.T, text, title string) {
	t.Helper()
	count, inside := map[string]int{}, ""
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		switch x := token.(type) {
		case xml.StartElement:
			inside = x.Name.Local
			count[inside]++
			for _, a := range x.Attr {
				name := a.Name.Local
				if inside == "html" && name == "lang" && a.Value == "en" || inside == "meta" && a.Value == "viewport" {
					count[name]++
				}
				if strings.HasPrefix(name, "on") || name == "style" || name == "src" || name == "href" {
					t.Errorf("<%s> has %s=%q", inside, name, a.Value)
				}
			}
		case xml.CharData:
			if (inside == "title" || inside == "h1") && string(x) != title {
				t.Errorf("<%s> says %q, want %q", inside, x, title)
			}
		case xml.EndElement:
			inside = ""
		}
	}
	for what, n := range map[string]int{"lang": 1, "name": 1, "title": 1, "h1": 1, "main": 1, "script": 0, "link": 0} {
		if count[what] != n {
			t.Errorf("the page has %d of %s, want %d:\n%s", count[what], what, n, text)
		}
	}
}

// The status page says whether changes are possible, and since when, and nothing about the program.
func TestStatus(t *testing.T) {
	b := newBed(t, nil)
	for _, limited := range []bool{false, true} {
		b.state.Limited = limited
		w := b.ask(request{host: onboard, path: "/status", accept: browser})
		body := w.Body.String()
		title, says := "Operating normally", "changes are accepted"
		if limited {
			title, says = "Limited", "cannot accept changes"
		}
		if w.Code != 200 || !strings.Contains(body, says) || !strings.Contains(body, "29 November 2026, 03:04 UTC") ||
			!strings.Contains(body, `datetime="2026-11-29T03:04:05Z"`) {
			t.Errorf("limited %v: %d\n%s", limited, w.Code, body)
		}
		checkPage(t, body, title)
		for _, secret := range []string{"andem", "database", "sqlite", "postgres", "127.0.0.1", "go1."} {
			if strings.Contains(strings.ToLower(body), secret) {
				t.Errorf("the page names %s", secret)
			}
		}
		if head := b.ask(request{host: onboard, path: "/status", method: "HEAD"}); head.Code != 200 {
			t.Errorf("HEAD: %d", head.Code)
		}
	}
	if log := b.log.String(); strings.Contains(log, "level=INFO") || !strings.Contains(log, "public request") {
		t.Errorf("requests for the status page are not logged at level debug: %s", log)
	}
}

// Every answer has the headers that keep browsers from what no page needs. The policy permits the style of the page
// by its hash, which a browser computes from what it receives.
func TestSecurityHeaders(t *testing.T) {
	b := newBed(t, nil)
	for _, x := range []request{{host: onboard, path: "/status"}, {host: onboard, path: "/"}, {host: "x", path: "/"},
		{host: hooks, path: "/panic"}, {host: hooks, path: "/events", method: "POST", body: "x"}} {
		for _, x.tls = range []bool{false, true} {
			h := b.ask(x).Header()
			policy := h.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
				if !strings.Contains(policy, want) {
					t.Errorf("%+v: the policy %q lacks %s", x, policy, want)
				}
			}
			if strings.Contains(policy, "unsafe") || strings.Contains(policy, "script-src") {
				t.Errorf("%+v: the policy %q permits scripts", x, policy)
			}
			if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" ||
				h.Get("Cache-Control") != "no-store" || (h.Get("Strict-Transport-Security") != "") != x.tls ||
				len(h.Get("x-ms-request-id")) != 32 || h.Get("Set-Cookie") != "" || h.Get("Server") != "" {
				t.Errorf("%+v: %v", x, h)
			}
		}
	}
	w := b.ask(request{host: onboard, path: "/status"})
	_, rest, _ := strings.Cut(w.Body.String(), "<style>")
	style, _, ok := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	hash := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	if policy := w.Header().Get("Content-Security-Policy"); !ok || !strings.Contains(policy, hash) {
		t.Errorf("the policy %q does not permit the page's style, whose hash is %s", policy, hash)
	}
}

// The limit is by source, for all hosts together, also behind a proxy, and an IPv6 source is a /64. Who is limited is
// told when to come back, and is let in then.
func TestRequestsPerSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, func(c *front.Config) {
			c.Limiter = auth.NewSourceLimiter(3)
		})
		status := func(host, from, forwarded string) int {
			x := request{host: host, path: "/status", from: from}
			if forwarded != "" {
				x.header = http.Header{"X-Forwarded-For": {"1.1.1.1, " + forwarded}}
			}
			w := b.ask(x)
			if (w.Header().Get("Retry-After") != "") != (w.Code == 429) {
				t.Errorf("status %d with Retry-After %q", w.Code, w.Header().Get("Retry-After"))
			}
			return w.Code
		}
		spend := func(n int, host, from, forwarded string) {
			t.Helper()
			for range n {
				if s := status(host, from, forwarded); s == 429 {
					t.Fatalf("%s %s is limited too early", from, forwarded)
				}
			}
			if s := status(host, from, forwarded); s != 429 {
				t.Errorf("%s %s: %d after %d requests, want 429", from, forwarded, s, n)
			}
		}
		spend(3, onboard, "198.51.100.1", "")
		spend(3, "unknown.example", "198.51.100.2", "") // what is refused counts
		if s := status(hooks, "198.51.100.1", ""); s != 429 {
			t.Errorf("another host of the front: %d, want 429", s)
		}
		spend(3, onboard, "[2001:db8::1]", "")
		if s := status(onboard, "[2001:db8::2]", ""); s != 429 {
			t.Errorf("another address of the same /64: %d, want 429", s)
		}
		if s := status(onboard, "[2001:db8:0:1::1]", ""); s != 200 {
			t.Errorf("another /64: %d, want 200", s)
		}
		spend(3, onboard, "192.0.2.80", "203.0.113.1") // the proxy's client
		if s := status(onboard, "192.0.2.80", "203.0.113.2"); s != 200 {
			t.Errorf("another client of the proxy: %d, want 200", s)
		}
		if s := status(onboard, "198.51.100.1", "203.0.113.9"); s != 429 {
			t.Errorf("the header of who is no proxy is believed: %d, want 429", s)
		}
		time.Sleep(20 * time.Second) // a third of a minute: one request
		if s := status(onboard, "198.51.100.1", ""); s != 200 {
			t.Errorf("after 20 s: %d, want 200", s)
		}
	})
}

// Sources outside an allow-list are refused, whatever they ask for.
func TestAllowedSources(t *testing.T) {
	b := newBed(t, func(c *front.Config) {
		c.Sources, _ = (&auth.SourcesConfig{AllowedSources: []string{"192.0.2.0/24"}}).Parse()
	})
	for from, status := range map[string]int{"192.0.2.7": 200, "198.51.100.1": 403} {
		if w := b.ask(request{host: onboard, path: "/status", from: from}); w.Code != status {
			t.Errorf("from %s: %d, want %d", from, w.Code, status)
		}
	}
}

// What strangers can cause in any number is logged at level debug only, so that it does not push other lines out of the
// log; a fault of ours is an error.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	b := newBed(t, nil)
	for host, path := range map[string]string{"x": "/", onboard: "/none", hooks: "/invalid"} {
		b.ask(request{host: host, path: path})
	}
	if log := b.log.String(); strings.Count(log, "level=DEBUG") != 3 || strings.Count(log, "\n") != 3 {
		t.Errorf("the log has %s", log)
	}
	b.ask(request{host: hooks, path: "/broken"})
	if log := b.log.String(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, "hunter2") {
		t.Errorf("the log has %s", log)
	}
}
