//go:build deep

package sdk_test

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/test/rig"
)

const (
	clientID = "aaaaaaaa-0000-4000-8000-000000000001"
	redirect = "https://onboard.gw.example.com/callback"
)

// TestTokensOfMSAL: @azure/msal-node obtains tokens from the simulated login over TLS in each way that Tandem uses, and
// the simulated services accept them.
func TestTokensOfMSAL(t *testing.T) {
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	cloud, err := microsoft.New(microsoft.Config{Authority: authority})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cloud.Close() })
	tenant := cloud.AddTenant(microsoft.Spec{Name: "contoso", Seed: 1})
	key, cert := certificate(t)
	permissions := []string{"Organization.Read.All"}
	delegated := append(slices.Clone(permissions), "user_impersonation")
	cloud.Register(microsoft.App{ID: clientID, Name: "Tandem", Home: tenant.ID, MultiTenant: true, Public: true,
		RedirectURIs: []string{redirect}, Secrets: []microsoft.Secret{{Value: "secret"}},
		Certificates: []*x509.Certificate{cert}, Application: permissions, Delegated: delegated})
	tenant.Consent(clientID, permissions, delegated)

	dir := rig.NodeProject(t, ".")
	roots := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(roots, authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	thumbprint := sha256.Sum256(cert.Raw)
	login := cloud.URL(microsoft.Login)
	node := exec.CommandContext(t.Context(), "node", "tokens.mjs")
	node.Dir = dir
	node.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+roots, "AUTHORITY="+login+"/"+tenant.ID,
		"HOST="+strings.TrimPrefix(login, "https://"), "CLIENT_ID="+clientID, "SECRET=secret",
		"THUMBPRINT="+hex.EncodeToString(thumbprint[:]), "TEAMS="+microsoft.TeamsID, "REDIRECT="+redirect,
		"PRIVATE_KEY="+string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	var errs strings.Builder
	node.Stderr = &errs
	stdin, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}}}
	var got []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		var line struct{ How, Token, Account, Tenant, Open, Code string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if line.Open != "" {
			to, err := cloud.Walk(t.Context(), line.Open, tenant.Admin, url.Values{"code": {line.Code}})
			if err != nil {
				t.Fatal(err)
			}
			if line.Code == "" {
				_, _ = fmt.Fprintln(stdin, to) // node says what is wrong
			}
			continue
		}
		got = append(got, line.How)
		if line.Account != "" && line.Account != tenant.Admin || line.Tenant != "" && line.Tenant != tenant.ID {
			t.Errorf("%s: account %s of %s", line.How, line.Account, line.Tenant)
		}
		service := cloud.URL(microsoft.Graph) + "/v1.0/organization"
		if slices.Contains([]string{"authorization code", "refresh token"}, line.How) {
			service = cloud.URL(microsoft.Teams) + "/Teams.Tenant/serviceDiscovery"
		}
		r, err := http.NewRequestWithContext(t.Context(), "GET", service, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+line.Token)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close() // not read
		if res.StatusCode != 200 {
			t.Errorf("%s: %s answers %d", line.How, service, res.StatusCode)
		}
	}
	want := []string{"client secret", "certificate", "authorization code", "refresh token",
		"refresh token for another resource", "device code"}
	if err := node.Wait(); err != nil || !slices.Equal(got, want) {
		t.Errorf("tokens by %q, want %q; %v: %s", got, want, err, errs.String())
	}
}

// certificate makes a self-signed certificate with its key.
func certificate(t *testing.T) (*rsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tandem"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}
