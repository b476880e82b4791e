package sip

import (
	"net/netip"
	"strings"
)

// Equal compares two URIs as RFC 3261 §19.1.4 and RFC 3966 §5 say: escapes and
// order of parameters do not matter; user parts compare exactly, hosts, parameter
// names and values without regard to case; user, ttl, method, maddr and transport
// must be in both or neither, other parameters only agree where both have them;
// header parts must match. URIs of other schemes compare byte for byte.
func (u URI) Equal(o URI) bool {
	if u.raw == o.raw {
		return true // also where a parameter comes twice, which §19.1.1 forbids
	}
	switch {
	case u.Scheme != o.Scheme || u.Scheme == SchemeOther:
		return false
	case u.Scheme == SchemeTel:
		a, okA := u.TelephoneNumber()
		b, okB := o.TelephoneNumber()
		return okA && okB && a == b && sameParams(u.Params, o.Params, true) && sameParams(o.Params, u.Params, true)
	}
	return u.HasUser == o.HasUser && Unescape(u.User) == Unescape(o.User) &&
		Unescape(u.Password) == Unescape(o.Password) && sameHost(u.Host, o.Host) && u.Port == o.Port &&
		sameParams(u.Params, o.Params, false) && sameParams(o.Params, u.Params, false) &&
		sameHeaders(u.Headers, o.Headers) && sameHeaders(o.Headers, u.Headers)
}

func sameHost(a, b string) bool {
	if equalFold(a, b) {
		return true
	}
	if a == "" || b == "" || a[0] != '[' || b[0] != '[' {
		return false
	}
	x, errA := netip.ParseAddr(strings.Trim(a, "[]"))
	y, errB := netip.ParseAddr(strings.Trim(b, "[]"))
	return errA == nil && errB == nil && x == y
}

// sameParams tells whether each parameter of a agrees with b. With strict, each
// must be in b.
func sameParams(a, b Params, strict bool) bool {
	for n, v := range a.All() {
		w, ok := b.Get(n)
		switch {
		case ok && !equalFold(Unescape(v), Unescape(w)):
			return false
		case !ok && (strict || decisive(n)):
			return false
		}
	}
	return true
}

func decisive(param string) bool {
	switch strings.ToLower(param) {
	case "user", "ttl", "method", "maddr", "transport":
		return true
	}
	return false
}

func sameHeaders(a, b string) bool {
	for one := range strings.SplitSeq(a, "&") {
		if one == "" {
			continue
		}
		n, v, _ := strings.Cut(one, "=")
		found := false
		for other := range strings.SplitSeq(b, "&") {
			n2, v2, _ := strings.Cut(other, "=")
			if equalFold(Unescape(n), Unescape(n2)) && Unescape(v) == Unescape(v2) {
				found = true
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}
