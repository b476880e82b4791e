package directory

import (
	"slices"
	"strconv"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// ETag returns the entity tag of a version, quotes included, as it goes into the ETag header.
func ETag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// Tags is the value of If-Match or If-None-Match.
type Tags struct {
	Any  bool     // "*"
	List []string // entity tags as sent, quotes included, a weak one with its W/ prefix
}

func (t Tags) set() bool { return t.Any || len(t.List) > 0 }

// Condition is the condition of a request (RFC 9110 §13.1). The zero value always holds.
type Condition struct {
	IfMatch           Tags
	IfNoneMatch       Tags
	IfModifiedSince   *time.Time // nil for none: every time is a condition, also year 1
	IfUnmodifiedSince *time.Time
}

// Verdict is the outcome of evaluating a Condition.
type Verdict uint8

// The verdicts.
const (
	Proceed     Verdict = iota
	NotModified         // a read is answered 304
	Failed              // the request is answered 412
)

// ForRead evaluates the condition for a read of an existing resource, in the order of RFC 9110 §13.2.2.
func (c Condition) ForRead(version int64, modified time.Time) Verdict {
	return c.evaluate(true, version, modified, true)
}

func (c Condition) evaluate(exists bool, version int64, modified time.Time, read bool) Verdict {
	tag := ETag(version)
	// HTTP dates have whole seconds: a resource changed within the given second counts as not modified since it.
	modified = modified.Truncate(time.Second)
	switch {
	case c.IfMatch.set():
		// Strong comparison: a weak tag never matches.
		if !exists || !c.IfMatch.Any && !contains(c.IfMatch.List, tag, false) {
			return Failed
		}
	case c.IfUnmodifiedSince != nil:
		if !exists || modified.After(*c.IfUnmodifiedSince) {
			return Failed
		}
	}
	unchanged := false
	switch {
	case c.IfNoneMatch.set():
		unchanged = c.IfNoneMatch.Any || contains(c.IfNoneMatch.List, tag, true)
	case c.IfModifiedSince != nil:
		unchanged = !modified.After(*c.IfModifiedSince)
	}
	switch {
	case !exists || !unchanged:
		return Proceed
	case read:
		return NotModified
	}
	return Failed
}

func contains(list []string, tag string, weak bool) bool {
	return slices.ContainsFunc(list, func(t string) bool { return t == tag || weak && t == "W/"+tag })
}

// check evaluates the condition for a write, and returns an error if it does not hold; exists reports whether the
// resource exists now. The published contract applies If-Modified-Since to writes too, where RFC 9110 §13.1.3 would
// ignore it: the write then fails if the resource exists and was not modified after that time.
func (c Condition) check(exists bool, version int64, modified time.Time) error {
	if c.evaluate(exists, version, modified, false) == Proceed {
		return nil
	}
	return fault.New(fault.Precondition, CodeConditionNotMet,
		"a condition of the request (If-Match, If-None-Match, If-Modified-Since or If-Unmodified-Since) does not "+
			"hold; read the resource again and repeat the change with its new ETag")
}
