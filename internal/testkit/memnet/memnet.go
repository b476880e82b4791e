// Package memnet is a network in memory for tests: its nodes send each other SIP messages with delay, loss, duplication
// and reordering. It works inside testing/synctest bubbles, where hours of retransmission take no time.
//
// It replaces transport.Stack below a transaction layer. It is not for production, and has neither real sockets nor
// TLS.
package memnet

import (
	"container/heap"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// Config configures the network's faults. They affect UDP only; over TCP and TLS messages arrive once and in order.
type Config struct {
	// Delay is the time a message takes. Default 0: it arrives at once, but never inside Send.
	Delay time.Duration
	// Jitter is the maximum random addition to the delay, which lets messages overtake each other.
	Jitter time.Duration
	// Loss and Duplicate are probabilities, 0 to 1.
	Loss, Duplicate float64
	// Seed makes the faults repeatable.
	Seed uint64
}

// Net is the network. Make it with New, close it with Close.
type Net struct {
	cfg  Config
	wake chan struct{}
	stop chan struct{}
	done sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	rnd    *rand.Rand
	nodes  map[place]*Node
	sent   packets
	seq    int
	trace  func(from, to netip.AddrPort, b []byte)
	closed bool
}

type place struct {
	proto transport.Proto
	addr  netip.AddrPort
}

type packet struct {
	at   time.Time
	seq  int
	text string
	from netip.AddrPort
	to   *Node
	fail func() // instead of a message
}

type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return p[i].at.Before(p[j].at) || p[i].at.Equal(p[j].at) && p[i].seq < p[j].seq
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	old := *p
	x := old[len(old)-1]
	*p = old[:len(old)-1]
	return x
}

// New makes a network and starts it.
func New(cfg Config) *Net {
	n := &Net{cfg: cfg, wake: make(chan struct{}, 1), stop: make(chan struct{}), nodes: map[place]*Node{},
		rnd: rand.New(rand.NewPCG(cfg.Seed, 1))}
	n.done.Go(n.run)
	return n
}

// Close stops the network and waits for a running handler.
func (n *Net) Close() {
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		close(n.stop)
	}
	n.mu.Unlock()
	n.done.Wait()
}

// Trace sets a function that is called for each message sent, including lost ones, while a lock is held.
func (n *Net) Trace(f func(from, to netip.AddrPort, b []byte)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trace = f
}

// SetFaults changes loss and duplication while the network runs.
func (n *Net) SetFaults(loss, duplicate float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cfg.Loss, n.cfg.Duplicate = loss, duplicate
}

// Node is one address with one protocol. It has the methods that a transaction layer needs from its transport.
type Node struct {
	net *Net
	ep  *transport.Endpoint
	h   transport.Handler

	waiters map[transport.Waiter]netip.AddrPort // guarded by net.mu: requests over connections
	down    map[netip.AddrPort]bool             // far sides that refuse connections
}

// Node adds a node to the network. cfg.Bind is its address. h gets its messages; several nodes may share one.
func (n *Net) Node(cfg transport.EndpointConfig, h transport.Handler) *Node {
	node := &Node{net: n, ep: transport.Detached(cfg), h: h, waiters: map[transport.Waiter]netip.AddrPort{},
		down: map[netip.AddrPort]bool{}}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[place{cfg.Proto, cfg.Bind}] = node
	return node
}

// Endpoint returns the node's endpoint, for targets.
func (d *Node) Endpoint() *transport.Endpoint { return d.ep }

// SetHandler sets the node's handler if it could not be made before the node.
func (d *Node) SetHandler(h transport.Handler) {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	d.h = h
}

// Refuse sets whether connections from this node to addr are refused.
func (d *Node) Refuse(addr netip.AddrPort, refuse bool) {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	d.down[addr] = refuse
}

// Break reports a lost connection to everything that waits for a response over a connection from this node to addr.
func (d *Node) Break(addr netip.AddrPort) {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	for w, a := range d.waiters {
		if a == addr {
			delete(d.waiters, w)
			d.failLocked(w, addr, true, "broken")
		}
	}
}

func (d *Node) failLocked(w transport.Waiter, addr netip.AddrPort, established bool, why string) {
	if w == nil {
		return
	}
	err := &transport.ConnError{Proto: d.ep.Proto(), Remote: addr, Established: established, Err: errors.New(why)}
	d.net.push(packet{fail: func() { w.SendFailed(err) }})
}

// Send implements transaction.Transport.
func (d *Node) Send(b []byte, t transport.Target, w transport.Waiter) (transport.Flow, error) {
	if t.From == nil || !t.Addr.IsValid() {
		return transport.Flow{}, errors.New("memnet: the target is incomplete")
	}
	n := d.net
	n.mu.Lock()
	defer n.mu.Unlock()
	proto := t.From.Proto()
	if proto.Reliable() && w != nil {
		d.waiters[w] = t.Addr
	}
	if proto.Reliable() && (d.down[t.Addr] || n.nodes[place{proto, t.Addr}] == nil) {
		delete(d.waiters, w)
		d.failLocked(w, t.Addr, false, "connection refused")
		return t.From.Arrive(nil, t.Addr), nil
	}
	n.post(b, proto, t.From.Local(), t.Addr)
	return t.From.Arrive(nil, t.Addr), nil
}

// Forget implements transaction.Transport.
func (d *Node) Forget(_ transport.Flow, w transport.Waiter) {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	delete(d.waiters, w)
}

// Reply implements transaction.Transport.
func (d *Node) Reply(b []byte, f transport.Flow, _ transport.Waiter) error {
	n := d.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.post(b, f.Proto(), f.Endpoint().Local(), f.ReplyTo())
	return nil
}

// post sends a message. n.mu is held.
func (n *Net) post(b []byte, proto transport.Proto, from, to netip.AddrPort) {
	if n.trace != nil {
		n.trace(from, to, b)
	}
	node := n.nodes[place{proto, to}]
	if node == nil {
		return
	}
	copies := 1
	var extra time.Duration
	if !proto.Reliable() {
		if n.rnd.Float64() < n.cfg.Loss {
			return
		}
		if n.rnd.Float64() < n.cfg.Duplicate {
			copies = 2
		}
		if n.cfg.Jitter > 0 {
			extra = time.Duration(n.rnd.Int64N(int64(n.cfg.Jitter)))
		}
	}
	for range copies {
		n.push(packet{at: time.Now().Add(n.cfg.Delay + extra), text: string(b), from: from, to: node})
		extra *= 2
	}
}

// push queues a packet. n.mu is held.
func (n *Net) push(p packet) {
	if p.at.IsZero() {
		p.at = time.Now()
	}
	n.seq++
	p.seq = n.seq
	heap.Push(&n.sent, p)
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *Net) run() {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		n.mu.Lock()
		var wait <-chan time.Time
		if len(n.sent) > 0 {
			if d := time.Until(n.sent[0].at); d > 0 {
				t.Reset(d)
				wait = t.C
			} else {
				p := heap.Pop(&n.sent).(packet)
				var h transport.Handler
				if p.to != nil {
					h = p.to.h
				}
				n.mu.Unlock()
				select {
				case <-n.stop:
					return
				default:
				}
				p.deliver(h)
				continue
			}
		}
		n.mu.Unlock()
		select {
		case <-wait:
		case <-n.wake:
		case <-n.stop:
			return
		}
	}
}

func (p packet) deliver(h transport.Handler) {
	if p.fail != nil {
		p.fail()
		return
	}
	if h == nil {
		return
	}
	m, problem := sip.Parse(p.text, nil)
	h.Receive(m, problem, p.to.ep.Arrive(m, p.from))
}
