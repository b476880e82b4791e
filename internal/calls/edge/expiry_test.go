package edge

import (
	"crypto/tls"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/sim/ca"
)

func TestTheEndOfCertificatesInUseIsExposed(t *testing.T) {
	authority, err := ca.New("edge")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// install writes a certificate with an end. One that has expired is used where there was none before.
	install := func(name string, end time.Time) transport.CertificatePaths {
		c, err := authority.IssueFor(ca.ServerAndClient, time.Unix(0, 0), end, "trunk.example.net")
		if err != nil {
			t.Fatal(err)
		}
		cert, key, err := ca.WriteFiles(dir, name, c)
		if err != nil {
			t.Fatal(err)
		}
		touch(t, cert, int(end.Unix()))
		return transport.CertificatePaths{Certificate: cert, Key: key}
	}
	e := &Edge{}
	for _, k := range []struct {
		name string
		end  int64
	}{{"a", 2000}, {"a", 1000}, {"a", 3000}, {"b", 4000}} { // three addresses show the first
		files, err := transport.OpenCertificateFiles(install(k.name, time.Unix(k.end, 0)), nil, nil,
			slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		e.keys = append(e.keys, keyFiles{CertificateFiles: files})
	}
	obtained, err := authority.Issue(ca.ServerAndClient, "trunk.example.net")
	if err != nil {
		t.Fatal(err)
	}
	files, err := transport.OpenCertificateFiles(transport.CertificatePaths{Name: "1r1"}, nil,
		func(string) *tls.Certificate { return &obtained }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	e.keys = append(e.keys, keyFiles{CertificateFiles: files}) // whoever obtained it shows its end
	const name = "tandem_sip_certificate_expiry_timestamp_seconds"
	want := func(a, b string) string {
		return "# HELP " + name + " Expiry of the certificate in use on SIP connections, in Unix time. The file may " +
			"hold a newer one already.\n" +
			"# TYPE " + name + " gauge\n" + name + `{file="` + dir + `/a.crt"} ` + a + "\n" + name + `{file="` + dir +
			`/b.crt"} ` + b + "\n"
	}
	m := newMetrics(e)
	if err := testutil.CollectAndCompare(m, strings.NewReader(want("1000", "4000")), name); err != nil {
		t.Error(err)
	}

	// A renewed certificate shows as soon as it is in use.
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	b := install("b", end).Certificate
	if got := e.certificates()[b]; !got.Equal(time.Unix(4000, 0)) {
		t.Errorf("before the file was read the certificate ends at %v", got)
	}
	e.keys[3].Check(time.Now())
	if got := e.certificates()[b]; !got.Equal(end) {
		t.Errorf("after a renewal the certificate ends at %v, want %v", got, end)
	}
}

// TestEdgeStartsAgainWithAnExpiredCertificate: the groups that need no certificate must not stay down with it.
func TestEdgeStartsAgainWithAnExpiredCertificate(t *testing.T) {
	authority, err := ca.New("edge")
	if err != nil {
		t.Fatal(err)
	}
	c, err := authority.IssueFor(ca.ServerAndClient, time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour),
		"trunk.example.net")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.WriteFiles(t.TempDir(), "edge", c)
	if err != nil {
		t.Fatal(err)
	}
	b := setup(t, func(c *bedConfig) {
		c.zoom.Bind.TLS, c.zoom.TLS = "127.0.0.3:0", TLS{CertificateFile: cert, KeyFile: key}
	})
	up, down := b.established(b.core, b.svc, outside, served)
	b.over(up, down)
	b.idle()
	if log := b.log.String(); !strings.Contains(log, "level=ERROR") ||
		!strings.Contains(log, "using a certificate that peers may refuse") {
		t.Errorf("the log does not say that the certificate has expired:\n%s", log)
	}
}

func touch(t *testing.T, file string, minutes int) {
	t.Helper()
	at := time.Unix(int64(minutes)*60, 0)
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}
