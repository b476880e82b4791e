package domain

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParsePrefix reads an entry of an address list: a CIDR prefix or a single address. An IPv4-mapped prefix
// (::ffff:192.0.2.0/120) is returned as an IPv4 prefix, because the sources it is compared with are unmapped too.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New("neither an address nor an address range such as \"192.0.2.0/24\"")
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, errors.New("a range of IPv4-mapped addresses needs a length of 96 or more; " +
				"write it as an IPv4 range")
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("has bits set beyond its length; write %s, or the address with /%d",
			p.Masked(), p.Addr().BitLen())
	}
	return p, nil
}

// CheckBrackets returns an error for an IPv6 address followed by a port without brackets, because "2001:db8::1:5060"
// can also be read as an address.
func CheckBrackets(s string) error {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return nil
	}
	a, err := netip.ParseAddr(s[:i])
	if err != nil || !a.Is6() {
		return nil
	}
	if _, err := strconv.ParseUint(s[i+1:], 10, 16); err != nil {
		return nil
	}
	return fmt.Errorf("an IPv6 address before a port needs brackets; write \"[%s]:%s\"", a, s[i+1:])
}
