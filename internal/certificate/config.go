package certificate

import (
	"encoding/base64"
	"net/mail"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config says from which authority certificates are obtained.
type Config struct {
	// Directory is the URL of the authority's ACME directory, https. Default none: no certificates are obtained. No
	// other directory is ever asked. When it changes, all certificates are replaced at once; each directory has one
	// account.
	Directory string `yaml:"directory"`
	// AcceptTerms says that you accept the authority's terms of service. Required: no account is registered without.
	AcceptTerms bool `yaml:"acceptTerms"`
	// Contact is the mail address that the authority gets when the account is registered. Default none.
	Contact string `yaml:"contact"`
	// RootsFile is the PEM file with the authorities that must have issued the certificate of the directory's web
	// server. Path; only nodes with the role "worker" need the file. Default those of the operating system.
	RootsFile string `yaml:"rootsFile"`
	// ExternalAccount binds the account to one that you have at the authority (RFC 8555, section 7.3.4). Default none.
	ExternalAccount ExternalAccount `yaml:"externalAccount"`
	// Order lists the certificates that are obtained: "provapi", the labels of Direct Routing regions ("1r1", each with
	// its wildcard), the regions ("r1") and "onboard". Default all of them but onboard. List the ones that a listener
	// or a peer group of the deployment uses, the same on all nodes.
	Order []string `yaml:"order"`
}

// ExternalAccount is an account that was made at the authority by other means.
type ExternalAccount struct {
	// KeyID identifies the account, as the authority says. Required with hmacKeyFile.
	KeyID string `yaml:"keyId"`
	// HMACKeyFile is the file with the key that the authority gives for it, base64url. Path; only nodes with the role
	// "worker" need the file. Required with keyId.
	HMACKeyFile string `yaml:"hmacKeyFile"`
}

// Enabled reports whether certificates are obtained.
func (c *Config) Enabled() bool { return c.Directory != "" }

// Wanted is one certificate.
type Wanted struct {
	Name string // identifies the certificate in the store, in logs and to people, e.g. "1r1"; it never changes
	// Names are the host names in it, in lower case. "*.1r1.example.com" covers one label below 1r1.example.com only.
	// No other certificate has them: an authority counts failures by the name without the wildcard.
	Names []string
	// Optional certificates are obtained only if [Config].Order lists them.
	Optional bool
}

// Covers reports whether a host name, possibly a wildcard, is in the certificate.
func (w *Wanted) Covers(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, parent, _ := strings.Cut(host, ".")
	return slices.Contains(w.Names, host) || slices.Contains(w.Names, "*."+parent)
}

// Validate returns every mistake as a *fault.Error whose Target is the setting. known are the certificates that the
// deployment can have. It reads no files.
func (c *Config) Validate(known []Wanted) []error {
	var p fault.Problems
	if !c.Enabled() {
		if c.AcceptTerms || c.Contact != "" || c.RootsFile != "" || c.ExternalAccount != (ExternalAccount{}) ||
			len(c.Order) > 0 {
			p.Add("directory", "is missing: without it no certificates are obtained; set it, or remove certificates")
		}
		return p
	}
	if u, err := url.Parse(c.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		p.Add("directory", "%q is not the https URL of an ACME directory", c.Directory)
	}
	if !c.AcceptTerms {
		p.Add("acceptTerms", "read the authority's terms of service, then set it to true")
	}
	if a, err := mail.ParseAddress(c.Contact); c.Contact != "" && (err != nil || a.Address != c.Contact) {
		p.Add("contact", "%q is not a mail address", c.Contact)
	}
	if x := c.ExternalAccount; (x.KeyID == "") != (x.HMACKeyFile == "") {
		p.Add("externalAccount", "keyId and hmacKeyFile belong together; give both or neither")
	}
	for i, name := range c.Order {
		switch {
		case !slices.ContainsFunc(known, func(w Wanted) bool { return w.Name == name }):
			p.Add("order", "there is no certificate %q; use %s", name, list(known))
		case slices.Contains(c.Order[:i], name):
			p.Add("order", "%q is listed twice", name)
		}
	}
	return p
}

func list(all []Wanted) string {
	var names []string
	for _, w := range all {
		names = append(names, w.Name)
	}
	return strings.Join(names, ", ")
}

// CheckFiles returns an error for the file of the external account if it cannot be used.
func (c *Config) CheckFiles() error {
	if c.ExternalAccount.HMACKeyFile == "" {
		return nil
	}
	_, err := c.ExternalAccount.key()
	return err
}

// key returns the key of the external account.
func (x *ExternalAccount) key() (string, error) {
	text, err := os.ReadFile(x.HMACKeyFile)
	if err != nil {
		return "", fault.New(fault.Invalid, "InvalidKey", "the key cannot be read (%v)", err).
			At("externalAccount.hmacKeyFile")
	}
	key := strings.TrimRight(strings.TrimSpace(string(text)), "=")
	if _, err := base64.RawURLEncoding.DecodeString(key); err != nil || key == "" {
		return "", fault.New(fault.Invalid, "InvalidKey", "%s has no key in base64url; write the text there that the "+
			"authority gives", x.HMACKeyFile).At("externalAccount.hmacKeyFile")
	}
	return key, nil
}

// Choose returns those of the known certificates that are obtained.
func (c *Config) Choose(known []Wanted) []Wanted {
	return slices.DeleteFunc(slices.Clone(known), func(w Wanted) bool {
		if len(c.Order) == 0 {
			return w.Optional
		}
		return !slices.Contains(c.Order, w.Name)
	})
}

func sorted(names []string) []string { return slices.Sorted(slices.Values(names)) }
