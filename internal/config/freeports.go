package config

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
)

// freePorts replaces every listener's address by a free loopback port. Groups that shared an address share the new one.
func (c *Config) freePorts() error {
	for _, x := range []*Listener{&c.Metrics, &c.Manage.Listener, &c.Provisioning.Listener} {
		if x.Listen != Off {
			x.Listen = "127.0.0.1:0"
		}
	}
	taken := map[string]string{}
	for i := range c.Calls.Edge.Groups {
		g := &c.Calls.Edge.Groups[i]
		for _, a := range []struct{ bind, advertised *string }{
			{&g.Bind.UDP, &g.Advertised.UDP}, {&g.Bind.TCP, &g.Advertised.TCP}, {&g.Bind.TLS, &g.Advertised.TLS},
		} {
			old := *a.bind
			if old == "" {
				continue
			}
			if taken[old] == "" {
				addr, err := freeAddress(old)
				if err != nil {
					return fmt.Errorf("calls.groups[%d]: find a free port for %s: %w", i, old, err)
				}
				taken[old] = addr
			}
			*a.bind = taken[old]
			// An advertised port is the one that is bound; behind NAT it may differ, and then stays.
			host, port, err := net.SplitHostPort(*a.advertised)
			_, oldPort, _ := net.SplitHostPort(old)
			if err == nil && port == oldPort {
				_, newPort, _ := net.SplitHostPort(*a.bind)
				*a.advertised = net.JoinHostPort(host, newPort)
			}
		}
	}
	return nil
}

// freeAddress finds a port that is free for both TCP and UDP on old's address, or on 127.0.0.1 if that is not loopback.
// It lies below the range from which systems take ports for outgoing connections (32768 and up on Linux): one of that range may be somebody's
// connection by the time it is listened on. Somebody else may take it all the same before it is used; then the start fails and says so.
func freeAddress(old string) (string, error) {
	host := "127.0.0.1"
	if a, err := netip.ParseAddrPort(old); err == nil && a.Addr().IsLoopback() {
		host = a.Addr().String()
	}
	var last error
	for range 200 {
		addr := net.JoinHostPort(host, strconv.Itoa(10_000+rand.IntN(22_000)))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			last = err
			continue
		}
		u, err := net.ListenPacket("udp", addr)
		_ = l.Close() // it was only held to keep the port
		if err != nil {
			last = err
			continue
		}
		_ = u.Close()
		return addr, nil
	}
	return "", last
}
