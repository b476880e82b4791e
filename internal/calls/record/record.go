// Package record keeps one record of each call: who called whom, by which customer's number, where the call went, which
// peers were tried, and how and when it ended.
//
// A Record is complete, numbers included: operators bill from it and answer enquiries with it. Logs are not complete;
// they show numbers redacted. The call path hands records to a Sink and never waits for it. Spool is the sink that
// writes them to files, for other systems to collect.
//
// The package does not know how calls work and computes durations only.
package record

import (
	"time"

	"github.com/tandemgw/tandem/internal/domain"
)

// Record is one call, written once when the call has ended. The JSON names are stable. Times are UTC with microseconds;
// a zero time means that the event did not happen.
type Record struct {
	// ID is the call's own id, the same in the log.
	ID string `json:"id"`
	// Node is the node that carried the call.
	Node string `json:"node"`
	// Start is when the INVITE arrived, Progress when the first provisional response other than 100 was passed on,
	// Answer when the call was answered, End when it ended.
	Start    time.Time `json:"start"`
	Progress time.Time `json:"progress,omitzero"`
	Answer   time.Time `json:"answer,omitzero"`
	End      time.Time `json:"end"`
	// DurationSeconds is End minus Answer, 0 if the call was not answered.
	DurationSeconds float64 `json:"durationSeconds"`
	// Direction is toService, toCore or rejected.
	Direction string `json:"direction"`
	// Service is the communications service on one of the two sides, by its contract name; "none" if the call did not
	// get that far.
	Service domain.Service `json:"service"`
	// Account is the customer the call belongs to; empty if none is known.
	Account string `json:"account,omitempty"`
	// Called is the number as dialled, Caller the caller as asserted.
	Called string `json:"called,omitempty"`
	Caller string `json:"caller,omitempty"`
	// Identity is the calling number that identifies the customer and selected the custom header; IdentitySource is the
	// header that it was taken from.
	Identity       string `json:"identity,omitempty"`
	IdentitySource string `json:"identitySource,omitempty"`
	// CustomHeader is the value of the custom header on the leg to the core; empty for none.
	CustomHeader string `json:"customHeader,omitempty"`
	// Emergency marks a call to an emergency number.
	Emergency bool `json:"emergency,omitempty"`
	// Rule is the routing rule that decided the call.
	Rule string `json:"rule,omitempty"`
	// From is where the call came from.
	From Side `json:"from"`
	// Tried lists the peers the call was offered to, in order.
	Tried []Try `json:"tried,omitempty"`
	// FarCallID is the Call-ID of the far leg; From.CallID is the near one.
	FarCallID string `json:"farCallId,omitempty"`
	// Status is the final status sent to the near side for its INVITE; 0 only if no response could be sent.
	Status int `json:"status"`
	// EndedBy says who ended the call: near, far or tandem.
	EndedBy Party `json:"endedBy"`
	// Reason says why in words: the text of the rejection, or the reason for which Tandem ended the call.
	Reason string `json:"reason,omitempty"`
	// Cause is the Q.850 cause given with the end, 0 if none was.
	Cause int `json:"q850,omitempty"`
}

// refused reports whether Tandem itself rejected the call before it offered it to any peer.
func (r *Record) refused() bool {
	return r.EndedBy == Tandem && len(r.Tried) == 0 && r.Answer.IsZero()
}

// Side is where a call came from.
type Side struct {
	Group  string `json:"group"`
	Addr   string `json:"address"`
	CallID string `json:"callId"`
}

// Try is one attempt to reach a peer.
type Try struct {
	Group string    `json:"group"`
	Peer  string    `json:"peer"`
	Addr  string    `json:"address"`
	At    time.Time `json:"at"`
	// Status is the final status that the peer sent; 0 if it sent none, and then Result says why: silence, transport,
	// local (it failed on this host), canceled.
	Status int    `json:"status,omitempty"`
	Result string `json:"result"`
}

// Party is who ended a call.
type Party string

// The parties.
const (
	Near   Party = "near"   // the side the call came from
	Far    Party = "far"    // the side it went to
	Tandem Party = "tandem" // us: rejected, timed out, drained
)

// Sink takes records. Put must not block, may be called from any goroutine, and owns the record afterwards.
type Sink interface {
	Put(*Record)
}
