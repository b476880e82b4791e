package nameserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/tsig"
)

const (
	// udpSize is the largest answer over UDP: one that no path splits (DNS flag day 2020).
	udpSize = 1232
	// leastUDP is the size that every client takes (RFC 1035 §4.2.1, RFC 6891 §6.2.3).
	leastUDP = 512
	// fudge is how many seconds the clocks of a secondary and of this server may differ (RFC 8945 §10).
	fudge = 300
)

// Server answers for a zone.
type Server struct {
	zone   *zone.Zone
	peers  []secondary
	keys   tsig.Keys
	listen []netip.Addr // where Serve listens
	log    *slog.Logger
	m      *metrics
	limit  *limiter

	mu     sync.Mutex
	change chan struct{} // closed when the zone has changed, and replaced
	warned time.Time     // the second of the last warning
	quiet  int           // warnings not logged since
}

// New returns a server for z. The configuration is valid; the error is that a key cannot be read.
func New(z *zone.Zone, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	peers, keys, errs := cfg.secondaries()
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}

	return &Server{zone: z, peers: peers, keys: keys, log: log, m: newMetrics(reg),
		limit: newLimiter(cfg.AnswersPerSecond), change: make(chan struct{})}, nil
}

// Serve answers on sockets, and notifies the secondaries of changes, until ctx ends; then it closes the sockets and
// returns nil when all answers are written. It returns the error of a socket that fails.
func (s *Server) Serve(ctx context.Context, packets []net.PacketConn, streams []net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	s.listen = nil
	var servers []*dns.Server
	for _, p := range packets {
		if a, ok := p.LocalAddr().(*net.UDPAddr); ok {
			s.listen = append(s.listen, a.AddrPort().Addr().Unmap())
		}
		servers = append(servers, &dns.Server{PacketConn: p, UDPSize: udpSize})
	}
	for _, l := range streams {
		servers = append(servers, &dns.Server{Listener: newConns(l, s), MaxTCPQueries: -1,
			ReadTimeout: readTimeout, IdleTimeout: func() time.Duration { return idleTimeout }})
	}
	var running sync.WaitGroup
	for _, d := range servers {
		d.Handler, d.TsigProvider, d.MsgAcceptFunc, d.DecorateReader = s, s.keys, accept, hideOptions
		up := make(chan struct{})
		d.NotifyStartedFunc = sync.OnceFunc(func() { close(up) })
		running.Go(func() {
			err := d.ActivateAndServe()
			if err == nil {
				err = errors.New("nameserver: a socket was closed")
			}
			cancel(err)
		})
		select { // Shutdown of a server that has not started does nothing
		case <-up:
		case <-ctx.Done():
		}
	}
	for i := range s.peers {
		running.Go(func() { s.notify(ctx, &s.peers[i]) })
	}

	<-ctx.Done()
	err := context.Cause(ctx)
	for _, d := range servers {
		_ = d.Shutdown()
	}
	for _, p := range packets {
		_ = p.Close()
	}
	for _, l := range streams {
		_ = l.Close()
	}
	running.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}

	return err
}

// Changed notifies the secondaries that the zone has a new version.
func (s *Server) Changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.change)
	s.change = make(chan struct{})
}

// changed returns a channel that is closed by the next call of Changed.
func (s *Server) changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.change
}

// warn logs what somebody on the network causes, at most once a second.
func (s *Server) warn(msg string, args ...any) {
	s.mu.Lock()
	now, more := time.Now().Truncate(time.Second), s.quiet
	late := now.After(s.warned)
	if late {
		s.warned, s.quiet = now, 0
	} else {
		s.quiet++
	}
	s.mu.Unlock()
	if late {
		s.log.Warn(msg, append(args, "more_since_last", more)...)
	}
}

// ServeDNS implements dns.Handler. The library has answered messages that cannot be read (FORMERR).
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	x := &exchange{s: s, w: w, q: q, r: new(dns.Msg), size: dns.MaxMsgSize}
	x.source = address(w.RemoteAddr())
	if _, x.udp = w.RemoteAddr().(*net.UDPAddr); x.udp {
		x.size = leastUDP
	}
	x.r.SetReply(q)
	x.r.Compress = true

	if x.edns() && x.signed() {
		x.answer()
	}
	if !x.done {
		x.send()
	}
	code := dns.RcodeToString[x.code]
	if x.code == dns.RcodeBadVers {
		code = "BADVERS" // the library has BADSIG, an error in TSIG records of the same number
	}
	s.m.queries.WithLabelValues(code).Inc()
}

func address(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}

	return netip.Addr{}
}

// exchange is one request and its response.
type exchange struct {
	s      *Server
	w      dns.ResponseWriter
	q, r   *dns.Msg
	source netip.Addr
	udp    bool
	size   int       // of the largest response
	opt    *dns.OPT  // of the response; nil if the request has none
	tsig   *dns.TSIG // of the response; nil if the request has none
	key    string    // name of the key that signed the request
	name   string    // what the limit of equal answers compares: a name that exists, in lower case, and the type
	kind   uint16
	code   int  // of the response, for the metrics
	done   bool // a transfer has been sent
}

// edns reads the OPT record of the request, and reports whether it is valid (RFC 6891 §6.1).
func (x *exchange) edns() bool {
	var opts []*dns.OPT
	for i, section := range [][]dns.RR{x.q.Answer, x.q.Ns, x.q.Extra} {
		for _, rr := range section {
			if o, ok := rr.(*dns.OPT); ok {
				if opts = append(opts, o); i < 2 {
					opts = append(opts, o) // misplaced
				}
			}
		}
	}
	if len(opts) == 0 {
		return true
	}

	x.opt = &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	x.opt.SetUDPSize(udpSize)
	x.opt.SetDo(opts[0].Do()) // RFC 3225 §3
	if x.udp {
		x.size = min(max(int(opts[0].UDPSize()), leastUDP), udpSize)
	}
	switch {
	case len(opts) > 1 || opts[0].Hdr.Name != ".":
		x.r.Rcode = dns.RcodeFormatError
		return false
	case opts[0].Version() != 0:
		x.r.Rcode = dns.RcodeBadVers
		return false
	}

	return true
}

// signed checks the signature of the request, and reports whether it is valid or absent (RFC 8945 §5.2).
func (x *exchange) signed() bool {
	n := 0
	for _, section := range [][]dns.RR{x.q.Answer, x.q.Ns, x.q.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeTSIG {
				n++
			}
		}
	}
	t := x.q.IsTsig() // the last record
	switch {
	case n == 0:
		return true
	case n > 1 || t == nil || t.Algorithm == "" || t.Hdr.Class != dns.ClassANY || t.Hdr.Ttl != 0 ||
		errors.Is(x.w.TsigStatus(), tsig.ErrLength):
		x.r.Rcode = dns.RcodeFormatError
		return false
	}

	x.tsig = &dns.TSIG{Hdr: dns.RR_Header{Name: t.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm: t.Algorithm, Fudge: fudge, TimeSigned: uint64(time.Now().Unix()), OrigId: x.q.Id}
	err := x.w.TsigStatus()
	switch {
	case err == nil:
		x.key = dns.CanonicalName(t.Hdr.Name)
		return true
	case errors.Is(err, dns.ErrSecret) || errors.Is(err, dns.ErrKeyAlg):
		x.tsig.Error = dns.RcodeBadKey
	case errors.Is(err, tsig.ErrShortened):
		x.tsig.Error = dns.RcodeBadTrunc
	case errors.Is(err, dns.ErrTime):
		x.tsig.Error = dns.RcodeBadTime
		x.tsig.OtherLen = 6
		x.tsig.OtherData = fmt.Sprintf("%012x", x.tsig.TimeSigned) // now
		x.tsig.TimeSigned = t.TimeSigned                           // so that its signer can verify the response
	default:
		x.tsig.Error = dns.RcodeBadSig
	}
	x.r.Rcode = dns.RcodeNotAuth
	x.s.m.signatures.Inc()
	x.s.warn("DNS request with an invalid signature refused", "source", x.source, "key", t.Hdr.Name, "error", err)

	return false
}

// answer fills the response.
func (x *exchange) answer() {
	switch {
	case x.q.Opcode != dns.OpcodeQuery && x.q.Opcode != dns.OpcodeNotify:
		x.r.Rcode = dns.RcodeNotImplemented
		return
	case len(x.q.Question) != 1:
		x.r.Rcode = dns.RcodeFormatError
		return
	case x.q.Opcode == dns.OpcodeNotify: // this server is the primary
		x.r.Rcode = dns.RcodeRefused
		return
	}
	q := x.q.Question[0]
	switch {
	case q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY:
		x.r.Rcode = dns.RcodeRefused
		return
	case q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR:
		x.transfer()
		return
	case q.Qtype == dns.TypeMAILA || q.Qtype == dns.TypeMAILB:
		x.r.Rcode = dns.RcodeNotImplemented
		return
	case q.Qtype == dns.TypeOPT || q.Qtype == dns.TypeTSIG || q.Qtype == dns.TypeTKEY:
		x.r.Rcode = dns.RcodeFormatError
		return
	}

	a := x.s.zone.Look(q.Name, q.Qtype)
	x.r.Authoritative = q.Qclass == dns.ClassINET // an answer for class ANY never is (RFC 1035 §6.2)
	switch a.Result {
	case zone.NotLoaded:
		x.r.Authoritative = false
		x.r.Rcode = dns.RcodeServerFailure
	case zone.Outside:
		x.r.Authoritative = false
		x.r.Rcode = dns.RcodeRefused
	case zone.NoName:
		x.r.Rcode = dns.RcodeNameError
		x.r.Ns = []dns.RR{a.SOA}
	case zone.NoData:
		x.r.Ns = []dns.RR{a.SOA}
	case zone.Found:
		x.r.Answer, x.r.Extra = a.Records, a.Extra
	}
	if a.Result == zone.Found || a.Result == zone.NoData {
		x.name, x.kind = strings.ToLower(q.Name), q.Qtype
	}
}

// send sends the response, shortened if it does not fit.
func (x *exchange) send() {
	x.code = x.r.Rcode
	drop, empty := false, false
	if x.udp && x.key == "" {
		drop, empty = x.s.limit.exceeds(x.source, x.name, x.kind, x.r.Rcode)
	}
	if drop {
		x.s.m.limited.Inc()
		return
	}
	if empty {
		x.s.m.limited.Inc()
		x.truncate()
	}

	extra := x.r.Extra
	for {
		data, err := x.pack(extra)
		switch {
		case err != nil:
			x.s.log.Error("DNS response not sent", "question", x.q.Question, "error", err)
			return
		case len(data) > x.size && len(extra) > 0:
			extra = nil // helpful, but not asked for
			continue
		case x.udp && len(data) > x.size && !x.r.Truncated:
			x.truncate()
			continue
		}
		if _, err := x.w.Write(data); err != nil {
			x.s.log.Debug("DNS response not sent", "to", x.source, "error", err)
		}
		return
	}
}

func (x *exchange) truncate() {
	x.r.Truncated = true
	x.r.Answer, x.r.Ns, x.r.Extra = nil, nil, nil
}

// pack returns the response on the wire, with its OPT and TSIG records.
func (x *exchange) pack(extra []dns.RR) ([]byte, error) {
	r := *x.r
	r.Extra = make([]dns.RR, 0, len(extra)+2)
	r.Extra = append(r.Extra, extra...)
	if x.opt != nil {
		r.Extra = append(r.Extra, x.opt)
	}
	if x.tsig == nil {
		return r.Pack()
	}
	t := *x.tsig
	r.Extra = append(r.Extra, &t)
	data, _, err := dns.TsigGenerateWithProvider(&r, x.s.keys, x.q.IsTsig().MAC, false)

	return data, err
}
