package nameserver

import (
	"fmt"
	"net/netip"
	"testing"
)

// A secondary is notified from an address at which it reaches the server: one of its family, and none of loopback
// unless it is on this machine.
func TestLocal(t *testing.T) {
	var s Server
	for _, a := range []string{"127.0.0.1", "::", "192.0.2.53", "::1", "2001:db8::53"} {
		s.listen = append(s.listen, netip.MustParseAddr(a))
	}
	for to, want := range map[string]string{
		"198.51.100.53:53":      "192.0.2.53:0",
		"127.0.0.2:53":          "127.0.0.1:0",
		"[2001:db8:1::53]:53":   "[2001:db8::53]:0",
		"[::1]:53":              "[::1]:0",
		"[::ffff:192.0.2.1]:53": "192.0.2.53:0",
	} {
		if got := fmt.Sprint(s.local(&secondary{address: netip.MustParseAddrPort(to)})); got != want {
			t.Errorf("%s is notified from %s, want %s", to, got, want)
		}
	}
	s.listen = s.listen[1:2]
	if got := s.local(&secondary{address: netip.MustParseAddrPort("192.0.2.1:53")}); got != nil {
		t.Errorf("notified from %v, want the system's choice", got)
	}
}
