package nameserver

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/netip"
	"os"
	"regexp"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config is the part of the configuration that a Server needs.
type Config struct {
	// Listen are the addresses on which processes with the role "dns" answer, each "ip:port", over UDP and TCP. Name
	// servers use port 53. Default none: such a process answers nothing.
	Listen []string `yaml:"listen"`
	// Secondaries are the name servers of others that transfer the zone from this one. Default none.
	Secondaries []Secondary `yaml:"secondaries"`
	// AnswersPerSecond is how many equal answers a second go to one network (an IPv4 /24, an IPv6 /56) over UDP. Above
	// it every second one is not sent, and the others ask the client to use TCP. Number, 0 to 100000; default 200; 0
	// for no limit.
	AnswersPerSecond int `yaml:"answersPerSecond"`
}

// Secondary is a name server that transfers the zone.
type Secondary struct {
	// Name is for logs and metrics: 1 to 32 letters, digits, "-" or "_". Required.
	Name string `yaml:"name"`
	// Address is where the secondary is notified of changes, "ip:port". Required.
	Address string `yaml:"address"`
	// Sources are further address ranges (CIDR) from which its transfers come. Default none: they come from address.
	Sources []string `yaml:"sources"`
	// Key is the shared key that signs its transfers (TSIG, RFC 8945).
	Key Key `yaml:"key"`
}

// Key is a shared key.
type Key struct {
	// Name is the key's name, which both sides must write alike: a domain name. Required.
	Name string `yaml:"name"`
	// Algorithm is "hmac-sha256", "hmac-sha384" or "hmac-sha512". Default "hmac-sha256".
	Algorithm string `yaml:"algorithm"`
	// SecretFile is the file with the secret in base64, at least 16 bytes, as tsig-keygen and keymgr print it.
	// Required.
	SecretFile string `yaml:"secretFile"`
}

// Default returns the configuration used where the file says nothing.
func Default() Config { return Config{AnswersPerSecond: 200} }

var validName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// Validate returns every mistake, and sets the defaults of list items. It reads no files.
func (c *Config) Validate() []error {
	var errs fault.Problems
	for i, a := range c.Listen {
		if _, err := netip.ParseAddrPort(a); err != nil {
			errs.Add(fmt.Sprintf("listen[%d]", i), "%q is not an address; use ip:port", a)
		}
	}
	if c.AnswersPerSecond < 0 || c.AnswersPerSecond > 100_000 {
		errs.Add("answersPerSecond", "%d is out of range; use 0 to 100000", c.AnswersPerSecond)
	}
	names := map[string]bool{}
	for i := range c.Secondaries {
		s, at := &c.Secondaries[i], fmt.Sprintf("secondaries[%d].", i)
		if !validName.MatchString(s.Name) || names[s.Name] {
			errs.Add(at+"name", "%q must be 1 to 32 letters, digits, \"-\" or \"_\", and unique", s.Name)
		}
		names[s.Name] = true
		if a, err := netip.ParseAddrPort(s.Address); err != nil || a.Port() == 0 {
			errs.Add(at+"address", "%q is not an address; use ip:port", s.Address)
		}
		for j, p := range s.Sources {
			if _, err := netip.ParsePrefix(p); err != nil {
				errs.Add(fmt.Sprintf("%ssources[%d]", at, j),
					"%q is not an address range; use CIDR, such as 192.0.2.0/24", p)
			}
		}
		if s.Key.Algorithm == "" {
			s.Key.Algorithm = "hmac-sha256"
		}
		if (&key{algorithm: dns.Fqdn(s.Key.Algorithm)}).hash() == nil {
			errs.Add(at+"key.algorithm", "%q is not supported; use hmac-sha256, hmac-sha384 or hmac-sha512",
				s.Key.Algorithm)
		}
		if _, ok := dns.IsDomainName(s.Key.Name); !ok || s.Key.Name == "" {
			errs.Add(at+"key.name", "%q is not a domain name", s.Key.Name)
		}
		if s.Key.SecretFile == "" {
			errs.Add(at+"key.secretFile", "is required: a transfer without a key is refused")
		}
	}

	return errs
}

// CheckFiles returns the mistakes of the files that a valid configuration names.
func (c *Config) CheckFiles() []error {
	_, errs := c.secondaries()
	return errs
}

// secondary is a Secondary, read.
type secondary struct {
	name    string
	address netip.AddrPort
	sources []netip.Prefix
	key     *key
}

// key is a Key, read. Its names are canonical.
type key struct {
	name, algorithm string
	secret          []byte
}

// secondaries reads the secondaries of a valid configuration, with their keys.
func (c *Config) secondaries() ([]secondary, []error) {
	var errs fault.Problems
	var list []secondary
	for i, s := range c.Secondaries {
		x := secondary{name: s.Name, address: netip.MustParseAddrPort(s.Address),
			key: &key{name: dns.CanonicalName(s.Key.Name), algorithm: dns.CanonicalName(s.Key.Algorithm)}}
		for _, p := range s.Sources {
			x.sources = append(x.sources, netip.MustParsePrefix(p))
		}
		at := fmt.Sprintf("secondaries[%d].key", i)
		text, err := os.ReadFile(s.Key.SecretFile)
		if err == nil {
			x.key.secret, err = base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
			if err != nil {
				err = fmt.Errorf("%s is not base64", s.Key.SecretFile) // the error would quote the secret
			}
		}
		if err == nil && len(x.key.secret) < 16 {
			err = fmt.Errorf("%s has a secret of %d bytes; use at least 16", s.Key.SecretFile, len(x.key.secret))
		}
		if err != nil {
			errs.Add(at+".secretFile", "%v", err)
		}
		for _, o := range list {
			if o.key.name == x.key.name && (o.key.algorithm != x.key.algorithm || !hmac.Equal(o.key.secret,
				x.key.secret)) {
				errs.Add(at+".name", "another secondary has a different key of the name %s", s.Key.Name)
			}
		}
		list = append(list, x)
	}

	return list, errs
}

// from reports whether a is an address of the secondary.
func (s *secondary) from(a netip.Addr) bool {
	if s.address.Addr() == a {
		return true
	}
	for _, p := range s.sources {
		if p.Contains(a) {
			return true
		}
	}

	return false
}

// hash returns the algorithm of a key, nil if it is not supported.
func (k *key) hash() func() hash.Hash {
	switch k.algorithm {
	case dns.HmacSHA256:
		return sha256.New
	case dns.HmacSHA384:
		return sha512.New384
	case dns.HmacSHA512:
		return sha512.New
	}

	return nil
}

// keys are the keys of secondaries by name. It implements dns.TsigProvider.
type keys map[string]*key

// Generate implements dns.TsigProvider.
func (ks keys) Generate(msg []byte, t *dns.TSIG) ([]byte, error) {
	k := ks[dns.CanonicalName(t.Hdr.Name)]
	if k == nil || k.algorithm != dns.CanonicalName(t.Algorithm) {
		return nil, dns.ErrSecret
	}
	h := hmac.New(k.hash(), k.secret)
	h.Write(msg)

	return h.Sum(nil), nil
}

// Verify implements dns.TsigProvider. Shortened signatures are refused.
func (ks keys) Verify(msg []byte, t *dns.TSIG) error {
	want, err := ks.Generate(msg, t)
	if err != nil {
		return err
	}
	if got, err := hex.DecodeString(t.MAC); err != nil || !hmac.Equal(want, got) {
		return dns.ErrSig
	}

	return nil
}
