// Package domain defines the types that all packages share: E.164 numbers, communications services and their traits,
// accounts, numbers, requests for information, civic addresses, and the change by which other packages learn of updates
// to them.
//
// It imports the standard library only. It has no storage, no wire format except the JSON names of the published
// Provisioning API, and no rule that needs a lookup: such rules are in provisioning/directory.
package domain

import (
	"fmt"
	"log/slog"
	"strconv"
)

// MaxDigits is the maximum number of digits in an E.164 number (ITU-T E.164 §6.1). The contract's limit of 16
// characters is this plus the "+".
const MaxDigits = 15

// E164 is an international public telephone number in its only stored form: "+", then 2 to 15 digits, the first not 0.
// The zero value is no number.
type E164 string

// ParseE164 checks s and returns it as a number. It accepts only the contract's form (^\+[1-9]\d+$, at most 16
// characters), without spaces or separators.
func ParseE164(s string) (E164, error) {
	if len(s) < 3 || len(s) > MaxDigits+1 || s[0] != '+' || s[1] < '1' || s[1] > '9' {
		return "", fmt.Errorf("not an E.164 number: want \"+\", then 2 to %d digits, the first not 0", MaxDigits)
	}
	for i := 2; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return "", fmt.Errorf("not an E.164 number: character %d is not a digit", i+1)
		}
	}
	return E164(s), nil
}

// Key returns the number's digits as an integer, which serves as a compact key in indexes. It is 0 for the zero value.
// Two numbers have the same key only if they are equal, because the first digit is never 0.
func (n E164) Key() uint64 {
	var k uint64
	for i := 1; i < len(n); i++ {
		k = k*10 + uint64(n[i]-'0')
	}
	return k
}

// E164FromKey is the inverse of Key. It returns the zero value for a key that no number has.
func E164FromKey(k uint64) E164 {
	if k < 10 || k > 999_999_999_999_999 {
		return ""
	}
	return E164("+" + strconv.FormatUint(k, 10))
}

// Redacted returns the number with its last four digits hidden: enough to follow a call in a log, not enough to call
// it.
func (n E164) Redacted() string {
	if len(n) <= 6 {
		return "+…"
	}
	return string(n[:len(n)-4]) + "…"
}

// LogValue makes slog print the redacted form: phone numbers are personal data.
func (n E164) LogValue() slog.Value { return slog.StringValue(n.Redacted()) }
