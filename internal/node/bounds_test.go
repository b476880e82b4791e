package node

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/listen"
)

// TestTheManagementURLHasAnAllowListAndALimit: first the address, then the token, then the rate; health needs the address alone.
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
		{in, "OPTIONS *", false, 404, "NotFound"},
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
		if w.Code != x.status || w.Header().Get("x-ms-error-code") != x.code || (w.Header().Get("Retry-After") != "") != (x.status == 429) ||
			(w.Header().Get("WWW-Authenticate") != "") != (x.status == 401) {
			t.Errorf("%s from %s with a token: %v = %d %v %s, want %d %s", x.request, x.from, x.token, w.Code, w.Header(), w.Body, x.status, x.code)
		}
		var e api.ErrorBody
		if err := json.Unmarshal(w.Body.Bytes(), &e); x.code != "" && (err != nil || e.Error.Code != x.code || e.Error.Message == "") {
			t.Errorf("%s from %s: the body is %s", x.request, x.from, w.Body)
		}
	}
}

// TestDescriptorsAreShared: files and the database first, then HTTP half at most, then SIP.
func TestDescriptorsAreShared(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		limit                        int
		provisioning, perSource, sip int
		warns                        bool
		fails                        string
		database                     int
	}{
		{limit: 1 << 30, provisioning: 1000, perSource: 100, sip: 20_000},
		{limit: 65_536, provisioning: 1000, perSource: 100, sip: 20_000},
		{limit: 4096, provisioning: 1000, perSource: 100, sip: 2149},
		{limit: 1024, provisioning: 243, perSource: 60, sip: 439, warns: true},
		{limit: 256, provisioning: 30, perSource: 7, sip: 55, warns: true},
		{limit: 200, fails: "the limit of 200 open files is too low"},
		{limit: 1024, database: 400, fails: "lower database.maxConnections"},
	} {
		cfg := config.Default("")
		if tc.database > 0 {
			cfg.Database.MaxConnections = tc.database
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
		if err != nil || p.MaxConnections != tc.provisioning || p.MaxConnectionsPerSource != tc.perSource || sip != tc.sip {
			t.Errorf("limit %d: provisioning %d (%d a source), SIP %d, %v; want %d (%d), %d", tc.limit, p.MaxConnections, p.MaxConnectionsPerSource, sip, err,
				tc.provisioning, tc.perSource, tc.sip)
		}
		if used := p.MaxConnections + cfg.Manage.MaxConnections + cfg.Metrics.MaxConnections + sip; used >= tc.limit-100 {
			t.Errorf("limit %d: connections may take %d of it", tc.limit, used)
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
	reg := prometheus.NewRegistry()
	h := &httpServer{name: "manage", log: quiet(), metrics: listen.NewMetrics(reg), handler: http.NotFoundHandler(),
		cfg: config.Listener{Listen: "127.0.0.1:0", CertificateFile: cert, KeyFile: key}}
	h.watchCertificate(reg)
	run, err := h.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer func() {
		cancel()
		_ = run(ctx) // it was opened; this closes it
	}()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tandem_http_certificate_expiry_timestamp_seconds" {
			ends := time.Unix(int64(f.Metric[0].Gauge.GetValue()), 0)
			if d := time.Until(ends); d < 364*24*time.Hour || d > 366*24*time.Hour || f.Metric[0].Label[0].GetValue() != "manage" {
				t.Errorf("the certificate ends %v: %v", ends, f.Metric[0])
			}
			return
		}
	}
	t.Error("there is no metric")
}
