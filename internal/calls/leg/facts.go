package leg

import (
	"slices"
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Facts extracts from an INVITE the facts that routing decides by. It never fails: what cannot be parsed is left empty,
// and the decision deals with it.
func Facts(m *sip.Message, peerGroup string) domain.CallFacts {
	f := domain.CallFacts{PeerGroup: peerGroup}
	if u, err := m.RURI(); err == nil {
		f.Called, f.CalledContext = called(u), context(u)
		f.Host = strings.TrimSuffix(strings.ToLower(u.Host), ".")
	}
	f.From = party(m.Get(sip.KindFrom))
	for v := range m.Values(sip.KindPAssertedIdentity) {
		f.Asserted = append(f.Asserted, party(v))
	}
	if m.Has(sip.KindHistoryInfo) {
		f.History = history(m)
	}
	if v := m.Get(sip.KindReferredBy); v != "" {
		f.ReferredBy = party(v)
	}
	if i := m.FindName(HeaderFMC); i >= 0 {
		f.Anchored, f.AnchoredBy = true, m.At(i).Value()
	}
	return f
}

// called returns the dialled number. If the user part is not a number, it returns the user part as written, so that the
// rejection can quote it.
func called(u sip.URI) string {
	if n, ok := u.TelephoneNumber(); ok {
		return n
	}
	return u.UserOnly()
}

// context returns the phone-context without visual separators if it is a global prefix, and "" otherwise.
func context(u sip.URI) string {
	v, ok := u.UserParams().Get("phone-context")
	if !ok {
		return ""
	}
	if c, err := sip.ParseURI("tel:" + sip.Unescape(v)); err == nil && c.User[0] == '+' {
		n, _ := c.TelephoneNumber()
		return n
	}
	return ""
}

// party parses one address value.
func party(value string) domain.Party {
	a, err := sip.ParseNameAddr(value)
	if err != nil {
		return domain.Party{Text: value}
	}
	u, err := a.URI()
	if err != nil {
		return domain.Party{Text: a.Addr}
	}
	if n, ok := u.TelephoneNumber(); ok {
		// A number without "+" belongs to no account: only the operator knows which prefix is missing.
		e, _ := domain.ParseE164(n)
		return domain.Party{Number: e, Text: n, Context: context(u)}
	}
	if user := u.UserOnly(); user != "" {
		return domain.Party{Text: user}
	}
	return domain.Party{Text: a.Addr}
}

// history returns the History-Info entries, oldest first. That is normally their order in the message; if the index
// parameters give another order, they take precedence (RFC 7044 §10.3).
func history(m *sip.Message) []domain.Party {
	type entry struct {
		p     domain.Party
		index []int
	}
	var es []entry
	for v := range m.Values(sip.KindHistoryInfo) {
		e := entry{p: party(v)}
		if a, err := sip.ParseNameAddr(v); err == nil {
			idx, _ := a.Params.Get("index")
			e.index = indexes(idx)
		}
		es = append(es, e)
	}
	if !slices.ContainsFunc(es, func(e entry) bool { return e.index == nil }) {
		slices.SortStableFunc(es, func(a, b entry) int { return slices.Compare(a.index, b.index) })
	}
	ps := make([]domain.Party, len(es))
	for i := range es {
		ps[i] = es[i].p
	}
	return ps
}

// indexes parses an index such as "1.2.1". It returns nil if s is not an index.
func indexes(s string) []int {
	var l []int
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil
		}
		l = append(l, n)
	}
	return l
}
