package config

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// freePorts replaces the address of every listener with a free loopback port. Groups that share an address also share
// the new one.
func (c *Config) freePorts() error {
	for _, x := range []*Listener{&c.Metrics, &c.Manage.Listener, &c.Provisioning.Listener, &c.Front.Listener} {
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
			for taken[old] == "" {
				addr, err := freeAddress(old)
				if err != nil {
					return fmt.Errorf("calls.groups[%d]: find a free port for %s: %w", i, old, err)
				}
				if !slices.Contains(slices.Collect(maps.Values(taken)), addr) {
					taken[old] = addr
				}
			}
			*a.bind = taken[old]
			// An advertised port that equals the bound one changes with it; behind NAT it may differ, and stays.
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
// The port is below the range that systems use for outgoing connections (32768 and up on Linux), because a port of that
// range may be in use by the time a listener opens it. Another process may take the port before it is used: then tandem
// serve starts again with other ports.
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
		_ = l.Close() // it only reserved the port
		if err != nil {
			last = err
			continue
		}
		_ = u.Close()
		return addr, nil
	}
	return "", last
}
