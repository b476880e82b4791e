package snapshot

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Fate is what became of something that Tandem had made.
type Fate string

// The fates.
const (
	Gone    Fate = "gone"
	PutBack Fate = "putBack" // it has again what it had before Tandem
	Kept    Fate = "kept"
)

// Outcome is what became of an object.
type Outcome struct {
	plan.Ref
	// User and Display name a user, as it was called when the report was made.
	User    string `json:"user,omitempty"`
	Display string `json:"display,omitempty"`
	Fate    Fate   `json:"fate"`
	Reason  string `json:"reason,omitempty"` // why it was kept, or what else is to be known
}

// Report is what a fresh read of a tenant shows after it was left.
type Report struct {
	Snapshot string    `json:"-"` // the one that was taken before the leave
	Read     time.Time `json:"read"`
	Outcomes []Outcome `json:"outcomes"`
	// Advice is what the customer may do now, such as delete the account that signed in.
	Advice []string `json:"advice,omitempty"`
}

// Outcomes compares what Tandem had made with what a tenant has afterwards. The notes are why things were kept, such as
// plan.Plan.Kept; those about nothing of the ledger are added.
func Outcomes(before plan.Ledger, after plan.State, notes []plan.Note) []Outcome {
	reasons := map[plan.Ref]string{}
	at := func(r plan.Ref) plan.Ref { return plan.Ref{Type: r.Type, Name: strings.ToLower(r.Name)} }
	for _, n := range notes {
		reasons[at(n.Ref)] = strings.TrimPrefix(reasons[at(n.Ref)]+"; "+n.Text, "; ")
	}

	var outcomes []Outcome
	for _, m := range before {
		o := Outcome{Ref: m.Ref, Fate: Gone, Reason: reasons[at(m.Ref)]}
		delete(reasons, at(m.Ref))
		got, exists := after.Get(m.Ref)
		switch {
		case !exists:
		case m.Before == nil:
			o.Fate = Kept
			if o.Reason == "" {
				o.Reason = "it is still there; Microsoft may show it for some time, then leave again"
			}
		default:
			o.Fate = PutBack
			var texts []string
			for _, d := range differences(got, m.Before) {
				texts = append(texts, fmt.Sprintf("%s is %s, before Tandem it was %s", d.Field, value(d.Old),
					value(d.New)))
			}
			if len(texts) > 0 {
				o.Fate = Kept
				o.Reason = strings.TrimPrefix(o.Reason+"; "+strings.Join(texts, "; "), "; ")
			}
		}
		outcomes = append(outcomes, o)
	}
	for r, text := range reasons {
		outcomes = append(outcomes, Outcome{Ref: r, Fate: Kept, Reason: text})
	}

	slices.SortFunc(outcomes, func(a, b Outcome) int {
		return strings.Compare(string(a.Type)+" "+strings.ToLower(a.Name), string(b.Type)+" "+strings.ToLower(b.Name))
	})
	return outcomes
}
