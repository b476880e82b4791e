package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/tandemgw/tandem/internal/domain/strictjson"
)

// Bounds of a key set. Entra's has about ten keys.
const (
	maxKeySetBytes = 512 << 10
	maxKeys        = 200
	minRSABits     = 2048
	maxRSABits     = 8192 // verifying signatures with larger keys could be used to overload the node
)

// jwk is a JSON Web Key (RFC 7517), with the members that signatures need.
type jwk struct {
	Kty string `json:"kty"`
	Kid string `json:"kid,omitempty"`
	Use string `json:"use,omitempty"`
	Alg string `json:"alg,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	Crv string `json:"crv,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	// Issuer is Entra's extension that names the owner of a key in a shared set. "{tenantid}" stands for any tenant.
	Issuer string `json:"issuer,omitempty"`
}

// publicKey is a key that may verify signatures.
type publicKey struct {
	id     string
	alg    string // the only algorithm it may be used with; empty if the set does not say
	issuer string
	key    crypto.PublicKey
}

// fits reports whether the key can verify signatures of algorithm alg (RFC 7518 §3.1). It ties the algorithm to the
// key's type, so that a token cannot choose how its key is interpreted.
func (k *publicKey) fits(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return alg[:2] == "RS" || alg[:2] == "PS"
	case *ecdsa.PublicKey:
		return alg == curveAlgorithm[key.Curve]
	}
	return false
}

// curveAlgorithm maps the curves that are supported to their algorithm.
var curveAlgorithm = map[elliptic.Curve]string{elliptic.P256(): "ES256", elliptic.P384(): "ES384",
	elliptic.P521(): "ES512"}

// parseKeySet reads a JSON Web Key Set (RFC 7517 §5). Keys of unknown types or uses are ignored, as the RFC requires,
// and so are malformed ones. A set without a usable key is an error, so that it does not replace a good one.
func parseKeySet(raw []byte) ([]publicKey, error) {
	if len(raw) > maxKeySetBytes {
		return nil, fmt.Errorf("key set has %d bytes, more than the maximum of %d", len(raw), maxKeySetBytes)
	}
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	var r strictjson.Reader
	list := r.Object(doc, "").Take("keys", true)
	if list != nil {
		r.Is(list, strictjson.KindArray, "keys")
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	if len(list.Items) > maxKeys {
		return nil, fmt.Errorf("key set has %d keys, more than the maximum of %d", len(list.Items), maxKeys)
	}
	var keys []publicKey
	var last error
	for _, r := range list.Items {
		k, err := parseKey(r)
		if err != nil {
			last = err
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		if last == nil {
			last = errors.New("it is empty")
		}
		return nil, fmt.Errorf("key set has no usable key: %w", last)
	}
	return keys, nil
}

func parseKey(n *strictjson.Node) (publicKey, error) {
	var r strictjson.Reader
	o := r.Object(n, "")
	str := func(name string) string { return o.Str(name, false) }
	j := jwk{Kty: str("kty"), Kid: str("kid"), Use: str("use"), Alg: str("alg"), N: str("n"), E: str("e"),
		Crv: str("crv"), X: str("x"), Y: str("y"), Issuer: str("issuer")}
	if err := r.Err(); err != nil {
		return publicKey{}, err
	}
	k := publicKey{id: j.Kid, alg: j.Alg, issuer: j.Issuer}
	if j.Use != "" && j.Use != "sig" {
		return k, fmt.Errorf("key %q is for %q, not for signatures", j.Kid, j.Use)
	}
	switch j.Kty {
	case "RSA":
		n, e := number(j.N), number(j.E)
		if n == nil || e == nil {
			return k, fmt.Errorf("RSA key %q is malformed", j.Kid)
		}
		if n.BitLen() < minRSABits || n.BitLen() > maxRSABits {
			return k, fmt.Errorf("RSA key %q has %d bits; %d to %d are accepted", j.Kid, n.BitLen(),
				minRSABits, maxRSABits)
		}
		if !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 || e.Int64()%2 == 0 {
			return k, fmt.Errorf("RSA key %q has a bad exponent", j.Kid)
		}
		k.key = &rsa.PublicKey{N: n, E: int(e.Int64())}
	case "EC":
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(),
			"P-521": elliptic.P521()}[j.Crv]
		if curve == nil {
			return k, fmt.Errorf("EC key %q is on curve %q, which is not supported", j.Kid, j.Crv)
		}
		point := []byte{4}
		for _, s := range []string{j.X, j.Y} {
			b, err := base64.RawURLEncoding.DecodeString(s)
			if err != nil || len(b) != (curve.Params().BitSize+7)/8 { // the curve's full length (RFC 7518 §6.2.1.2)
				return k, fmt.Errorf("EC key %q is malformed", j.Kid)
			}
			point = append(point, b...)
		}
		// ParseUncompressedPublicKey checks that the point is on the curve.
		key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			return k, fmt.Errorf("EC key %q: %w", j.Kid, err)
		}
		k.key = key
	default:
		return k, fmt.Errorf("key %q is of type %q, which is not supported", j.Kid, j.Kty)
	}
	return k, nil
}

// number reads a number (RFC 7518 §2). It returns nil if it is malformed.
func number(s string) *big.Int {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) == 0 || len(b) > maxRSABits/8+1 {
		return nil
	}
	return new(big.Int).SetBytes(b)
}

// encodeKey writes a public key as a JSON Web Key for signatures.
func encodeKey(id, alg string, key crypto.PublicKey) ([]byte, error) {
	j := jwk{Kid: id, Alg: alg, Use: "sig"}
	enc := base64.RawURLEncoding.EncodeToString
	switch key := key.(type) {
	case *rsa.PublicKey:
		j.Kty, j.N, j.E = "RSA", enc(key.N.Bytes()), enc(big.NewInt(int64(key.E)).Bytes())
	case *ecdsa.PublicKey:
		b, err := key.Bytes()
		if err != nil {
			return nil, err
		}
		half := (len(b) - 1) / 2
		j.Kty, j.Crv, j.X, j.Y = "EC", key.Curve.Params().Name, enc(b[1:1+half]), enc(b[1+half:])
	default:
		return nil, fmt.Errorf("keys of type %T cannot be published", key)
	}
	return json.Marshal(j)
}
