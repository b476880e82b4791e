package domain

import "regexp"

var guid = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// IsGUID reports whether s is a GUID (RFC 9562 §4) in its usual form, 36 characters in any case.
func IsGUID(s string) bool { return guid.MatchString(s) }
