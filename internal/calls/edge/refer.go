package edge

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// refer is the subscription made by a relayed REFER (RFC 3515 §2.4.4). It can outlive the call (RFC 5057 §4). The
// call's mutex guards it.
type refer struct {
	from  *side     // the side that sent the REFER and gets the NOTIFYs
	seq   [2]uint32 // CSeq of the REFER as received, and as relayed
	first [2]bool   // it was the first REFER of its dialog there: Event without id means that one
	until time.Time // when it expires, unless refreshed
}

// Limits of subscriptions made by REFERs.
const (
	maxRefers    = 16              // in one call
	referLife    = 3 * time.Minute // until a NOTIFY or SUBSCRIBE sets another
	minReferLife = 32 * time.Second
	maxReferLife = time.Hour
)

// extend sets the time left, in seconds as written by a peer. A value that is not a number changes nothing.
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

// subscribed returns the subscription that a NOTIFY or SUBSCRIBE from side s is about, and the Event value for the
// other side: an id is the CSeq of the REFER, which differs between the legs (RFC 3515 §2.4.6). r is nil for other
// event packages. ok is false for an id that matches no REFER of the call.
func (c *call) subscribed(s *side, m *sip.Message) (r *refer, event string, ok bool) {
	event = m.Get(sip.KindEvent)
	name, params, _ := strings.Cut(event, ";")
	if !strings.EqualFold(strings.TrimSpace(name), "refer") {
		return nil, event, true
	}
	notify := m.Method() == sip.NOTIFY
	here, there := 0, 1 // indexes of seq and first: for the leg on which m arrived, and for the other
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

// refer records a REFER from side s that is relayed with the CSeq seq.
func (c *call) refer(s *side, m *sip.Message, seq uint32) *refer {
	o := c.other(s)
	cs, _ := m.CSeq()
	r := &refer{from: s, seq: [2]uint32{cs.Seq, seq}, first: [2]bool{s.refers == 1, !o.referred},
		until: time.Now().Add(referLife)}
	o.referred = true
	c.refers = append(c.refers, r)
	return r
}

// renew updates the subscription by the final response to a REFER, NOTIFY or SUBSCRIBE; res is nil if none arrived.
func (r *relay) renew(status int, res *sip.Message) {
	sub, ok := r.sub, status < 300
	if sub == nil {
		return
	}
	now, ended := time.Now(), false
	switch r.method {
	case sip.REFER: // RFC 4488 §4: Refer-Sub: false means no subscription
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
		ended = strings.EqualFold(strings.TrimSpace(state), "terminated") || !ok &&
			(res == nil || !res.Has(sip.KindRetryAfter))
	}
	c := r.c
	if i := slices.Index(c.refers, sub); i >= 0 && ended {
		c.refers = slices.Delete(c.refers, i, i+1)
	}
	if c.lingers {
		c.linger()
	}
}

// linger keeps an ended call in the table while it has an active subscription.
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

// endRefers removes the subscriptions, and from the table the sides whose BYE has been answered or has failed.
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

// unlink marks a side as ended and removes it from the table, unless there is an active subscription.
func (c *call) unlink(s *side) {
	s.ended = true
	if len(c.refers) == 0 {
		c.e.calls.remove(s.base)
	}
}
