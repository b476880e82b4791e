package edge

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

func itoa(n int) string { return strconv.Itoa(n) }

// watch sends OPTIONS to the peers and tracks the addresses of their names.
type watch struct {
	e     *Edge
	due   map[ping]time.Time // when to send each OPTIONS next
	known map[*address]bool  // all current addresses of the peers
}

// ping is an OPTIONS that is sent again and again: to an address that is probed, for the trunk, or for a customer's
// label if the phone system has a gateway object for the label's name.
type ping struct {
	to    *address
	label string // empty for the trunk
}

// spread is the time between the first OPTIONS for two labels, so that there is no burst at the start.
const spread = 10 * time.Millisecond

// namesEvery is how often the resolver's cache is checked for changed addresses.
const namesEvery = 500 * time.Millisecond

func newWatch(e *Edge) *watch {
	return &watch{e: e, due: map[ping]time.Time{}, known: map[*address]bool{}}
}

func (w *watch) run(ctx context.Context) {
	names := time.NewTicker(namesEvery)
	defer names.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	w.names(time.Now(), true)
	for {
		select {
		case <-ctx.Done():
			return
		case <-names.C:
			w.names(time.Now(), false) // new addresses are due at once, below
		case <-next.C:
		}
		now := time.Now()
		soonest := now.Add(time.Minute)
		for p, t := range w.due {
			if !now.Before(t) {
				o := &p.to.peer.group.cfg.Options
				// 10 % jitter, so that nodes and peers do not synchronise.
				t = now.Add(o.Every - o.Every/20 + time.Duration(rand.Int64N(int64(o.Every/10)+1)))
				w.due[p] = t
				w.send(p)
			}
			if t.Before(soonest) {
				soonest = t
			}
		}
		next.Reset(max(time.Until(soonest), spread))
	}
}

// names updates the peers' addresses from the resolver.
func (w *watch) names(now time.Time, first bool) {
	changed := first
	have := map[*address]bool{}
	for _, g := range w.e.groups {
		for _, p := range g.peers {
			addrs := p.addresses(w.e.find, nil)
			if p.fixed == nil && len(addrs) > 0 && p.keep(addrs, now, w.e.sourceGrace()) {
				changed = true
			}
			for _, a := range addrs {
				have[a] = true
				if w.known[a] {
					continue
				}
				changed = true
				if !g.cfg.Options.Off && !p.cfg.Passive {
					w.due[ping{to: a}] = now // probe a new address at once
				}
			}
		}
	}
	for a := range w.known {
		changed = changed || !have[a]
	}
	w.known = have
	w.labels(now)
	if changed {
		w.e.rebuildSources()
	}
}

// labels updates what is due from the labels for whose names the phone system has gateway objects, and removes what
// goes to addresses that peers no longer have.
func (w *watch) labels(now time.Time) {
	labels := map[string]bool{}
	if w.e.gateways != nil {
		for _, l := range w.e.gateways() {
			labels[l] = true
		}
	}
	for p := range w.due {
		if !w.known[p.to] || p.label != "" && !labels[p.label] {
			delete(w.due, p)
		}
	}
	for a := range w.known {
		_, probed := w.due[ping{to: a}]
		s := a.peer.group.service
		if !probed || !s.Traits().Labelled {
			continue
		}
		within := min(time.Duration(len(labels))*spread, a.peer.group.cfg.Options.Every)
		for l := range labels {
			if _, ok := w.due[ping{a, l}]; !ok {
				w.due[ping{a, l}] = now.Add(rand.N(within))
			}
		}
	}
}

// sourceGrace is how long an address that a peer's name no longer has stays a known source: the maximum duration of a
// call that started there.
func (e *Edge) sourceGrace() time.Duration {
	if d := e.cfg.Timers.MaxDuration; d > 0 {
		return d
	}
	return noMaxGrace
}

// noMaxGrace is sourceGrace if calls have no maximum duration.
const noMaxGrace = 24 * time.Hour

// send sends an OPTIONS (direct-routing-sip §3). Only those for the trunk show whether a peer is available.
func (w *watch) send(p ping) {
	e, a, g := w.e, p.to, p.to.peer.group
	l := leg.Leg{Local: g.local[g.proto], Remote: a.peer.remote(), Refer: g.cfg.Refer == referRelay}
	if p.label != "" {
		l.Call = &route.Decision{Label: p.label}
	}
	uri := leg.Addr{Host: l.Remote.Host, Port: a.addr.Port(), Transport: l.Remote.Transport}.URI("")
	m := sip.NewRequest(sip.OPTIONS, uri)
	m.Add(sip.KindMaxForwards, itoa(maxForwards))
	m.Add(sip.KindFrom, "<"+l.Local.URI("")+">;tag="+e.newTag())
	m.Add(sip.KindTo, "<"+leg.Addr{Host: l.Remote.Host}.URI("")+">")
	m.Add(sip.KindCallID, sip.NewCallID())
	m.Add(sip.KindCSeq, "1 OPTIONS")
	m.Add(sip.KindAccept, "application/sdp")
	if e.named {
		m.Append(e.agent)
	}
	if f := e.profile(g); f != nil {
		f.Ping(m, &l)
	} else {
		leg.SetContact(m, l.Local)
		leg.SetAllow(m, l.Allow())
	}
	q := &peerProbe{e: e, a: a}
	t := transport.Target{From: g.eps[g.proto], Addr: a.addr, ServerName: a.peer.serverName()}
	if p.label == "" {
		q.timer = time.AfterFunc(g.cfg.Options.Timeout, func() {
			a.bad(time.Now(), fmt.Sprintf("no answer to OPTIONS within %v", g.cfg.Options.Timeout), 0, e.log)
		})
	}
	g.m.sentRequest(sip.OPTIONS)
	if _, err := e.tx.Send(m, t, q); err != nil {
		q.Failed(nil, err)
	}
}

// peerProbe waits for the response to an OPTIONS that checks a peer.
type peerProbe struct {
	e *Edge
	a *address
	// timer decides between a response, a failure and the timeout: what stops it is the first. Nil for an OPTIONS that
	// shows nothing.
	timer *time.Timer
}

// late reports whether the result came after the timeout, or does not matter.
func (q *peerProbe) late() bool { return q.timer == nil || !q.timer.Stop() }

// Response implements [transaction.ClientHandler]. Any final response shows that the peer is available, except 408, 503
// and 504, which say that it cannot take calls.
func (q *peerProbe) Response(_ *transaction.Client, m *sip.Message) {
	status := m.Status()
	q.a.peer.group.m.received(sip.OPTIONS, status)
	if status < 200 {
		return
	}
	switch now := time.Now(); {
	case q.late():
	case status == 408, status == 503, status == 504:
		q.a.bad(now, fmt.Sprintf("%d to OPTIONS", status), retryAfter(m), q.e.log)
	default:
		q.a.good(now, q.e.log)
	}
}

// Failed implements [transaction.ClientHandler].
func (q *peerProbe) Failed(_ *transaction.Client, err error) {
	switch {
	case q.late():
	case local(err):
		q.e.localFailure(sip.OPTIONS, q.a.peer.String(), err)
	default:
		q.a.bad(time.Now(), err.Error(), 0, q.e.log)
	}
}
