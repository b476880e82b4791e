package certificate

import (
	"regexp"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// state is what all nodes remember besides the certificates. It is stored before an order begins and when it ends.
type state struct {
	Accounts map[string]account // by directory
	Holds    map[string]hold    // by directory
	Attempts map[string]attempt // the last ones, by the name of the certificate's record
	Values   []value            // published in the DNS and not removed yet
}

// account is an account at an authority.
type account struct {
	Key      []byte // ECDSA, SEC 1
	Location string // its URL; empty until it is registered
}

// hold is a rate limit of an authority: it accepts no order before Until.
type hold struct {
	Until  time.Time
	Reason string
}

// attempt is the last attempt to order a certificate.
type attempt struct {
	Failed   int // in a row; 0 if it succeeded
	At, Next time.Time
	Cause    string
	Error    string
	Request  string // of a person, by which the attempt was made, or an earlier one
}

// value is a value in the DNS.
type value struct {
	Name, Value string
	Path        []string `json:",omitempty"` // from Name to where it was put by CNAMEs; none if that is Name
}

// path returns the path with which a value was added.
func (v value) path() []string {
	if len(v.Path) == 0 {
		return []string{v.Name}
	}

	return v.Path
}

// is reports whether two values are the same one at the same place.
func (v value) is(o value) bool {
	return v.Name == o.Name && v.Value == o.Value && slices.Equal(v.Path, o.Path)
}

// Waits after failures, which double each time. An authority that found no value for a challenge has counted a failure
// for the identifier, two for a name and its wildcard. Let's Encrypt allows five an hour: two orders.
const (
	shortWait = time.Minute      // the challenge was not offered
	longWait  = 20 * time.Minute // it was, or the process was killed
	mostWait  = 6 * time.Hour
)

// forgetAfter is for how long after its end the wait of an attempt is kept: configurations change, and with them the
// names of records.
const forgetAfter = 30 * 24 * time.Hour

// next is the attempt that follows a: it has begun at a time, and counts as failed until it succeeds.
func (a attempt) next(at time.Time, wait time.Duration, cause, text string) attempt {
	wait = min(wait<<min(a.Failed, 10), mostWait)
	return attempt{Failed: a.Failed + 1, At: at, Next: at.Add(wait), Cause: cause, Error: text, Request: a.Request}
}

// Bounds of a rate limit. No limit of a known authority lasts longer than a week.
const (
	unknownHold = time.Hour // the authority names no time
	longestHold = 7 * 24 * time.Hour
)

var timestamp = regexp.MustCompile(`(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)?([+-]\d\d:\d\d)?`)

// limitedUntil returns until when an authority that limits the rate accepts no order: the time in its header, else the
// latest one in the text of the problem, UTC unless it says otherwise.
func limitedUntil(header time.Time, p acme.Problem, now time.Time) time.Time {
	until, text := header, p.Detail
	for _, s := range p.Subproblems {
		text += " " + s.Detail
	}
	for _, m := range timestamp.FindAllStringSubmatch(text, 20) {
		zone := m[3]
		if zone == "" {
			zone = "Z"
		}
		t, err := time.Parse(time.RFC3339, m[1]+"T"+m[2]+zone)
		if err == nil && header.IsZero() {
			until = later(until, t)
		}
	}
	if until.IsZero() {
		until = now.Add(unknownHold)
	}
	if limit := now.Add(longestHold); until.After(limit) {
		return limit
	}
	return later(until, now.Add(shortWait)) // also where the clocks differ
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
