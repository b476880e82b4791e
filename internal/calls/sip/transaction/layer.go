package transaction

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// Transport is the transport below the layer; *[transport.Stack] implements it and documents the methods.
type Transport interface {
	Send(b []byte, t transport.Target, w transport.Waiter) (transport.Flow, error)
	Forget(f transport.Flow, w transport.Waiter)
	Reply(b []byte, f transport.Flow, w transport.Waiter) error
}

var _ Transport = (*transport.Stack)(nil)

// User is the transaction user above the layer. The package comment says how its methods are called.
type User interface {
	// Request gets a new request, of any method but ACK and CANCEL. It should call tx.Handle first. The request must be
	// answered with tx.Respond or ended with tx.Drop, in Request or later.
	Request(tx *Server, req *sip.Message)
	// Ack gets an ACK that matches no transaction: the ACK of a 2xx not sent with RespondReliably, or a stray. ACK has
	// no response.
	Ack(ack *sip.Message, f transport.Flow)
}

// Errors that the layer returns or passes to Failed.
var (
	// ErrTimeout means that no final response arrived in time (timers B and F, RFC 3261 §17.1). Treat it as a 408.
	ErrTimeout = errors.New("no response in time")
	// ErrNoAck means that the final response was never acknowledged (timer H, or §13.3.1.4 for a 2xx).
	ErrNoAck = errors.New("no ACK in time")
	// ErrOverload means that the layer holds the maximum number of transactions.
	ErrOverload = errors.New("too many SIP transactions")
	// ErrClosed means that the layer is closed.
	ErrClosed = errors.New("SIP transaction layer is closed")
	// ErrDone means that the transaction has had its final response or has ended.
	ErrDone = errors.New("SIP transaction already has its final response")
)

// Config sets the layer's timers and bounds. The zero value means the values of RFC 3261.
type Config struct {
	// T1 is the estimated round-trip time, 0 means 500 ms; T2 the longest interval between retransmissions, 0 means 4
	// s; T4 how long a message may stay in the network, 0 means 5 s (RFC 3261 §17.1.1.1, table 4). Time-outs are 64×T1.
	T1, T2, T4 time.Duration
	// MaxTransactions bounds the transactions held, including those that only absorb retransmissions. Above it new
	// requests get 503 with Retry-After, and Send returns ErrOverload. For requests inside dialogs, so that calls can
	// end, and for urgent ones the bound is one eighth higher. 0 means 500,000.
	MaxTransactions int
	// RetryAfter is the Retry-After of a 503, in whole seconds; 0 means 5 s.
	RetryAfter time.Duration
	// Urgent reports whether a new request may use the room above MaxTransactions, as one inside a dialog may. It is
	// called only for requests that would be refused, and must be safe for concurrent use. Nil: no request may.
	Urgent func(req *sip.Message, f transport.Flow) bool
	// Validator checks each message; nil means a zero sip.Validator.
	Validator *sip.Validator
	// NewTag makes To tags for responses made here and for [Server.Tag]; nil means sip.NewTag.
	NewTag func() string
}

func (c Config) withDefaults() Config {
	c.T1 = cmp.Or(c.T1, 500*time.Millisecond)
	c.T2 = cmp.Or(c.T2, 4*time.Second)
	c.T4 = cmp.Or(c.T4, 5*time.Second)
	c.MaxTransactions = cmp.Or(c.MaxTransactions, 500_000)
	c.RetryAfter = cmp.Or(c.RetryAfter, 5*time.Second)
	if c.Validator == nil {
		c.Validator = &sip.Validator{}
	}
	if c.NewTag == nil {
		c.NewTag = sip.NewTag
	}
	return c
}

// trying is how long an INVITE may wait for the user's first response before the layer sends 100 (§17.2.1).
const trying = 200 * time.Millisecond

// agent is the pseudonym in the Warning of responses made here.
const agent = "tandem"

// shards is the number of independently locked parts of each table. A power of two.
const shards = 32

// Layer is the transaction layer. Use [New] to make one. Its methods are safe for concurrent use. It is the handler of
// the transport.
type Layer struct {
	cfg   Config
	tp    Transport
	user  User
	log   *slog.Logger
	m     *Metrics
	wheel *wheel

	seed1, seed2 maphash.Seed
	retryAfter   atomic.Int64 // nanoseconds; Config.RetryAfter at first
	live         atomic.Int64 // transactions in the tables
	pending      atomic.Int64 // of these, those without a final response
	closed       atomic.Bool

	tables [shards]table

	largeMu sync.Mutex // guards noLarge
	noLarge map[string]time.Time
}

// table is one part of the layer's tables.
type table struct {
	mu      sync.Mutex // guards the maps
	servers map[key]*Server
	merged  map[uint64]*Server // by From tag, Call-ID and CSeq: RFC 3261 §8.2.2.2
	acks    map[uint64]*Server // 2xx responses that wait for their ACK, by dialog and CSeq number
	clients map[string]*Client
	cancels map[string]*Client // CANCEL shares its INVITE's branch
}

// key is a keyed hash of what identifies a transaction: 128 bits with secret keys, so that the text need not be
// compared. The smaller tables, of merged requests and ACKs, use 64 bits: among 100,000 entries one request in 10^14
// matches a wrong one.
type key struct{ a, b uint64 }

var _ transport.Handler = (*Layer)(nil)

// New returns a layer on tp. Pass it to the transport's Start. Its metrics are registered with reg unless that is nil;
// a nil log discards.
func New(cfg Config, tp Transport, user User, log *slog.Logger, reg prometheus.Registerer) (*Layer, error) {
	if tp == nil || user == nil {
		return nil, errors.New("transaction layer needs a transport and a user")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Layer{cfg: cfg.withDefaults(), tp: tp, user: user, log: log, seed1: maphash.MakeSeed(),
		seed2: maphash.MakeSeed(), noLarge: map[string]time.Time{}}
	l.retryAfter.Store(int64(l.cfg.RetryAfter))
	l.m = &Metrics{layer: l}
	if reg != nil {
		if err := reg.Register(l.m); err != nil {
			return nil, fmt.Errorf("register transaction metrics: %w", err)
		}
	}
	for i := range l.tables {
		t := &l.tables[i]
		t.servers, t.merged, t.acks = map[key]*Server{}, map[uint64]*Server{}, map[uint64]*Server{}
		t.clients, t.cancels = map[string]*Client{}, map[string]*Client{}
	}
	l.wheel = newWheel()
	return l, nil
}

// SetRetryAfter changes the Retry-After of a 503; see Config.
func (l *Layer) SetRetryAfter(d time.Duration) { l.retryAfter.Store(int64(d)) }

// Pending returns the number of transactions held that have no final response yet.
func (l *Layer) Pending() int { return int(l.pending.Load()) }

// Idle waits until every transaction has its final response or ctx ends.
func (l *Layer) Idle(ctx context.Context) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for l.Pending() > 0 {
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("%d SIP transactions have no final response: %w", l.Pending(), ctx.Err())
		}
	}
	return nil
}

// Close stops all timers and waits for the callbacks they run. After that nothing is sent and no handler is called.
func (l *Layer) Close() {
	l.closed.Store(true)
	l.wheel.close()
}

func (l *Layer) hash(seed maphash.Seed, parts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, p := range parts {
		_, _ = h.WriteString(p)
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

func (l *Layer) key(parts ...string) key {
	return key{l.hash(l.seed1, parts...), l.hash(l.seed2, parts...)}
}

func (l *Layer) at(k key) *table { return &l.tables[k.a%shards] }

func (l *Layer) half(k uint64) *table { return &l.tables[k%shards] }

func (l *Layer) ofBranch(branch string) *table {
	return &l.tables[maphash.String(l.seed1, branch)%shards]
}

// Receive implements transport.Handler.
func (l *Layer) Receive(m *sip.Message, p *sip.Problem, f transport.Flow) {
	if l.closed.Load() {
		return
	}
	if p == nil {
		p = l.cfg.Validator.Check(m)
	}
	switch {
	case p != nil:
		l.refuse(m, p, f)
	case m.IsResponse():
		l.response(m, f)
	default:
		l.request(m, f)
	}
}

// refuse answers an invalid message if a response is allowed.
func (l *Layer) refuse(m *sip.Message, p *sip.Problem, f transport.Flow) {
	answer := p.Answer(m, l.cfg.NewTag(), agent)
	if answer == nil {
		l.m.Discarded.Add(1)
		l.log.Warn("SIP message discarded", "flow", f.String(), "call_id", m.CallID(), "field", p.Field, "problem",
			p.Text, "clause", p.Clause)
		return
	}
	l.m.Invalid.Add(1)
	l.log.Warn("SIP request refused", "flow", f.String(), "call_id", m.CallID(), "status", p.Status, "field", p.Field,
		"problem", p.Text, "clause", p.Clause)
	l.Reply(answer, f)
}

// Reply sends a response without a transaction (RFC 3261 §8.2.7). If the request is repeated it must get the same
// response.
func (l *Layer) Reply(res *sip.Message, f transport.Flow) {
	buf := buffers.Get().(*[]byte)
	*buf = res.AppendTo((*buf)[:0])
	if err := l.tp.Reply(*buf, f, nil); err != nil {
		l.m.SendFailed.Add(1)
		l.log.Debug("SIP response not sent", "flow", f.String(), "status", res.Status(), "err", err)
	}
	buffers.Put(buf)
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// overloaded reports whether the request exceeds the bound, and answers it with 503 if it does.
func (l *Layer) overloaded(m *sip.Message, f transport.Flow, inDialog bool) bool {
	live, most := l.live.Load(), int64(l.cfg.MaxTransactions)
	if live < most || live < withSpare(most) && (inDialog || l.cfg.Urgent != nil && l.cfg.Urgent(m, f)) {
		return false
	}
	l.m.Overload.Add(1)
	res := sip.NewResponse(m, 503, "", l.cfg.NewTag())
	res.Add(sip.KindRetryAfter, strconv.Itoa(int((time.Duration(l.retryAfter.Load())+time.Second-1)/time.Second)))
	res.Add(sip.KindWarning, sip.Warning(399, agent, "maximum number of SIP transactions reached"))
	l.Reply(res, f)
	return true
}

// withSpare returns the bound for requests inside dialogs and urgent ones: one eighth higher.
func withSpare(bound int64) int64 { return bound + bound/8 }
