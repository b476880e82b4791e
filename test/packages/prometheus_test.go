//go:build deep

package packages_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
	"github.com/tandemgw/tandem/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// prometheus is a running Prometheus that scrapes a Tandem each second.
type prometheus struct {
	t   *testing.T
	url string
}

// newPrometheus starts one, with the alert rules.
func newPrometheus(t *testing.T, root, target string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
scrape_configs:
  - job_name: tandem
    static_configs: [{targets: [%q]}]
rule_files: [%q]
`, target, filepath.Join(root, "deploy/prometheus/tandem.rules.yml"))
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	// Prometheus does not say which port it got for port 0, so choose one; another process may take it before.
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		_ = l.Close()
		if p := tryPrometheus(t, dir, addr); p != nil {
			return p
		}
	}
	t.Fatal("Prometheus found its port in use five times")
	return nil
}

// tryPrometheus starts Prometheus on an address; nil means that the address is in use.
func tryPrometheus(t *testing.T, dir, addr string) *prometheus {
	t.Helper()
	c := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = c.Wait(); close(exited) }()
	p := &prometheus{t, "http://" + addr}
	limit := time.After(time.Minute)
	for {
		select {
		case <-exited:
			if strings.Contains(log.String(), "address already in use") {
				return nil
			}
			t.Fatalf("Prometheus ended:\n%s", log.String())
		case <-limit:
			_ = c.Process.Kill()
			<-exited
			t.Fatalf("Prometheus is not ready:\n%s", log.String())
		case <-time.After(100 * time.Millisecond): // between two looks at the state
		}
		if res, err := http.Get(p.url + "/-/ready"); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // its data is temporary
		<-exited
	})
	return p
}

// query returns the values of an instant query, by series.
func (p *prometheus) query(ctx context.Context, expr string) (map[string]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/query?query="+url.QueryEscape(expr), nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var a struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, fmt.Errorf("%s: %s", expr, a.Error)
	}
	out := map[string]string{}
	for _, r := range a.Data.Result {
		if v := fmt.Sprint(r.Value[1]); v != "NaN" {
			out[fmt.Sprint(r.Metric)] = v
		}
	}
	return out, nil
}

// want waits until a query has data.
func (p *prometheus) want(what, expr string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	for {
		got, err := p.query(ctx, expr)
		if err == nil && len(got) > 0 {
			return
		}
		if err != nil && ctx.Err() == nil {
			p.t.Errorf("%s: %v", what, err)
			return
		}
		select {
		case <-ctx.Done():
			p.t.Errorf("%s: %s returns no data", what, expr)
			return
		case <-time.After(200 * time.Millisecond): // until the next scrape
		}
	}
}

// TestDashboardAndRulesWorkOnTheDemo runs Tandem between its neighbours, places the demonstration's calls, and runs
// every panel's query and every metric of the alert rules on a Prometheus that scrapes it.
func TestDashboardAndRulesWorkOnTheDemo(t *testing.T) {
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	l, tandem := rig.Start(t, lab.Options{})
	at, err := url.Parse(tandem.Ready.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	p := newPrometheus(t, root, at.Host)
	p.want("scrape", `up{job="tandem"} == 1`)
	world, calls, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	// A rate needs two samples of a series, so the calls are placed twice, with changes before.
	customer := world.Customers[0]
	number := customer.Numbers[0].List()[0]
	for range 2 {
		if err := tandem.API.DeleteNumber(t.Context(), customer.Account, number, client.Condition{}); err != nil {
			t.Fatal(err)
		}
		if _, err := tandem.Provision(t.Context(), world, func(fixtures.Customer) bool { return true }); err != nil {
			t.Fatal(err)
		}
		for _, c := range calls {
			if c.Demo {
				l.Play(t.Context(), c)
			}
		}
		p.want("calls", `sum(tandem_calls_total) > 0`)
	}

	raw, err := os.ReadFile(filepath.Join(root, "deploy/grafana/tandem.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	// A counter that appears only with its first event would hide that event from increase().
	absent := map[string]string{
		"tandem_db_failing_since_timestamp_seconds":             "exists while the database fails",
		"tandem_work_keys":                                      "exists with work on an outside system",
		"tandem_work_overdue_seconds":                           "the same",
		"tandem_http_certificate_expiry_timestamp_seconds":      "exists with HTTPS, which the demo does not have",
		"tandem_front_panics_total":                             "exists with a public front",
		"tandem_zone_update_pending":                            "exists where the operator's zone is updated",
		"tandem_zone_update_success_timestamp_seconds":          "the same",
		"tandem_certificate_expiry_timestamp_seconds":           "exists with a certificate that was obtained by ACME",
		"tandem_certificate_renewal_timestamp_seconds":          "the same",
		"tandem_certificate_failed_attempts":                    "exists with certificates by ACME",
		"tandem_certificate_failures_total":                     "the same",
		"tandem_tenant_app_credential_expiry_timestamp_seconds": "exists with an app registration",
	}
	metric := regexp.MustCompile(`\b((?:tandem_\w+|up)(?:\{[^}]*\})?)`)
	// missing reports whether all metrics of an expression are absent.
	missing := func(expr string) bool {
		all := metric.FindAllString(expr, -1)
		return len(all) > 0 && !slices.ContainsFunc(all, func(m string) bool {
			name, _, _ := strings.Cut(m, "{")
			return absent[name] == ""
		})
	}

	queries := 0
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	for _, panel := range d.Panels {
		for _, q := range panel.Targets {
			expr := variables.Replace(q.Expr)
			if !missing(expr) {
				queries++
				p.want("panel "+panel.Title, expr)
			} else if _, err := p.query(t.Context(), expr); err != nil {
				t.Errorf("panel %s: %v", panel.Title, err)
			}
		}
	}
	t.Logf("%d queries of the dashboard return data", queries)

	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
			}
		}
	}
	raw, err = os.ReadFile(filepath.Join(root, "deploy/prometheus/tandem.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, r := range file.Groups[0].Rules {
		rules++
		for _, m := range metric.FindAllString(r.Expr, -1) {
			if !missing(m) {
				p.want("alert "+r.Alert, m)
			}
		}
	}
	firing, err := p.query(t.Context(), `ALERTS{alertstate="firing"}`)
	if err != nil {
		t.Fatal(err)
	}
	for name := range firing {
		// The calls of the demonstration include one to a peer that fails over; nothing of that is an alert.
		t.Errorf("%s fires on a healthy Tandem", name)
	}
	t.Logf("the metrics of %d alerts exist; none fires", rules)
}
