package nameserver

import (
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/zone"
)

// envelope is how many bytes of records one message of a transfer has. The length of records is counted without
// compression, so that the message has less.
const envelope = 32 << 10

// transfer answers a request for the zone, or for what changed in it.
func (x *exchange) transfer() {
	q := x.q.Question[0]
	kind := dns.TypeToString[q.Qtype]
	if dns.CanonicalName(q.Name) != x.s.zone.Origin() || q.Qclass != dns.ClassINET {
		x.r.Rcode = dns.RcodeRefused
		return
	}
	sec := x.secondary()
	if sec == nil {
		x.r.Rcode = dns.RcodeRefused
		x.s.m.transfers.WithLabelValues(kind, "refused").Inc()
		x.s.warn("zone transfer refused: it needs the key and an address of a secondary", "source", x.source, "key",
			x.key,
			"type", kind)
		return
	}

	var records []dns.RR
	switch {
	case q.Qtype == dns.TypeAXFR && x.udp:
		x.r.Rcode = dns.RcodeFormatError // RFC 5936 §4.2
		return
	case q.Qtype == dns.TypeAXFR:
		records = x.s.zone.All()
	default:
		soa, ok := first(x.q.Ns)
		if !ok || dns.CanonicalName(soa.Hdr.Name) != x.s.zone.Origin() {
			x.r.Rcode = dns.RcodeFormatError
			return
		}
		records = x.s.zone.Since(zone.Serial(soa.Serial))
		if x.udp && len(records) > 1 {
			records = records[:1] // the client comes back with TCP (RFC 1995 §2)
		}
	}
	if records == nil {
		x.r.Rcode = dns.RcodeServerFailure
		return
	}

	x.stream(sec, kind, records)
}

func first(section []dns.RR) (*dns.SOA, bool) {
	if len(section) != 1 {
		return nil, false
	}
	soa, ok := section[0].(*dns.SOA)

	return soa, ok
}

// secondary returns the secondary that the request comes from, nil if there is none.
func (x *exchange) secondary() *secondary {
	for i := range x.s.peers {
		if s := &x.s.peers[i]; x.key == s.key.Name && s.from(x.source) {
			return s
		}
	}

	return nil
}

// stream sends the messages of a transfer, each signed; the signatures form a chain (RFC 8945 §5.3.1).
func (x *exchange) stream(sec *secondary, kind string, records []dns.RR) {
	x.done = true
	x.code = dns.RcodeSuccess
	begun, messages, total := time.Now(), 0, len(records)
	mac := x.q.IsTsig().MAC
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && (n == 0 || size < envelope) {
			size += dns.Len(records[n])
			n++
		}
		r := new(dns.Msg)
		r.SetReply(x.q)
		r.Authoritative, r.Compress = true, true
		r.Answer, records = records[:n], records[n:]
		if x.opt != nil && messages == 0 {
			r.Extra = append(r.Extra, x.opt)
		}
		t := *x.tsig
		t.TimeSigned = uint64(time.Now().Unix())
		r.Extra = append(r.Extra, &t)

		data, next, err := dns.TsigGenerateWithProvider(r, x.s.keys, mac, messages > 0)
		if err == nil {
			_, err = x.w.Write(data)
		}
		if err != nil {
			x.s.m.transfers.WithLabelValues(kind, "failed").Inc()
			x.s.log.Warn("zone transfer failed", "secondary", sec.name, "type", kind, "error", err)
			_ = x.w.Close()
			return
		}
		mac = next
		messages++
	}
	x.s.m.transfers.WithLabelValues(kind, "sent").Inc()
	x.s.log.Debug("zone transferred", "secondary", sec.name, "type", kind, "records", total, "messages", messages,
		"took", time.Since(begun))
}
