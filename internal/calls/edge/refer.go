package edge

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// refer is the subscription that a relayed REFER makes (RFC 3515 §2.4.4). It outlives the call (RFC 5057 §4). The
// call's mutex guards it.
type refer struct {
	from  *side     // who sent the REFER and gets the NOTIFYs
	seq   [2]uint32 // CSeq of the REFER as it came, and as it was passed on
	first [2]bool   // whether it was the first REFER of its dialog there: Event without id means that one
	until time.Time // when it ends, unless it is refreshed
}

// Bounds of the subscriptions that REFERs make.
const (
	maxRefers    = 16              // in one call
	referLife    = 3 * time.Minute // until a NOTIFY says how long
	minReferLife = 32 * time.Second
	maxReferLife = time.Hour
)

// extend sets the time that is left, in seconds as a peer wrote them. A value that is no number changes nothing.
func (r *refer) extend(seconds string, now time.Time) {
	if n, err := strconv.ParseUint(strings.TrimSpace(seconds), 10, 32); err == nil {
		r.until = now.Add(min(max(time.Duration(n)*time.Second, minReferLife), maxReferLife))
	}
}

// replaces reports whether Refer-To asks for an INVITE with Replaces (RFC 3891 §4), escaped or not.
func replaces(m *sip.Message) bool {
	for i := m.Find(sip.KindReferTo); i >= 0; i = m.FindFrom(sip.KindReferTo, i+1) {
		header := func(c rune) bool { return c == '?' || c == '&' }
		for _, text := range strings.FieldsFunc(m.At(i).Value(), header) {
			name, _, _ := strings.Cut(text, "=")
			if strings.EqualFold(sip.Unescape(strings.Trim(name, "> ")), "replaces") {
				return true
			}
		}
	}
	return false
}

// subscribed finds the subscription that a NOTIFY or SUBSCRIBE of side s is about, and the Event value for the other side: an id is the
// CSeq of the REFER, which differs between the legs (RFC 3515 §2.4.6). r is nil for other event packages. ok is false
// for an id that no REFER of the call has.
func (c *call) subscribed(s *side, m *sip.Message) (r *refer, event string, ok bool) {
	event = m.Get(sip.KindEvent)
	name, params, _ := strings.Cut(event, ";")
	if !strings.EqualFold(strings.TrimSpace(name), "refer") {
		return nil, event, true
	}
	notify := m.Method() == sip.NOTIFY
	here, there := 0, 1 // indexes of seq and first: on the leg that m came by, and on the other
	if notify {
		here, there = 1, 0
	}
	id, has := sip.Params(params).Get("id")
	n, err := strconv.ParseUint(id, 10, 32)
	var only *refer
	candidates := 0
	for _, x := range c.refers {
		if (x.from == s) == notify {
			continue
		}
		if has && err == nil && x.seq[here] == uint32(n) || !has && x.first[here] {
			r = x
		}
		only = x
		candidates++
	}
	if r == nil && !has && candidates == 1 {
		r = only
	}
	switch {
	case r == nil:
		return nil, event, !has
	case has || !r.first[there]:
		event = sip.WithParam(event, "id", strconv.FormatUint(uint64(r.seq[there]), 10))
	}
	return r, event, true
}

// refer notes a REFER of side s that is passed on with the CSeq seq.
func (c *call) refer(s *side, m *sip.Message, seq uint32) *refer {
	o := c.other(s)
	cs, _ := m.CSeq()
	r := &refer{from: s, seq: [2]uint32{cs.Seq, seq}, first: [2]bool{s.refers == 1, !o.referred}, until: time.Now().Add(referLife)}
	o.referred = true
	c.refers = append(c.refers, r)
	return r
}

// renew takes what the final answer to a REFER, NOTIFY or SUBSCRIBE says of the subscription; res is nil if none came.
func (r *relay) renew(status int, res *sip.Message) {
	sub, ok := r.sub, status < 300
	if sub == nil {
		return
	}
	now, ended := time.Now(), false
	switch r.method {
	case sip.REFER: // RFC 4488 §4: Refer-Sub: false is no subscription
		ended = !ok || strings.HasPrefix(strings.ToLower(res.Get(sip.KindReferSub)), "false")
	case sip.SUBSCRIBE:
		if ok {
			sub.extend(res.Get(sip.KindExpires), now)
		}
		ended = status == 481
	case sip.NOTIFY: // RFC 6665 §4.2.2
		state, params, _ := strings.Cut(r.req.Get(sip.KindSubscriptionState), ";")
		expires, _ := sip.Params(params).Get("expires")
		sub.extend(expires, now)
		ended = strings.EqualFold(strings.TrimSpace(state), "terminated") || !ok && (res == nil || !res.Has(sip.KindRetryAfter))
	}
	c := r.c
	if i := slices.Index(c.refers, sub); i >= 0 && ended {
		c.refers = slices.Delete(c.refers, i, i+1)
	}
	if c.lingers {
		c.linger()
	}
}

// linger keeps a call that has ended in the tables while a subscription lives.
func (c *call) linger() {
	if len(c.refers) == 0 {
		c.endRefers()
		return
	}
	if !c.lingers && c.e.lingering.Add(1) > int64(c.e.limits.Load().MaxCalls) {
		c.e.lingering.Add(-1)
		c.refers = nil
		return
	}
	c.lingers = true
	last := slices.MaxFunc(c.refers, func(a, b *refer) int { return a.until.Compare(b.until) })
	c.times = [numTimes]time.Time{atRefers: last.until}
	c.arm()
}

// endRefers forgets the subscriptions, and the sides of a call that has ended once their BYE is settled.
func (c *call) endRefers() {
	c.refers = nil
	if c.lingers {
		c.lingers = false
		c.e.lingering.Add(-1)
		c.timer.Stop()
	}
	for _, s := range []*side{&c.near, c.far} {
		if s != nil && s.ended {
			c.e.calls.remove(s.base)
		}
	}
}

// unlink takes a side whose BYE is settled out of the table, unless a subscription lives.
func (c *call) unlink(s *side) {
	s.ended = true
	if len(c.refers) == 0 {
		c.e.calls.remove(s.base)
	}
}
