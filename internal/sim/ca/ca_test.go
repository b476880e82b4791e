package ca_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"

	"github.com/tandemgw/tandem/internal/sim/ca"
)

func TestIssuedCertificatesCoverOneLabelOnly(t *testing.T) {
	a, err := ca.New("lab")
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Issue(ca.ServerOnly, "1r1.gw.example", "*.1r1.gw.example", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"nwind.1r1.gw.example": true, "1r1.gw.example": true, "127.0.0.1": true,
		"a.b.1r1.gw.example": false, "gw.example": false} {
		_, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: a.Pool()})
		if (err == nil) != want {
			t.Errorf("verify %s: %v, want ok %v", name, err, want)
		}
	}
	if n := len(c.Leaf.ExtKeyUsage); n != 1 {
		t.Errorf("%d extended key usages, want server only", n)
	}
	if _, err := a.Issue(ca.ServerOnly); err == nil {
		t.Error("a certificate without a name was issued")
	}
}

func TestWrittenFilesLoad(t *testing.T) {
	a, err := ca.New("lab")
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Issue(ca.ServerAndClient, "gw.example")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.WriteFiles(t.TempDir(), "edge", c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		t.Error(err)
	}
	if s, err := os.Stat(key); err != nil || s.Mode().Perm() != 0o600 {
		t.Errorf("key file mode %v, %v, want 0600", s.Mode(), err)
	}
}
