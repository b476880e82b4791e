package entra

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// Credential is what an app proves itself with: a certificate with its key, or a secret.
type Credential struct {
	Certificate *x509.Certificate
	Key         *rsa.PrivateKey
	Secret      secret.Text
}

// ReadCredential reads a credential from PEM files or from a file with a secret; unused names are empty. The target of
// an error is certificateFile, keyFile or secretFile.
func ReadCredential(certificateFile, keyFile, secretFile string) (c Credential, err error) {
	invalid := func(target, format string, args ...any) error {
		return fault.New(fault.Invalid, "InvalidCredential", format, args...).At(target)
	}
	switch {
	case certificateFile != "":
		pair, err := tls.LoadX509KeyPair(certificateFile, keyFile)
		if err != nil {
			return c, invalid("certificateFile", "%v", err)
		}
		key, ok := pair.PrivateKey.(*rsa.PrivateKey)
		if !ok {
			return c, invalid("keyFile", "%s has no RSA key, and the identity platform accepts no other", keyFile)
		}
		c.Certificate, c.Key = pair.Leaf, key
	case secretFile != "":
		text, err := os.ReadFile(secretFile)
		if err != nil {
			return c, invalid("secretFile", "%v", err)
		}
		value := strings.TrimSpace(string(text))
		if value == "" {
			return c, invalid("secretFile", "%s is empty", secretFile)
		}
		c.Secret = secret.New(value)
	}
	return c, nil
}
