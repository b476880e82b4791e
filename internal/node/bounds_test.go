package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/listen"
)

// TestTheManagementURLHasAnAllowListAndALimit: the address is checked first, then the token, then the rate; the health
// endpoints check the address only.
func TestTheManagementURLHasAnAllowListAndALimit(t *testing.T) {
	t.Parallel()
	n := buildNode(t, `manage.allowedSources=["192.0.2.0/24"]`, "manage.requestsPerMinute=2")
	token, _, err := n.core.issuer.IssueToken(t.Context(), "test", auth.RoleManagementAdmin)
	if err != nil {
		t.Fatal(err)
	}
	const in, out = "192.0.2.1:1", "198.51.100.1:1"
	for _, x := range []struct {
		from, request string
		token         bool
		status        int
		code          string
	}{
		{out, "GET /manage/v1/health", true, 403, "SourceAddressNotAllowed"},
		{out, "GET /manage/v1/health", false, 403, "SourceAddressNotAllowed"},
		{out, "GET /healthz", false, 403, "SourceAddressNotAllowed"},
		{out, "GET /none", false, 403, "SourceAddressNotAllowed"},
		{in, "GET /healthz", false, 200, ""},
		{in, "OPTIONS *", false, 401, "MissingAuthenticationToken"},
		{in, "GET /manage/v1/clients", false, 401, "MissingAuthenticationToken"},
		{in, "GET /manage/v1/clients", true, 200, ""},
		{in, "GET /manage/v1/clients", true, 200, ""},
		{in, "GET /manage/v1/clients", true, 429, "TooManyRequests"},
		{in, "GET /manage/v1/clients", false, 401, "MissingAuthenticationToken"},
		{out, "GET /manage/v1/clients", true, 403, "SourceAddressNotAllowed"},
	} {
		method, path, _ := strings.Cut(x.request, " ")
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		r.RemoteAddr = x.from
		if x.token {
			r.Header.Set("Authorization", "Bearer "+token.Reveal())
		}
		w := httptest.NewRecorder()
		n.manageHTTP.handler.ServeHTTP(w, r)
		if w.Code != x.status || (w.Header().Get("Retry-After") != "") != (x.status == 429) ||
			(w.Header().Get("WWW-Authenticate") != "") != (x.status == 401) {
			t.Errorf("%s from %s with a token: %v = %d %v %s, want %d %s", x.request, x.from, x.token, w.Code,
				w.Header(), w.Body, x.status, x.code)
		}
		var p api.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); x.code != "" &&
			(err != nil || p.Code != x.code || p.Detail == "") {
			t.Errorf("%s from %s: the body is %s", x.request, x.from, w.Body)
		}
	}
}

// TestDescriptorsAreShared: files and the database first, then HTTP with at most half of the rest, then SIP.
func TestDescriptorsAreShared(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		limit                        int
		provisioning, perSource, sip int
		warns                        bool
		fails                        string
		database, most               int
		off                          bool // manage and metrics
		front                        bool
	}{
		{limit: 1 << 30, provisioning: 1000, perSource: 100, sip: 20_000},
		{limit: 65_536, provisioning: 1000, perSource: 100, sip: 20_000},
		{limit: 4096, provisioning: 1000, perSource: 100, sip: 2149},
		{limit: 1024, provisioning: 243, perSource: 60, sip: 439, warns: true},
		{limit: 256, provisioning: 30, perSource: 7, sip: 55, warns: true},
		{limit: 1024, off: true, provisioning: 438, perSource: 100, sip: 439, warns: true},
		{limit: 1024, front: true, provisioning: 156, perSource: 39, sip: 439, warns: true},
		// One listener with a high limit leaves the others the minimum that may be configured.
		{limit: 256, most: 100_000, provisioning: 53, perSource: 13, sip: 55, warns: true},
		{limit: 200, fails: "the limit of 200 open files is too low"},
		{limit: 1024, database: 400, fails: "lower database.maxConnections"},
	} {
		cfg := config.Default("")
		if tc.database > 0 {
			cfg.Database.MaxConnections = tc.database
		}
		if tc.off {
			cfg.Manage.Listen, cfg.Metrics.Listen = config.Off, config.Off
			cfg.Manage.MaxConnections, cfg.Metrics.MaxConnections = 0, -1000 // a listener that is off is not checked
		}
		if tc.front {
			cfg.Front.Listen = "127.0.0.1:0"
		}
		if tc.most > 0 {
			cfg.Provisioning.MaxConnections = tc.most
		}
		var log bytes.Buffer
		cfg, sip, err := shareDescriptors(cfg, tc.limit, slog.New(slog.NewTextHandler(&log, nil)))
		if tc.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("limit %d: %v, want %q", tc.limit, err, tc.fails)
			}
			continue
		}
		p := cfg.Provisioning
		if err != nil || p.MaxConnections != tc.provisioning ||
			p.MaxConnectionsPerSource != tc.perSource || sip != tc.sip {
			t.Errorf("limit %d: provisioning %d (%d per source), SIP %d, %v; want %d (%d), %d", tc.limit,
				p.MaxConnections, p.MaxConnectionsPerSource, sip, err,
				tc.provisioning, tc.perSource, tc.sip)
		}
		if least := min(cfg.Manage.MaxConnections, cfg.Metrics.MaxConnections); least < 8 && !tc.off {
			t.Errorf("limit %d: a listener has %d connections", tc.limit, least)
		}
		used := p.MaxConnections + cfg.Manage.MaxConnections + cfg.Metrics.MaxConnections + sip
		if tc.front {
			used += cfg.Front.MaxConnections
		}
		if used >= tc.limit-100 {
			t.Errorf("limit %d: connections may use %d of it", tc.limit, used)
		}
		if warns := strings.Contains(log.String(), "LimitNOFILE"); warns != tc.warns {
			t.Errorf("limit %d: the log says %q", tc.limit, log.String())
		}
	}
}

func TestTheEndOfHTTPCertificatesIsExposed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	if err := ensureLoopbackCertificate(cert, key, quiet()); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	metrics := listen.NewMetrics(reg)
	for name, cfg := range map[string]config.Listener{
		"manage":       {Listen: "127.0.0.1:0", CertificateFile: cert, KeyFile: key},
		"provisioning": {Listen: "127.0.0.1:0", Certificate: "provapi"}, // whoever obtains it shows its end
	} {
		h := &httpServer{name: name, log: quiet(), metrics: metrics, handler: http.NotFoundHandler(),
			faults: manage.Problems, cfg: cfg, obtained: func(string) *tls.Certificate { return &pair }}
		(&node{metrics: reg}).watchCertificate(h)
		run, err := h.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer func() {
			cancel()
			_ = run(ctx) // closes what was opened
		}()
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() != "tandem_http_certificate_expiry_timestamp_seconds" || math.IsNaN(m.Gauge.GetValue()) {
				continue
			}
			found++
			ends := time.Unix(int64(m.Gauge.GetValue()), 0)
			if d := time.Until(ends); d < 364*24*time.Hour || d > 366*24*time.Hour ||
				m.Label[0].GetValue() != "manage" {
				t.Errorf("the certificate expires %v: %v", ends, m)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d samples, want 1", found)
	}
}

// TestConnectionsOfTheAPI checks the API and its listener together, over TCP.
func TestConnectionsOfTheAPI(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs several addresses of 127.0.0.0/8")
	}
	t.Parallel()
	n := buildNode(t, `provisioning.allowedSources=["127.0.0.1"]`, "provisioning.maxConnections=8",
		"provisioning.maxConnectionsPerSource=8")
	token, _, err := n.core.issuer.IssueToken(t.Context(), "test", auth.RoleAdmin)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	front := n.roles[slices.IndexFunc(n.roles, func(r *role) bool { return r.name == config.RoleAPI })]
	run, err := front.parts[0].open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var at Ready
	front.started(&at)
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	dial := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(at.Provisioning, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	ask := func(c net.Conn, request string) (status int, code string, closed bool) {
		t.Helper()
		if _, err := io.WriteString(c, request); err != nil {
			return 0, "", true
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return 0, "", true
		}
		var e struct{ Error client.ErrorDetail }
		_ = json.NewDecoder(res.Body).Decode(&e) // a body that is not an error leaves e empty
		if h := res.Header.Get("x-ms-error-code"); h != e.Error.Code {
			t.Errorf("%.30q: code %q in the header, %q in the body", request, h, e.Error.Code)
		}
		return res.StatusCode, e.Error.Code, res.Close
	}
	head := " HTTP/1.1\r\nHost: x\r\n"
	list := "GET /accounts?api-version=2024-02-29-preview" + head
	good := "Authorization: Bearer " + token.Reveal() + "\r\n\r\n"
	for _, x := range []struct {
		from, request string
		status        int
		code          string
		closed        bool
	}{
		{"127.0.0.1", list + good, 200, "", false},
		{"127.0.0.1", list + "\r\n", 401, "MissingAuthenticationToken", false},
		{"127.0.0.1", "OPTIONS *" + head + "\r\n", 401, "MissingAuthenticationToken", false},
		{"127.0.0.1", "OPTIONS *" + head + good, 404, "ResourceNotFound", false},
		{"127.0.0.1", "PUT /accounts/a" + head + "Expect: payment\r\nContent-Length: 2\r\n\r\n{}", 417,
			"ExpectationFailed", true},
		{"127.0.0.1", "GET /%zz" + head + good, 400, "", true},
		{"127.0.0.9", list + good, 403, "SourceAddressNotAllowed", true},
		{"127.0.0.9", "OPTIONS *" + head + good, 403, "SourceAddressNotAllowed", true},
	} {
		c := dial(x.from)
		status, code, closed := ask(c, x.request)
		if status != x.status || code != x.code || closed != x.closed {
			t.Errorf("from %s %.40q: %d %s, closed %v; want %d %s, %v", x.from, x.request, status, code, closed,
				x.status, x.code, x.closed)
		}
		_ = c.Close() // else it would still count
	}
	// A connection that had a valid token is not closed to make room for 20 silent ones.
	known := dial("127.0.0.1")
	if status, _, _ := ask(known, list+good); status != 200 {
		t.Fatalf("answered %d", status)
	}
	for range 20 {
		dial("127.0.0.1")
	}
	if status, _, _ := ask(dial("127.0.0.1"), list+good); status != 200 {
		t.Errorf("with silent connections open, a valid token is answered %d", status)
	}
	if status, _, _ := ask(known, list+good); status != 200 {
		t.Errorf("a connection that had a valid token was closed to make room for silent ones: %d", status)
	}
	if status, _, _ := ask(dial("127.0.0.1"), list+strings.Replace(good, "Bearer ", "Bearer x", 1)); status != 401 {
		t.Errorf("a bad token is answered %d", status)
	}
}

// TestAReloadAppliesTheManagementURLsAccess also checks that connection limits are reported to need a restart, even
// when they were lowered to fit the process's descriptors.
func TestAReloadAppliesTheManagementURLsAccess(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("manage: {allowedSources: [192.0.2.0/24], maxConnections: 90000}\n")
	cfg, err := config.Load(config.Source{Data: t.TempDir(), File: file, FreePorts: true, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	n, err := build(t.Context(), cfg, "test", quiet(), serving)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	status := func() int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil)
		r.RemoteAddr = "198.51.100.1:1"
		w := httptest.NewRecorder()
		n.manageHTTP.handler.ServeHTTP(w, r)
		return w.Code
	}
	if s := status(); s != 403 {
		t.Errorf("a source outside the list is answered %d", s)
	}
	if ch, err := reload(t.Context(), n); err != nil || len(ch.Applied)+len(ch.Restart) > 0 {
		t.Errorf("a reload of the same file: %+v, %v", ch, err)
	}
	write("manage: {allowedSources: [198.51.100.0/24], requestsPerMinute: 5, maxConnections: 80000}\n")
	ch, err := reload(t.Context(), n)
	if err != nil || strings.Join(ch.Applied, " ") != "manage.allowedSources manage.requestsPerMinute" ||
		strings.Join(ch.Restart, " ") != "manage.maxConnections" {
		t.Errorf("reload: %+v, %v", ch, err)
	}
	if s := status(); s != 200 {
		t.Errorf("a source that was added is answered %d", s)
	}
}
