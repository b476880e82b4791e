package transaction

import (
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

// Transport is what the layer needs below it; *[transport.Stack] is one. See there for what the methods promise.
type Transport interface {
	Send(b []byte, t transport.Target, w transport.Waiter) (transport.Flow, error)
	Forget(f transport.Flow, w transport.Waiter)
	Reply(b []byte, f transport.Flow, w transport.Waiter) error
}

var _ Transport = (*transport.Stack)(nil)

// User is the transaction user: what lies above the layer. See the package comment for how its methods are called.
type User interface {
	// Request gets a new request, of any method but ACK and CANCEL. It, or something later, must answer with tx.Respond or end it with tx.Drop; it should call tx.Handle first.
	Request(tx *Server, req *sip.Message)
	// Ack gets an ACK that belongs to no transaction here: that of a 2xx not sent with RespondReliably, or a stray. There is nothing to answer.
	Ack(ack *sip.Message, f transport.Flow)
}

// Errors that the layer returns or hands to Failed.
var (
	// ErrTimeout: no final response came in time (timers B and F, RFC 3261 §17.1). Treat it as a 408.
	ErrTimeout = errors.New("no response in time")
	// ErrNoAck: the final response was never acknowledged (timer H, or §13.3.1.4 for a 2xx).
	ErrNoAck = errors.New("no ACK in time")
	// ErrOverload: the layer holds as many transactions as it may.
	ErrOverload = errors.New("too many SIP transactions")
	// ErrClosed: the layer is closed.
	ErrClosed = errors.New("SIP transaction layer is closed")
	// ErrDone: the transaction has had its final response, or is over.
	ErrDone = errors.New("SIP transaction has its final response")
)

// Config sets the layer's timers and bounds. The zero value has RFC 3261's values.
type Config struct {
	// T1 is the estimate of the round-trip time, 0 means 500 ms; T2 the longest interval between retransmissions, 0 means 4 s; T4 how
	// long a message may stay in the network, 0 means 5 s (RFC 3261 §17.1.1.1, table 4). Time-outs are 64×T1.
	T1, T2, T4 time.Duration
	// Trying is how long an INVITE may wait for the user's first response before the layer sends 100; 0 means 200 ms (§17.2.1).
	Trying time.Duration
	// MaxTransactions bounds the transactions held, those that only absorb retransmissions included. Above it new requests get 503 with
	// Retry-After, and Send returns ErrOverload; requests inside dialogs, so that calls can end, and urgent ones get
	// an eighth more. 0 means 500,000.
	MaxTransactions int
	// RetryAfter is the Retry-After of a 503, in full seconds; 0 means 5 s.
	RetryAfter time.Duration
	// Urgent reports whether a new request may use the room above MaxTransactions as well, as one inside a dialog
	// may. It is asked only of requests that would be refused, from many goroutines at once. Nil: no request may.
	Urgent func(req *sip.Message, f transport.Flow) bool
	// Validator checks each message; nil: a zero sip.Validator.
	Validator *sip.Validator
	// Agent is the host or pseudonym in the Warning of answers made here; empty means "tandem".
	Agent string
	// NewTag makes To tags for answers made here and for [Server.Tag]; nil means sip.NewTag.
	NewTag func() string
	// AllowMerged hands requests that came a second time by another path to the user, instead of answering 482 (§8.2.2.2).
	AllowMerged bool
}

func (c Config) withDefaults() Config {
	set(&c.T1, 500*time.Millisecond)
	set(&c.T2, 4*time.Second)
	set(&c.T4, 5*time.Second)
	set(&c.Trying, 200*time.Millisecond)
	set(&c.MaxTransactions, 500_000)
	set(&c.RetryAfter, 5*time.Second)
	if c.Validator == nil {
		c.Validator = &sip.Validator{}
	}
	if c.Agent == "" {
		c.Agent = "tandem"
	}
	if c.NewTag == nil {
		c.NewTag = sip.NewTag
	}
	return c
}

func set[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// shards is the number of independently locked parts of each table. A power of two.
const shards = 32

// Layer is the transaction layer. Make it with [New]. Its methods are safe for concurrent use. It is the transport's handler.
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
	pending      atomic.Int64 // of them, those without a final response
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
	acks    map[uint64]*Server // 2xx answers that wait for their ACK, by dialog and CSeq number
	clients map[string]*Client
	cancels map[string]*Client // CANCEL shares its INVITE's branch
}

// key is a keyed hash of what identifies a transaction: 128 bits, with keys nobody outside knows, so it needs no comparing of the text. The lesser tables, of
// merged requests and ACKs, have 64: among 100,000 entries one request in 10^14 meets a wrong one.
type key struct{ a, b uint64 }

var _ transport.Handler = (*Layer)(nil)

// New makes a layer on tp. Hand it to the transport's Start. Its metrics go to reg unless that is nil; a nil log discards.
func New(cfg Config, tp Transport, user User, log *slog.Logger, reg prometheus.Registerer) (*Layer, error) {
	if tp == nil || user == nil {
		return nil, errors.New("transaction layer needs a transport and a user")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Layer{cfg: cfg.withDefaults(), tp: tp, user: user, log: log, seed1: maphash.MakeSeed(), seed2: maphash.MakeSeed(), noLarge: map[string]time.Time{}}
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

// Metrics returns the layer's counters.
func (l *Layer) Metrics() *Metrics { return l.m }

// Live returns the number of transactions held, Pending the number of those without a final response.
func (l *Layer) Live() int { return int(l.live.Load()) }

// Pending: see Live.
func (l *Layer) Pending() int { return int(l.pending.Load()) }

// Idle waits until every transaction has its final response, or ctx ends.
func (l *Layer) Idle(ctx context.Context) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for l.Pending() > 0 {
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("%d SIP transactions are unfinished: %w", l.Pending(), ctx.Err())
		}
	}
	return nil
}

// Close stops all timers and waits for the callbacks they run. Nothing is sent, and no handler called, from then on.
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
	if p == nil && m != nil {
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

// refuse answers a message that breaks the rules, where it may be answered.
func (l *Layer) refuse(m *sip.Message, p *sip.Problem, f transport.Flow) {
	var answer *sip.Message
	if m != nil {
		answer = p.Answer(m, l.cfg.NewTag(), l.cfg.Agent)
	}
	if answer == nil {
		l.m.Discarded.Add(1)
		l.log.Warn("SIP message discarded", "flow", f.String(), "call_id", callID(m), "field", p.Field, "problem", p.Text, "clause", p.Clause)
		return
	}
	l.m.Invalid.Add(1)
	l.log.Warn("SIP request refused", "flow", f.String(), "call_id", m.CallID(), "status", p.Status, "field", p.Field, "problem", p.Text, "clause", p.Clause)
	l.Reply(answer, f)
}

// callID returns the message's Call-ID, "" if it has none.
func callID(m *sip.Message) string {
	if m == nil {
		return ""
	}
	return m.CallID()
}

// Reply sends a response without a transaction (RFC 3261 §8.2.7): the same request, coming again, must get the same answer.
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

// overloaded answers 503 if the request is one too many.
func (l *Layer) overloaded(m *sip.Message, f transport.Flow, inDialog bool) bool {
	live, most := l.live.Load(), int64(l.cfg.MaxTransactions)
	if live < most || live < withSpare(most) && (inDialog || l.cfg.Urgent != nil && l.cfg.Urgent(m, f)) {
		return false
	}
	l.m.Overload.Add(1)
	res := sip.NewResponse(m, 503, "", l.cfg.NewTag())
	res.Add(sip.KindRetryAfter, strconv.Itoa(int((time.Duration(l.retryAfter.Load())+time.Second-1)/time.Second)))
	res.Add(sip.KindWarning, sip.Warning(399, l.cfg.Agent, "maximum number of SIP transactions reached"))
	l.Reply(res, f)
	return true
}

// withSpare is the bound for what must not be refused while there is any room at all: an eighth more.
func withSpare(bound int64) int64 { return bound + bound/8 }
