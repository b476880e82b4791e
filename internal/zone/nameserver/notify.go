package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/zone"
)

const (
	gather     = 100 * time.Millisecond // changes within this time are one notification
	notifyWait = 2 * time.Second        // for an acknowledgement
	notifyMost = time.Minute            // between two attempts
)

// notify tells a secondary of every new serial until ctx ends (RFC 1996). It repeats until the secondary acknowledges,
// ever more slowly while nothing changes.
func (s *Server) notify(ctx context.Context, sec *secondary) {
	var told zone.Serial
	behind := s.m.behind.WithLabelValues(sec.name)
	wait := time.Duration(0)
	for ctx.Err() == nil {
		change := s.changed()
		serial := s.zone.Serial()
		if serial == told || serial == 0 {
			select {
			case <-change:
				wait = 0
				pause(ctx, gather)
			case <-ctx.Done():
			}
			continue
		}

		behind.Set(1)
		err := s.tell(ctx, sec, serial)
		if err == nil {
			told = serial
			behind.Set(0)
			if wait > 0 {
				s.log.Info("secondary name server notified", "secondary", sec.name, "serial", serial)
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if wait == 0 {
			s.log.Warn("secondary name server not notified; will repeat until it answers", "secondary", sec.name,
				"address", sec.address, "serial", serial, "error", err)
		}
		wait = min(max(2*wait, time.Second), notifyMost)
		select {
		case <-change: // it may be back since
			pause(ctx, gather)
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// local returns the address that a secondary is notified from: the first one that the server listens on of those from
// which it can be reached, which is where the secondary transfers from. It is nil, for the system's choice, if there is
// none.
func (s *Server) local(sec *secondary) net.Addr {
	to := sec.address.Addr().Unmap()
	for _, ip := range s.listen {
		if !ip.IsUnspecified() && ip.Is4() == to.Is4() && (!ip.IsLoopback() || to.IsLoopback()) {
			return net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))
		}
	}

	return nil
}

// tell sends one NOTIFY and waits for its acknowledgement.
func (s *Server) tell(ctx context.Context, sec *secondary, serial zone.Serial) error {
	ctx, cancel := context.WithTimeout(ctx, notifyWait)
	defer cancel()
	m := new(dns.Msg)
	m.SetNotify(s.zone.Origin())
	soa := s.zone.Look(s.zone.Origin(), dns.TypeSOA)
	m.Answer = soa.Records
	m.SetTsig(sec.key.Name, sec.key.Algorithm, fudge, time.Now().Unix())

	c := &dns.Client{TsigProvider: s.keys, Dialer: &net.Dialer{LocalAddr: s.local(sec)}}
	r, _, err := c.ExchangeContext(ctx, m, sec.address.String())
	if err != nil {
		return err
	}
	if r.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("it answers %s", dns.RcodeToString[r.Rcode])
	}
	if !r.Response || r.Opcode != dns.OpcodeNotify {
		return errors.New("its answer is no acknowledgement")
	}

	return nil
}
