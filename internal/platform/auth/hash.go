package auth

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"
)

// Client secrets are 256 random bits that are generated here, so a dictionary is of no use and the length of the secret
// protects a stolen hash. A memory-hard function would only add a way to keep the token endpoint busy.
// PBKDF2-HMAC-SHA-256 of the standard library with a salt and a modest iteration count is enough and is approved where
// FIPS 140 is required. The count is part of the hash, so that it can be raised.
const (
	secretBytes = 32
	hashCount   = 10_000
	hashScheme  = "pbkdf2-sha256"
)

func newSecret() string {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b)
}

func hashSecret(s string) (string, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt)
	return hashWith(s, salt, hashCount)
}

func hashWith(s string, salt []byte, count int) (string, error) {
	h, err := pbkdf2.Key(sha256.New, s, salt, count, sha256.Size)
	if err != nil {
		return "", err
	}
	enc := base64.RawStdEncoding.EncodeToString
	return hashScheme + "$" + strconv.Itoa(count) + "$" + enc(salt) + "$" + enc(h), nil
}

// decoy is a well-formed hash that no secret matches. Checking against it makes an unknown client take as long as a
// known one.
var decoy = hashScheme + "$" + strconv.Itoa(hashCount) + "$AAAAAAAAAAAAAAAAAAAAAA$" + strings.Repeat("A", 43)

// checkSecret reports whether s matches the hash, in time that does not depend on s. A malformed hash matches nothing.
func checkSecret(hash, s string) bool {
	part := strings.Split(hash, "$")
	if len(part) != 4 || part[0] != hashScheme {
		return false
	}
	count, err1 := strconv.Atoi(part[1])
	salt, err2 := base64.RawStdEncoding.DecodeString(part[2])
	if err1 != nil || err2 != nil || count < 1 || count > 10_000_000 {
		return false
	}
	got, err := hashWith(s, salt, count)
	return err == nil && subtle.ConstantTimeCompare([]byte(got), []byte(hash)) == 1
}
