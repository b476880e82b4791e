package certificate_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	store "github.com/tandemgw/tandem/internal/store/certificate"
	"github.com/tandemgw/tandem/internal/testkit"
)

const challengeName = "_acme-challenge.1r1.example.com"

// A name and its wildcard are one order, with both values in one set beside a value of somebody else; what is served,
// shown and stored follows.
func TestIssue(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		z := newZone(t)
		a := newAuthority(t, z)
		_ = z.Add(t.Context(), []string{challengeName}, "foreign")
		n := start(t, d, z, a.roots, settings{cfg: config(a), ring: keyring(t)})
		if s := n.one(); s.Source != "" || !s.NotAfter.IsZero() {
			t.Errorf("before the order: %+v", s)
		}
		n.run()
		n.work()

		orders, accounts := a.seen()
		if len(orders) != 1 || accounts != 1 {
			t.Fatalf("%d orders, %d registrations; want one of each: %v", len(orders), accounts, orders)
		}
		now, most := z.values(challengeName)
		if most != 3 || len(now) != 1 || now[0] != "foreign" {
			t.Errorf("%d values at once, %q left; want both beside the foreign one, which stays", most, now)
		}
		for name, want := range map[string]bool{"1r1.example.com": true, "acme.1r1.example.com": true,
			"a.b.1r1.example.com": false, "example.com": false} {
			if got := n.served().VerifyHostname(name) == nil; got != want {
				t.Errorf("the certificate covers %q: %v, want %v", name, got, want)
			}
		}
		s := n.one()
		if s.Source != certificate.SourceACME || !strings.Contains(s.Issuer, "Pebble") || s.LastError != "" ||
			s.Failed != 0 || time.Until(s.NotAfter) < 80*24*time.Hour || time.Until(s.NextAttempt) < 24*time.Hour {
			t.Errorf("status %+v", s)
		}
		if got := n.metric("tandem_certificate_expiry_timestamp_seconds", "1r1"); got != float64(s.NotAfter.Unix()) {
			t.Errorf("expiry in the metric: %v, want %v", got, s.NotAfter)
		}
		var issued int
		for _, r := range testkit.AuditLog(t, d) {
			if r.Action == "certificate.issue" && strings.Contains(r.Summary, "*.1r1.example.com") {
				issued++
			}
			if strings.Contains(r.Summary, "PRIVATE") {
				t.Errorf("the audit log holds a key: %s", r.Summary)
			}
		}
		if issued != 1 {
			t.Errorf("%d audit rows about the certificate, want 1", issued)
		}
		n.work()
		if got := a.orderCount(); got != 1 {
			t.Errorf("%d orders after looking again, want 1", got)
		}
	})
}

// The values go where a CNAME leads, and from there. A target that takes none ends the attempt before anything is
// published or offered, with the reason.
func TestAlias(t *testing.T) {
	t.Parallel()
	const target = "1r1.challenges.example"
	z := newZone(t)
	a := newAuthority(t, z)
	z.alias(target)
	_ = z.Add(t.Context(), []string{target}, "foreign")
	z.unwritable = errors.New("the target takes no values; correct the CNAME")
	n := start(t, testkit.Open(t, testkit.SQLiteConfig(t)), z, a.roots, settings{cfg: config(a), ring: keyring(t)})
	n.run()
	n.work()
	_, most := z.values(target)
	if s := n.one(); s.Cause != "nameServers" || !strings.Contains(s.LastError, "takes no values") || most != 1 {
		t.Errorf("with a target that takes no values: %+v, %d values at once", s, most)
	}

	z.mu.Lock()
	z.unwritable = nil
	z.mu.Unlock()
	n.advance(time.Hour)
	n.work()
	if s := n.one(); s.LastError != "" || n.served() == nil {
		t.Fatalf("status %+v, want a certificate", s)
	}
	now, most := z.values(target)
	if most != 3 || len(now) != 1 || now[0] != "foreign" {
		t.Errorf("%d values at once at the target, %q left; want both beside the foreign one, which stays", most, now)
	}
	if _, most := z.values(challengeName); most != 0 {
		t.Errorf("%d values at the name itself, want none", most)
	}
}

// The authority asks for a renewal; it names the certificate that it replaces, and no connection is dropped.
func TestRenewalUnderConnections(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := newAuthority(t, z)
	n := start(t, testkit.Open(t, testkit.SQLiteConfig(t)), z, a.roots, settings{cfg: config(a), ring: keyring(t)})
	n.run()
	n.work()
	first := n.served()
	if first == nil {
		t.Fatalf("no certificate: %+v", n.one())
	}

	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.Certificate("1r1"), nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }() // echoes until the client closes
		}
	}()
	dial := func() *tls.Conn {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "acme.1r1.example.com",
			InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	conns := make([]*tls.Conn, 100)
	for i := range conns {
		conns[i] = dial()
	}
	echo := func(when string) (dropped int) {
		for i, c := range conns {
			_ = c.SetDeadline(time.Now().Add(patience))
			line := fmt.Sprintf("%s %d\n", when, i)
			if _, err := io.WriteString(c, line); err != nil {
				dropped++
				continue
			}
			if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != line {
				dropped++
			}
		}
		return dropped
	}
	// Teams offers no other suites (direct-routing-sip §2).
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "1r1.example.com", InsecureSkipVerify: true,
		MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}})
	if err != nil {
		t.Fatalf("a peer that knows RSA only: %v", err)
	}
	c.Close()

	if dropped := echo("before"); dropped != 0 {
		t.Fatalf("%d connections do not work before the renewal", dropped)
	}

	a.renewNow(t, first)
	n.advance(7 * time.Hour)
	n.work()
	second := n.served()
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Fatalf("the certificate was not renewed: %+v", n.one())
	}
	if dropped := echo("after"); dropped != 0 {
		t.Errorf("%d of 100 connections were dropped by the renewal", dropped)
	}
	if got := dial().ConnectionState().PeerCertificates[0]; got.SerialNumber.Cmp(second.SerialNumber) != 0 {
		t.Error("a new connection gets the old certificate")
	}
	orders, accounts := a.seen()
	if len(orders) != 2 || accounts != 1 || orders[0]["replaces"] != nil || orders[1]["replaces"] == nil {
		t.Errorf("%d orders, %d registrations, replaces %v; want the second order to name the first certificate",
			len(orders), accounts, orders)
	}
}

// While the authority does not answer, nothing else is asked, the old certificate is served and the cause is told.
func TestAuthorityDown(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := newAuthority(t, z)
	n := start(t, testkit.Open(t, testkit.SQLiteConfig(t)), z, a.roots, settings{cfg: config(a), ring: keyring(t)})
	n.run()
	n.work()
	old := n.served()
	a.stop()
	const day = 24 * time.Hour
	n.advance(65 * day)
	for range 4 {
		n.work()
		n.advance(time.Hour)
	}
	s := n.one()
	if s.Failed < 4 || s.Cause != "authorityUnavailable" || s.LastError == "" {
		t.Errorf("status %+v, want four failures because the authority does not answer", s)
	}
	counted := n.metric("tandem_certificate_failures_total", "authorityUnavailable")
	if got := n.metric("tandem_certificate_failed_attempts", "1r1"); got != float64(s.Failed) {
		t.Errorf("%v failed attempts in the metric, want %d", got, s.Failed)
	}
	if n.log.count("certificate not obtained") != s.Failed || counted != float64(s.Failed) {
		t.Errorf("%d failures logged, %v counted, want %d", n.log.count("certificate not obtained"), counted, s.Failed)
	}
	if got := n.served(); !got.Equal(old) {
		t.Error("the old certificate is not served any more")
	}
	n.dialed.mu.Lock()
	if len(n.dialed.seen) != 1 || n.dialed.seen[a.address] == 0 {
		t.Errorf("connections to %v, want to %s only", n.dialed.seen, a.address)
	}
	n.dialed.mu.Unlock()

	for i, days := range []float64{0, 12, 7, 5} { // 25, 13, 6, 1 days are left, each seen twice
		n.advance(time.Duration(days * float64(day)))
		refreshed(t, n)
		refreshed(t, n)
		if got := n.log.count("is about to expire"); got != i+1 {
			t.Errorf("%d warnings about the expiry, want %d", got, i+1)
		}
	}
	n.advance(2 * day)
	refreshed(t, n)
	if n.log.count("is about to expire") != 4 || n.log.count("has expired") != 1 {
		t.Error("the expiry itself is not logged once")
	}
}

// Whatever an authority answers that is no use, wherever in an order: the old certificate is served, the cause is its
// own, and no value is left in the DNS.
func TestAuthorityAnswersNonsense(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := newAuthority(t, z)
	n := start(t, testkit.Open(t, testkit.SQLiteConfig(t)), z, a.roots, settings{cfg: config(a), ring: keyring(t)})
	n.run()
	n.work()
	old := n.served()
	n.advance(65 * 24 * time.Hour)
	html := func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>maintenance</html>") }
	status := func(code int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(code) }
	}
	nonce := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Replay-Nonce", "bm9uY2U")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"type":"urn:ietf:params:acme:error:badNonce","status":400}`)
	}
	for i, x := range []struct {
		path   string
		answer func(http.ResponseWriter)
	}{
		{"/order-plz", html}, {"/order-plz", nonce}, {"/order-plz", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, strings.Repeat("{", 2<<20))
		}}, {"/authZ/", html}, {"/chalZ/", status(500)}, {"/chalZ/", status(200)}, {"/finalize-order/", html},
		{"/certZ/", html}, {"/certZ/", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/pem-certificate-chain")
			_, _ = w.Write(a.RootsPEM) // of another key
		}},
	} {
		a.breakAt(x.path, x.answer)
		n.advance(7 * time.Hour)
		n.work()
		left, _ := z.values("_acme-challenge.1r1.example.com.")
		if s := n.one(); s.Failed != i+1 || s.Cause != "authorityUnavailable" || s.LastError == "" || len(left) > 0 ||
			!n.served().Equal(old) {
			t.Errorf("%d: %s: %+v; values left %v", i, x.path, s, left)
		}
	}
	a.breakAt("", nil)
	n.advance(7 * time.Hour)
	n.work()
	if s := n.one(); s.Failed != 0 || n.served().Equal(old) {
		t.Errorf("after the repair: %+v", s)
	}
}

// A certificate that has expired when it comes is not put into service.
func TestExpiredCertificateObtained(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := newAuthority(t, z)
	n := start(t, testkit.Open(t, testkit.SQLiteConfig(t)), z, a.roots, settings{cfg: config(a), ring: keyring(t)})
	n.advance(20 * 365 * 24 * time.Hour)
	n.run()
	n.work()
	if s := n.one(); s.Failed != 1 || !strings.Contains(s.LastError, "expired") || n.served() != nil {
		t.Errorf("status %+v, serves %v", s, n.served())
	}
}

// A challenge that the authority does not find is told with what it said, and repeated at most twice an hour: it counts
// two failures, one for the name and one for the wildcard, and allows five.
func TestChallengeFails(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	z.hidden = true
	a := newAuthority(t, z)
	n := start(t, testkit.Open(t, testkit.SQLiteConfig(t)), z, a.roots,
		settings{cfg: config(a), ring: keyring(t), checker: blind{}})
	n.run()
	for range 12 {
		n.work()
		n.advance(5 * time.Minute)
	}
	if got := a.orderCount(); got != 2 {
		t.Errorf("%d orders within an hour, want 2", got)
	}
	s := n.one()
	if s.Cause != "challengeFailed" || s.Failed != 2 || !strings.Contains(s.LastError, "TXT") {
		t.Errorf("status %+v, want the failed challenge with what the authority said", s)
	}
	z.mu.Lock()
	z.hidden = false
	z.mu.Unlock()
	n.advance(time.Hour)
	n.work()
	if s := n.one(); s.Failed != 0 || s.LastError != "" || n.served() == nil {
		t.Errorf("after the repair: %+v", s)
	}
}

// Another directory replaces a certificate at once, with an account of its own; the former directory finds what it had.
func TestDirectoryChanged(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a, b := newAuthority(t, z), newAuthority(t, z)
	d, ring := testkit.Open(t, testkit.SQLiteConfig(t)), keyring(t)
	disk := store.Disk{Path: filepath.Join(t.TempDir(), "certificates"), Ring: ring}
	var serials []string
	for _, use := range []*authority{a, b, a} {
		n := start(t, d, z, use.roots, settings{cfg: config(use), ring: ring, cache: disk})
		if len(serials) > 0 && n.served() == nil {
			t.Error("the certificate of the former directory is not served until there is another")
		}
		n.run()
		n.work()
		n.stop()
		serials = append(serials, n.served().SerialNumber.String())
	}
	if serials[0] == serials[1] || serials[2] != serials[0] {
		t.Errorf("serials %v, want another one, then the first", serials)
	}
	for name, x := range map[string]*authority{"first": a, "second": b} {
		if orders, accounts := x.seen(); len(orders) != 1 || accounts != 1 {
			t.Errorf("%s directory: %d orders, %d registrations; want one of each", name, len(orders), accounts)
		}
	}
}

// A rate limit holds for all nodes and across restarts, whichever way the authority tells its end.
func TestRateLimited(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(3 * time.Hour).UTC()
	for name, refuse := range map[string]struct {
		header, detail string
		from, until    time.Duration
	}{
		"header": {"3600", "slow down", 55 * time.Minute, 65 * time.Minute},
		"detail": {"", "too many certificates (5) already issued for this exact set of identifiers in the last " +
			"168h0m0s, retry after " + end.Format("2006-01-02 15:04:05 UTC") + ": see https://letsencrypt.org",
			170 * time.Minute, 3*time.Hour + time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			z := newZone(t)
			a := newAuthority(t, z)
			a.refuseOrders(limit(refuse.header, refuse.detail))
			cfg, ring := testkit.PostgresConfig(t), keyring(t)
			var nodes []*node
			done := make(chan struct{}, 1000)
			for range 3 { // each is started three times
				for _, n := range nodes {
					n.stop()
				}
				nodes = nil
				for range 3 {
					n := start(t, testkit.Open(t, cfg), z, a.roots, settings{cfg: config(a), ring: ring,
						done: done})
					n.run()
					nodes = append(nodes, n)
				}
				for _, n := range nodes {
					n.advance(refuse.from)
				}
				nodes[0].work() // by any of them
				for _, n := range nodes {
					refreshed(t, n)
					s := n.one()
					wait := time.Until(s.NextAttempt)
					if s.Cause != "rateLimited" || wait < refuse.from || wait > refuse.until {
						t.Errorf("status %+v: next attempt in %s", s, wait)
					}
					until := n.metric("tandem_certificate_rate_limited_until_timestamp_seconds", "")
					if until != float64(s.NextAttempt.Unix()) {
						t.Errorf("end of the rate limit in the metric: %v, want %v", until, s.NextAttempt)
					}
					if n.log.count("rate limit of the certificate authority reached") != 1 {
						t.Error("a node does not log the rate limit once")
					}
				}
			}
			if got := a.orderCount(); got != 1 {
				t.Errorf("%d orders before the time that the authority gave, want 1", got)
			}
			a.refuseOrders(nil)
			for _, n := range nodes {
				n.advance(refuse.until)
			}
			nodes[0].work() // by any of them
			if got := a.orderCount(); got != 2 {
				t.Errorf("%d orders after that time, want 2", got)
			}
			for _, n := range nodes {
				refreshed(t, n)
				until := n.metric("tandem_certificate_rate_limited_until_timestamp_seconds", "")
				if n.served() == nil || n.one().Failed != 0 || until != 0 {
					t.Errorf("after the rate limit: %+v, until %v in the metric", n.one(), until)
				}
			}
		})
	}
}

// refreshed makes a node read what the nodes share, as it does every minute.
func refreshed(t *testing.T, n *node) {
	t.Helper()
	if _, err := n.Kind().List(t.Context(), "", 1); err != nil {
		t.Error(err)
	}
}

// A person makes a certificate be ordered at once, once, on any node and whatever failed before; but not while the
// authority's rate limit holds, which is told with its end.
func TestRenewByHand(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := newAuthority(t, z)
	d := testkit.Open(t, testkit.SQLiteConfig(t))
	n := start(t, d, z, a.roots, settings{cfg: config(a), ring: keyring(t)})
	n.run()
	n.work()
	first := n.served()
	renew := func() {
		t.Helper()
		if err := n.Renew(t.Context(), "1r1"); err != nil {
			t.Fatal(err)
		}
		n.settle()
	}
	renew()
	if got := n.served(); got.Equal(first) || a.orderCount() != 2 {
		t.Errorf("%d orders, the same certificate: %v", a.orderCount(), got.Equal(first))
	}
	n.work()
	if got := a.orderCount(); got != 2 {
		t.Errorf("%d orders after looking again, want 2", got)
	}
	if err := n.Renew(t.Context(), "r9"); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "1r1") {
		t.Errorf("Renew of an unknown name: %v", err)
	}

	a.refuseOrders(func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) })
	renew()
	a.refuseOrders(nil)
	if s := n.one(); s.Failed != 1 || time.Until(s.NextAttempt) < 50*time.Second {
		t.Errorf("after a failure: %+v", s)
	}
	renew()
	if s := n.one(); s.Failed != 0 {
		t.Errorf("asked for after a failure: %+v", s)
	}

	a.refuseOrders(limit("3600", "slow down"))
	renew()
	before := a.orderCount()
	err := n.Renew(t.Context(), "1r1")
	if f := fault.As(err); f.Kind != fault.Limited || f.RetryAfter < 50*time.Minute ||
		!strings.Contains(f.Message, "slow down") {
		t.Errorf("Renew while the rate limit holds: %v", err)
	}
	if until, why := n.Held(); time.Until(until) < 50*time.Minute || !strings.Contains(why, "slow down") {
		t.Errorf("Held: %v, %q", until, why)
	}
	n.work()
	if got := a.orderCount(); got != before {
		t.Errorf("%d orders while the rate limit holds, want %d", got, before)
	}
	rows := 0
	for _, r := range testkit.AuditLog(t, d) {
		if r.Action == "certificate.renew" && r.Target == "1r1" {
			rows++
		}
	}
	if rows != 4 {
		t.Errorf("%d audit rows, want one for each of 4 requests", rows)
	}
}

// Work that was parked, because processes ended during too many runs, does not stop renewals for good.
func TestParkedWorkRunsAgain(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := newAuthority(t, z)
	d := testkit.Open(t, testkit.SQLiteConfig(t))
	n := start(t, d, z, a.roots, settings{cfg: config(a), ring: keyring(t)})
	err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		if err := n.q.Enqueue(ctx, tx, "certificate", time.Time{}, "acme"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "UPDATE work SET state = 'parked', due = $1, attempts = 21", int64(math.MaxInt64))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	n.run() // its first sweep is at once
	n.settle()
	if n.served() == nil || a.orderCount() != 1 {
		t.Errorf("%d orders, status %+v; want a certificate", a.orderCount(), n.one())
	}
}

// An authority that wants accounts bound to those made elsewhere gets the binding.
func TestExternalAccount(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	key := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	a := newAuthority(t, z, map[string]any{"externalAccountBindingRequired": true,
		"externalAccountMACKeys": map[string]string{"kid-1": key}})
	file := filepath.Join(t.TempDir(), "hmac")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config(a)
	cfg.Contact = "hostmaster@example.com"
	d := testkit.Open(t, testkit.SQLiteConfig(t))
	ring := keyring(t)
	n := start(t, d, z, a.roots, settings{cfg: cfg, ring: ring})
	n.run()
	n.work()
	n.stop()
	if s := n.one(); s.Cause != "orderRefused" || !strings.Contains(s.LastError, "xternal") {
		t.Errorf("without a binding: %+v", s)
	}
	cfg.ExternalAccount = certificate.ExternalAccount{KeyID: "kid-1", HMACKeyFile: file}
	n = start(t, d, z, a.roots, settings{cfg: cfg, ring: ring})
	n.advance(time.Hour)
	n.run()
	n.work()
	if n.served() == nil {
		t.Errorf("with a binding: %+v", n.one())
	}
}

// A node starts with what is on its disk while the database is unavailable, and an empty disk causes no order.
func TestCache(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := newAuthority(t, z)
	c := testkit.NewCluster(t, testkit.ClusterOptions{})
	dbc := db.Default()
	dbc.Driver, dbc.URL, dbc.AllowUnsafeDurability = db.Postgres, c.URL("postgres"), true
	d, ring := testkit.Open(t, dbc), keyring(t)
	disk := store.Disk{Path: filepath.Join(t.TempDir(), "certificates"), Ring: ring}
	n := start(t, d, z, a.roots, settings{cfg: config(a), ring: ring, cache: disk})
	n.run()
	n.work()
	n.stop()
	want := n.served().SerialNumber.String()

	wiped := start(t, d, z, a.roots, settings{cfg: config(a), ring: ring})
	wiped.run()
	wiped.work()
	wiped.stop()
	if got := wiped.served(); got == nil || got.SerialNumber.String() != want || a.orderCount() != 1 {
		t.Errorf("with an empty disk: certificate %v, %d orders; want that of the database and one order", got,
			a.orderCount())
	}

	// A node that no longer uses the certificate forgets its copy, once the database has it.
	former := store.Disk{Path: filepath.Join(t.TempDir(), "certificates"), Ring: ring}
	content, err := disk.Load()
	if err == nil {
		err = former.Save(content)
	}
	if err != nil {
		t.Fatal(err)
	}
	unused := start(t, d, z, a.roots, settings{cfg: config(a), ring: ring, cache: former,
		keep: func(string) bool { return false }})
	unused.run()
	unused.work()
	unused.stop()

	c.Kill(t)
	if got := start(t, d, z, a.roots, settings{cfg: config(a), ring: ring, cache: former}).served(); got != nil {
		t.Errorf("the disk of a node that does not use the certificate has %v", got.SerialNumber)
	}
	away := start(t, d, z, a.roots, settings{cfg: config(a), ring: ring, cache: disk})
	if got := away.served(); got == nil || got.SerialNumber.String() != want {
		t.Errorf("without the database: certificate %v, want %s", got, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = away.Run(ctx) }) // always nil
	for end := time.Now().Add(patience); away.log.count("cannot be read from or written to the database") == 0; {
		if time.Now().After(end) {
			t.Fatal("the missing database is not logged")
		}
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	if s := away.one(); s.Source != certificate.SourceCache || a.orderCount() != 1 {
		t.Errorf("without the database: %+v, %d orders", s, a.orderCount())
	}
}
