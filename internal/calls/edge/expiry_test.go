package edge

import (
	"crypto/tls"
	"crypto/x509"
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
	cert := issue(t, authority, "trunk.example.net")
	// ending is the certificate with another end.
	ending := func(end int64) tls.Certificate {
		c := cert
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		leaf.NotAfter = time.Unix(end, 0)
		c.Leaf = leaf
		return c
	}
	e := &Edge{}
	for _, k := range []struct {
		file string
		end  int64
	}{{"a.pem", 2000}, {"a.pem", 1000}, {"a.pem", 3000}, {"b.pem", 4000}} { // three addresses show the first
		ring := transport.NewKeyring()
		if err := ring.Put(tlsIdentity, ending(k.end)); err != nil {
			t.Fatal(err)
		}
		files := &keyFiles{ring: ring}
		files.cfg.Store(&TLS{CertificateFile: k.file})
		e.keys = append(e.keys, files)
	}
	const name = "tandem_sip_certificate_expiry_timestamp_seconds"
	want := func(a, b string) string {
		return "# HELP " + name + " When the certificate shown on SIP connections ends, in Unix time: of the one in use, which the file may no longer hold.\n" +
			"# TYPE " + name + " gauge\n" + name + `{file="a.pem"} ` + a + "\n" + name + `{file="b.pem"} ` + b + "\n"
	}
	m := newMetrics(e)
	if err := testutil.CollectAndCompare(m, strings.NewReader(want("1000", "4000")), name); err != nil {
		t.Error(err)
	}

	// A renewed certificate shows as soon as it is in use.
	file, key, err := ca.WriteFiles(t.TempDir(), "edge", cert)
	if err != nil {
		t.Fatal(err)
	}
	k := e.keys[3]
	k.cfg.Store(&TLS{CertificateFile: file, KeyFile: key})
	if got := e.certificates()[file]; !got.Equal(time.Unix(4000, 0)) {
		t.Errorf("before the file was read the certificate ends at %v", got)
	}
	if _, err := k.refresh(); err != nil {
		t.Fatal(err)
	}
	if got := e.certificates()[file]; !got.Equal(cert.Leaf.NotAfter) {
		t.Errorf("after a renewal the certificate ends at %v, want %v", got, cert.Leaf.NotAfter)
	}
}
