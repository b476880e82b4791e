// Package nameserver simulates the secondary name server of somebody else: it transfers a zone from a primary when that
// notifies it, and answers from its copy.
//
// It is strict: the transfer, and every notification, must be signed with the shared key (RFC 8945), and what it
// transfers must be one whole version of the zone (RFC 5936 §2.2). It transfers the whole zone each time.
package nameserver

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Config configures a Server.
type Config struct {
	Zone    string // its origin
	Primary string // "ip:port"
	Listen  string // "ip:port", for UDP and TCP
	KeyName string // of the shared key, hmac-sha256
}

// Server is a running secondary. It is safe for concurrent use.
type Server struct {
	cfg     Config
	secret  string // base64
	servers []*dns.Server
	wake    chan struct{}
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows
	records []dns.RR   // the SOA record first
	failure error      // of the last transfer
}

// New starts a secondary with a new secret. It transfers the zone once the primary answers.
func New(cfg Config) (*Server, error) {
	cfg.Zone, cfg.KeyName = dns.CanonicalName(cfg.Zone), dns.CanonicalName(cfg.KeyName)
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	s := &Server{cfg: cfg, secret: base64.StdEncoding.EncodeToString(raw), wake: make(chan struct{}, 1)}
	packets, err := net.ListenPacket("udp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("start the secondary: %w", err)
	}
	streams, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the secondary: %w", err), packets.Close())
	}

	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	keys := map[string]string{cfg.KeyName: s.secret}
	for _, d := range []*dns.Server{{PacketConn: packets}, {Listener: streams}} {
		up := make(chan struct{})
		d.Handler, d.TsigSecret, d.NotifyStartedFunc = dns.HandlerFunc(s.serve), keys, func() { close(up) }
		d.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
		s.servers = append(s.servers, d)
		s.running.Go(func() { _ = d.ActivateAndServe() }) // ends with Close
		<-up
	}
	s.running.Go(func() { s.follow(ctx) })

	return s, nil
}

// Addr returns where it answers.
func (s *Server) Addr() string { return s.cfg.Listen }

// Secret returns the secret of the shared key, in base64.
func (s *Server) Secret() string { return s.secret }

// Serial returns the serial of its copy, 0 while it has none, and why the last transfer failed.
func (s *Server) Serial() (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.records) == 0 {
		return 0, s.failure
	}

	return s.records[0].(*dns.SOA).Serial, s.failure
}

// Close stops it.
func (s *Server) Close() error {
	s.stop()
	var err error
	for _, d := range s.servers {
		err = errors.Join(err, d.Shutdown())
	}
	s.running.Wait()

	return err
}

// follow transfers the zone at the start, at each notification, and, until the first transfer, every second.
func (s *Server) follow(ctx context.Context) {
	for ctx.Err() == nil {
		records, err := s.transfer(ctx)
		s.mu.Lock()
		if s.failure = err; err == nil {
			s.records = records
		}
		loaded := len(s.records) > 0
		s.mu.Unlock()

		again := time.NewTimer(time.Second)
		if loaded && err == nil {
			again.Stop()
		}
		select {
		case <-s.wake:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
}

// transfer returns the records of the primary's zone.
func (s *Server) transfer(ctx context.Context) ([]dns.RR, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.cfg.Primary)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	question := new(dns.Msg).SetAxfr(s.cfg.Zone)
	question.SetTsig(s.cfg.KeyName, dns.HmacSHA256, 300, time.Now().Unix())
	t := &dns.Transfer{Conn: &dns.Conn{Conn: conn}, TsigSecret: map[string]string{s.cfg.KeyName: s.secret}}
	answers, err := t.In(question, s.cfg.Primary)
	if err != nil {
		return nil, err
	}
	var records []dns.RR
	for a := range answers {
		if a.Error != nil {
			err = a.Error
		}
		records = append(records, a.RR...)
	}
	if err != nil {
		return nil, err
	}

	last := len(records) - 1
	if last < 1 || !dns.IsDuplicate(records[0], records[last]) || records[0].String() != records[last].String() {
		return nil, errors.New("the transfer does not begin and end with the same SOA record")
	}
	for _, rr := range records {
		if !dns.IsSubDomain(s.cfg.Zone, rr.Header().Name) {
			return nil, fmt.Errorf("the transfer has %s, which is not in the zone", rr.Header().Name)
		}
	}

	return records[:last], nil
}

// serve answers one message.
func (s *Server) serve(w dns.ResponseWriter, q *dns.Msg) {
	r := new(dns.Msg).SetReply(q)
	switch {
	case len(q.Question) != 1:
		r.Rcode = dns.RcodeFormatError
	case q.Opcode == dns.OpcodeNotify:
		if q.IsTsig() == nil || w.TsigStatus() != nil {
			r.Rcode = dns.RcodeRefused
			break
		}
		r.SetTsig(s.cfg.KeyName, dns.HmacSHA256, 300, time.Now().Unix())
		select {
		case s.wake <- struct{}{}:
		default:
		}
	case q.Opcode != dns.OpcodeQuery:
		r.Rcode = dns.RcodeNotImplemented
	default:
		s.answer(&q.Question[0], r)
	}
	if opt := q.IsEdns0(); opt != nil {
		r.SetEdns0(1232, false)
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		r.Truncate(512)
	}
	_ = w.WriteMsg(r) // the client may have gone
}

// answer answers a question from the copy.
func (s *Server) answer(q *dns.Question, r *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !dns.IsSubDomain(s.cfg.Zone, q.Name):
		r.Rcode = dns.RcodeRefused
		return
	case len(s.records) == 0:
		r.Rcode = dns.RcodeServerFailure
		return
	}
	r.Authoritative = true
	exists, name := false, strings.ToLower(q.Name)
	for _, rr := range s.records {
		owner := strings.ToLower(rr.Header().Name)
		exists = exists || dns.IsSubDomain(name, owner) // also one that has only children
		if owner == name && rr.Header().Rrtype == q.Qtype {
			r.Answer = append(r.Answer, rr)
		}
	}
	if len(r.Answer) == 0 {
		r.Ns = append(r.Ns, s.records[0])
	}
	if !exists {
		r.Rcode = dns.RcodeNameError
	}
}
