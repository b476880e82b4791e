package config_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/config/strict"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/sim/ca"
)

// files is a directory of certificates: valid ones in good.crt, good.key and roots.pem, and invalid ones of each kind.
type files struct {
	t         *testing.T
	dir       string
	authority *ca.Authority
}

func newFiles(t *testing.T) files {
	t.Helper()
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	f := files{t, t.TempDir(), authority}
	f.write("roots.pem", string(authority.PEM()))
	f.write("empty.pem", "")
	f.write("text.pem", "no certificate\n")
	hour := time.Hour
	f.issue("good", -hour, 90*24*hour, "sbc.gw.example.com", "*.1r1.gw.example.com", "1r1.gw.example.com")
	f.issue("other", -hour, 90*24*hour, "sbc.gw.example.com")
	f.issue("wildcard", -hour, 90*24*hour, "*.gw.example.com", "customer.1r1.gw.example.com")
	f.issue("expired", -48*hour, -hour, "sbc.gw.example.com")
	f.issue("future", hour, 90*24*hour, "sbc.gw.example.com")
	f.issue("soon", -hour, 24*hour, "sbc.gw.example.com")
	f.issue("elsewhere", -hour, 90*24*hour, "sbc.elsewhere.example.com")
	return f
}

func (f files) write(name, text string) {
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f files) issue(name string, from, until time.Duration, names ...string) {
	f.issueAs(ca.ServerAndClient, name, from, until, names...)
}

func (f files) issueAs(usage ca.Usage, name string, from, until time.Duration, names ...string) {
	now := time.Now()
	c, err := f.authority.IssueFor(usage, now.Add(from), now.Add(until), names...)
	if err == nil {
		_, _, err = ca.WriteFiles(f.dir, name, c)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// group returns a configuration whose line 4 is the TLS of a group that is advertised as sbc.gw.example.com.
func (f files) group(tls string) string {
	return `calls:
  groups:
    - {name: core, bind: {tls: "192.0.2.1:5061"}, advertised: {tls: sbc.gw.example.com},
       tls: {` + tls + "}}\n"
}

func (f files) load(text string, machine bool, env ...string) (*config.Loaded, error) {
	return config.Load(config.Source{File: "tandem.yaml", Text: f.text(text), Data: f.t.TempDir(), Env: env,
		Machine: machine})
}

func (f files) text(text string) []byte { return []byte(strings.ReplaceAll(text, "DIR", f.dir)) }

// authority is a configuration that ends with the section certificates.
const authority = `calls: {routing: {baseDomain: gw.example.com}}
zone:
  contact: hostmaster@example.com
  nameServers: [{name: ns1.example.com}]
  regions:
    - edges: [{name: e1, addresses: [192.0.2.1], tls: 5061}]
certificates:
  directory: https://ca.example/dir
  acceptTerms: true
`

// TestFilesOfThisMachine: unusable files and variables that a configuration names are reported with key, line and
// remedy, and only if the check is for this machine.
func TestFilesOfThisMachine(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	pair := func(cert, key, more string) string {
		return f.group(fmt.Sprintf("certificateFile: DIR/%s, keyFile: DIR/%s%s", cert, key, more))
	}
	http := func(path, cert, key string) string {
		return fmt.Sprintf("%s:\n  listen: 192.0.2.1:443\n  certificateFile: DIR/%s\n  keyFile: DIR/%s\n",
			path, cert, key)
	}
	const group, line = "tandem.yaml:4:", "calls.groups[0].tls."
	for _, c := range []struct {
		name, text string
		want       []string // nothing: valid
	}{
		{"good", pair("good.crt", "good.key", ", rootsFile: DIR/roots.pem"), nil},
		{"ends soon", pair("soon.crt", "soon.key", ""), nil},
		{"covered by a wildcard", pair("wildcard.crt", "wildcard.key", ""), nil},
		{"missing", pair("none.crt", "good.key", ""), []string{group, line + "certificateFile: ",
			"none.crt: no such file", "correct the path"}},
		{"missing key", pair("good.crt", "none.key", ""), []string{group, line + "keyFile: ", "none.key: no such file",
			"correct the path"}},
		{"a directory", pair("", "good.key", ""), []string{group, line + "certificateFile: ", "directory"}},
		{"another's key", pair("good.crt", "other.key", ""),
			[]string{group, line + "keyFile: ", "other.key is not the private key of the certificate in",
				"install both"}},
		{"mixed up", pair("good.key", "good.crt", ""), []string{group, line + "certificateFile: ",
			"good.key holds no certificate"}},
		{"empty", pair("empty.pem", "good.key", ""), []string{group, line + "certificateFile: ",
			"empty.pem holds no certificate"}},
		{"empty key", pair("good.crt", "empty.pem", ""),
			[]string{group, line + "keyFile: ", "empty.pem is not the private key"}},
		{"expired", pair("expired.crt", "expired.key", ""), []string{group, line + "certificateFile: ",
			"expired.crt expired on ", "install a renewed one"}},
		{"not yet valid", pair("future.crt", "future.key", ""), []string{group, line + "certificateFile: ",
			"future.crt is not valid before ", "clock"}},
		{"for another name", pair("elsewhere.crt", "elsewhere.key", ""),
			[]string{group, line + "certificateFile: ",
				"is for sbc.elsewhere.example.com and does not cover sbc.gw.example.com", "install one that does"}},
		{"missing roots", pair("good.crt", "good.key", ", rootsFile: DIR/none.pem"),
			[]string{group, line + "rootsFile: ", "none.pem: no such file"}},
		{"empty roots", pair("good.crt", "good.key", ", rootsFile: DIR/empty.pem"),
			[]string{group, line + "rootsFile: ", "empty.pem holds no certificate", "write the trusted authorities"}},
		{"roots without a certificate", pair("good.crt", "good.key", ", rootsFile: DIR/good.key"),
			[]string{group, line + "rootsFile: ", "good.key holds no certificate"}},
		{"both", pair("none.crt", "good.key", ", rootsFile: DIR/none.pem"),
			[]string{line + "certificateFile: ", line + "rootsFile: "}},

		{"provisioning good", http("provisioning", "good.crt", "good.key"), nil},
		{"provisioning for any name", http("provisioning", "elsewhere.crt", "elsewhere.key"), nil},
		{"provisioning expired", http("provisioning", "expired.crt", "expired.key"),
			[]string{"tandem.yaml:3:", "provisioning.certificateFile: ", "expired on"}},
		{"provisioning not yet valid", http("provisioning", "future.crt", "future.key"),
			[]string{"tandem.yaml:3:", "provisioning.certificateFile: ", "not valid before"}},
		{"provisioning mismatched", http("provisioning", "good.crt", "other.key"),
			[]string{"tandem.yaml:4:", "provisioning.keyFile: ", "not the private key"}},
		{"manage missing", http("manage", "none.crt", "good.key"),
			[]string{"tandem.yaml:3:", "manage.certificateFile: ", "no such file"}},
		{"metrics missing key", http("metrics", "good.crt", "none.key"), []string{"tandem.yaml:4:", "metrics.keyFile: ",
			"no such file"}},
		{"an API that is off", strings.Replace(http("provisioning", "none.crt", "none.key"), "192.0.2.1:443",
			"\"off\"", 1), nil},

		{"roots of issuers missing", "auth:\n  trustRootsFile: DIR/none.pem\n",
			[]string{"tandem.yaml:2:", "auth.trustRootsFile: ", "no such file"}},
		{"roots of issuers empty", "auth:\n  trustRootsFile: DIR/text.pem\n",
			[]string{"tandem.yaml:2:", "auth.trustRootsFile: ", "holds no certificate"}},
		{"roots of the certificate authority missing", authority + "  rootsFile: DIR/none.pem\n",
			[]string{"tandem.yaml:10:", "certificates.rootsFile: ", "no such file"}},
		{"key of an external account missing", authority + "  externalAccount: {keyId: a, hmacKeyFile: DIR/none.key}\n",
			[]string{"tandem.yaml:10:", "certificates.externalAccount.hmacKeyFile: ", "no such file"}},
		{"key variable unset", "secrets:\n  keyEnvironment: TANDEM_KEYS\n",
			[]string{"tandem.yaml:2:", "secrets.keyEnvironment: ", "TANDEM_KEYS is empty; set it"}},
		{"root of the database missing", "database:\n  driver: postgres\n  url: " +
			"postgres://u:hunter2@db.example/t?sslmode=verify-full&sslrootcert=DIR/none.pem\n",
			[]string{"tandem.yaml:3:", "database.url: ", "none.pem: no such file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := f.load(c.text, false); err != nil {
				t.Errorf("a configuration for another machine is refused:\n%v", err)
			}
			_, err := f.load(c.text, true)
			if len(c.want) == 0 {
				if err != nil {
					t.Errorf("refused:\n%v", err)
				}
				return
			}
			if err == nil {
				t.Fatalf("passed, want %q", c.want)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the mistake\n%v\ndoes not say %q", err, w)
				}
			}
			if n := len(err.(strict.Problems)); n != 1 && c.name != "both" {
				t.Errorf("%d mistakes, want one:\n%v", n, err)
			}
			file := filepath.Join(t.TempDir(), "tandem.yaml")
			if err := os.WriteFile(file, f.text(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			starting := config.Source{File: file, Data: t.TempDir(), Machine: true, Starting: true}
			l, startErr := config.Load(starting)
			if dated := strings.HasSuffix(c.name, "expired") ||
				strings.HasSuffix(c.name, "not yet valid"); dated != (startErr == nil) {
				t.Errorf("at a start: %v; want a mistake unless only the certificate's dates are wrong", startErr)
			} else if dated {
				if _, _, err := l.Reload(); err == nil {
					t.Error("a reload passed, want the mistake")
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the mistake shows a password:\n%v", err)
			}
		})
	}
}

// TestKeyVariable: the variable must hold a keyring.
func TestKeyVariable(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	const text = "secrets:\n  keyEnvironment: TANDEM_KEYS\n"
	for value, want := range map[string]string{
		"":                     "is empty",
		"%%%":                  "is not base64",
		"bm90IGEga2V5cmluZw==": "not a keyring",
	} {
		if _, err := f.load(text, true, "TANDEM_KEYS="+value); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "tandem.yaml:2:") {
			t.Errorf("TANDEM_KEYS=%q: %v, want %q", value, err, want)
		}
	}
	dir := t.TempDir()
	if _, err := secret.Open(dir, secret.Default(), func(string) string { return "" }); err != nil {
		t.Fatal(err)
	}
	ring, err := os.ReadFile(filepath.Join(dir, "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.load(text, true, "TANDEM_KEYS="+base64.StdEncoding.EncodeToString(ring)); err != nil {
		t.Errorf("a keyring is refused: %v", err)
	}
}

// TestFilesOfOtherRoles: a node checks only the files of its roles.
func TestFilesOfOtherRoles(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	edge := f.group("certificateFile: DIR/none.crt, keyFile: DIR/none.key")
	api := "provisioning:\n  listen: 192.0.2.1:443\n  certificateFile: DIR/none.crt\n  keyFile: DIR/none.key\n"
	ca := authority + "  rootsFile: DIR/none.pem\n  externalAccount: {keyId: a, hmacKeyFile: DIR/none.key}\n"
	const database = "database: {driver: postgres, url: 'host=/run/postgresql'}\n"
	for _, c := range []struct {
		text string
		bad  string
	}{
		{database + "roles: [api]\n" + edge, ""},
		{database + "roles: [worker]\n" + edge + api, ""},
		{database + "roles: [edge]\n" + api, ""},
		{database + "roles: [edge]\n" + edge, "calls.groups[0]"},
		{database + "roles: [api]\n" + api, "provisioning."},
		{database + "roles: [api, edge]\n" + ca, ""},
		{database + "roles: [worker]\n" + ca, "certificates.rootsFile"},
	} {
		_, err := f.load(c.text, true)
		if (err != nil) != (c.bad != "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%s\n%v, want a mistake at %q", c.text, err, c.bad)
		}
	}
}

// TestDirectRoutingAdvertisesItsCustomersNames: Contacts towards the service carry names below that of the carrier
// trunk.
func TestDirectRoutingAdvertisesItsCustomersNames(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	text := func(name string) string {
		return `calls:
  routing: {baseDomain: gw.example.com, countries: [GB]}
  groups:
    - {name: core, transport: udp, bind: {udp: '127.0.0.1:5060'}}
    - {name: dr, service: teamsDirectRouting, bind: {tls: '192.0.2.1:5061'}, advertised: {tls: sbc.gw.example.com},
       tls: {certificateFile: DIR/` + name + ".crt, keyFile: DIR/" + name + ".key}}\n"
	}
	for name, want := range map[string]string{
		"good":      "",
		"other":     "does not cover 1r1.gw.example.com",
		"elsewhere": "does not cover sbc.gw.example.com",
		"wildcard":  "",
	} {
		_, err := f.load(text(name), true)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "tandem.yaml:6:")) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// TestGeneratedCertificateIsNotChecked: the server creates it when it starts.
func TestGeneratedCertificateIsNotChecked(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	l, err := f.load("", true)
	if err != nil || len(l.Generated) != 1 {
		t.Fatalf("no configuration: %v, generated %v", err, l.Generated)
	}
	if _, err := tls.LoadX509KeyPair(l.Calls.Edge.Groups[0].TLS.CertificateFile,
		l.Calls.Edge.Groups[0].TLS.KeyFile); err == nil {
		t.Error("checking a configuration created a certificate")
	}
}

// TestCertificateWithoutClientAuthentication: a group that faces a core is warned about, at its place in the file; it
// is no mistake. A check without the machine's files cannot tell.
func TestCertificateWithoutClientAuthentication(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	f.issueAs(ca.ServerOnly, "public", -time.Hour, 24*time.Hour, "sbc.gw.example.com")
	public := f.group("certificateFile: DIR/public.crt, keyFile: DIR/public.key")
	l, err := f.load(public, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Warnings) != 1 {
		t.Fatalf("warnings %v, want one", l.Warnings)
	}
	got := l.Warnings[0].String()
	for _, want := range []string{"tandem.yaml:4:", "calls.groups[0].tls.certificateFile: ", f.dir + "/public.crt",
		"does not allow client authentication", "a core that requires it will refuse", "no longer issue it",
		"private authority"} {
		if !strings.Contains(got, want) {
			t.Errorf("the warning %q does not say %q", got, want)
		}
	}
	for name, text := range map[string]string{
		"a private certificate": f.group("certificateFile: DIR/good.crt, keyFile: DIR/good.key"),
		"a service": strings.Replace(public, "name: core,", "name: oc, service: teamsOperatorConnect,", 1) +
			"    - {name: core, transport: udp, bind: {udp: '127.0.0.1:5060'}}\n",
		"another role":    "roles: [api]\ndatabase: {driver: postgres, url: 'host=/run/postgresql'}\n" + public,
		"another machine": public,
	} {
		l, err := f.load(text, name != "another machine")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if len(l.Warnings) > 0 {
			t.Errorf("%s: %v", name, l.Warnings)
		}
	}

	// A reload warns too, and stops when the certificate is replaced.
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	if err := os.WriteFile(file, f.text(public), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = config.Load(config.Source{File: file, Data: t.TempDir(), Machine: true}); err != nil {
		t.Fatal(err)
	}
	if l, _, err = l.Reload(); err != nil {
		t.Fatal(err)
	}
	if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0].String(), file+":4:") {
		t.Errorf("after a reload: %v, want one at line 4", l.Warnings)
	}
	f.issue("public", -time.Hour, 24*time.Hour, "sbc.gw.example.com")
	if l, _, err = l.Reload(); err != nil {
		t.Fatal(err)
	}
	if len(l.Warnings) > 0 {
		t.Errorf("after the certificate was replaced: %v", l.Warnings)
	}
}

// TestGroupsOfAnAddressShareItsCertificate: a group that names none has that of another group on its TLS address, also
// where it would have the generated one otherwise.
func TestGroupsOfAnAddressShareItsCertificate(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	for _, bind := range []string{"192.0.2.1:5061", "127.0.0.1:5061"} {
		l, err := f.load(`calls:
  groups:
    - {name: oc, service: teamsOperatorConnect, bind: {tls: "`+bind+`"}, peers: [{address: 192.0.2.2}]}
    - {name: core, bind: {tls: "`+bind+`"}, peers: [{address: 192.0.2.3}],
       tls: {certificateFile: DIR/good.crt, keyFile: DIR/good.key, rootsFile: DIR/roots.pem}}
`, true)
		if err != nil {
			t.Errorf("%s: %v", bind, err)
			continue
		}
		if a, b := l.Calls.Edge.Groups[0].TLS, l.Calls.Edge.Groups[1].TLS; a.CertificateFile != b.CertificateFile ||
			a.KeyFile != b.KeyFile || a.RootsFile != b.RootsFile || len(l.Generated) > 0 {
			t.Errorf("%s: the files are %+v and %+v, generated %v", bind, a, b, l.Generated)
		}
	}
}
