package onboard

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// wait is returned by a step that waits.
type wait struct {
	Waiting
	after time.Duration // at least, until the next attempt
	code  string        // of the fault
}

func (w *wait) Error() string { return w.Reason }

// waiting returns the error of a Cloud as a wait, unless it is a failure, with what was attempted.
func waiting(err error, of plan.Ref, format string, args ...any) error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return fmt.Errorf(format+": %w", append(args, err)...)
	}
	w := &wait{Waiting{For: Person, Object: of, Reason: f.Message}, f.RetryAfter, f.Code}
	switch f.Kind {
	case fault.Unauthenticated, fault.Forbidden, fault.Conflict:
		w.Customer = customer(f.Code)
		return w
	case fault.Unavailable, fault.Limited:
		w.Usual, w.Longest = of.Type.Takes()
		if w.For = Microsoft; f.Code == CodeNotPublished {
			w.For, w.Customer = DNS, "your provider's name servers do not all answer yet; you need to do nothing"
		}
		return w
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// customers says which waits for a person the customer's administrator ends, by the code of the fault, and what it
// reads: the text or, if that is empty, the reason. The operator ends every other one.
var customers = map[string]string{
	CodeNoLicence: "", CodeConflicts: "", "DomainInUse": "", "NumberHeld": "", "UsagesLost": "",
	"ForeignEmergencyNumbers": "", "TeamsRoleMissing": "",
	"Authorization_RequestDenied": "Microsoft says that a permission is missing: check that the authorisation of the " +
		"application has not been changed; your provider then lets the work continue",
	"DomainElsewhere": "another tenant at Microsoft has this name: an administrator of that tenant removes it there, " +
		"or your provider has to choose another name",
	"NotAuthorised": newSignIn, "ConsentNeeded": newSignIn, "SignInNeeded": newSignIn, "TokenRefused": newSignIn,
	"RolesMissing": newSignIn,
}

// newSignIn is for a sign-in that did not work when it was needed. Once that is recorded, the pages offer another.
const newSignIn = "Microsoft did not accept the sign-in; the work continues when it does. This page shows if you " +
	"have to sign in again"

// customer returns what the customer's administrator reads of a wait for a person.
func customer(code string) string {
	if text, ok := customers[code]; ok {
		return text
	}
	return "your provider has to solve this; you need to do nothing"
}

// last says since when it lasts, and what that means if it is longer than usual.
func (w *Waiting) last(since time.Time) {
	w.Since = since
	waited := time.Since(since)
	w.Late = w.Usual > 0 && waited > w.Usual
	label := w.Object.Type == plan.Domain || w.Object.Type == plan.SIPDomain
	switch {
	case w.Late && waited > w.Longest && label:
		w.say(fmt.Sprintf("; this takes at most %.0f hours: ", w.Longest.Hours()),
			"choose a new label for the account (tandem tenant set --label), or keep waiting",
			"your provider has to choose another name, or wait")
	case w.Late:
		w.say(fmt.Sprintf("; this usually takes %s, and at most %s", w.Usual, w.Longest), "", "")
	}
}

// say adds to what the operator and the customer's administrator read.
func (w *Waiting) say(both, operator, customer string) {
	w.Reason, w.Customer = w.Reason+both+operator, cmp.Or(w.Customer, w.Reason)+both+customer
}

const (
	firstPause   = time.Second
	longestPause = 10 * time.Minute
	longestLook  = 30 * time.Second // at what Tandem itself does: a user can wait for a person for days
)

// pause returns how long to wait before looking again for what has not been there for some time.
func pause(waited time.Duration) time.Duration {
	return min(max(waited/4, firstPause), longestPause)
}

// changed is the wait for a person to look at the tenant.
func changed(of plan.Ref, code, reason string) error {
	return &wait{Waiting: Waiting{For: Person, Object: of, Reason: reason, Customer: customer(code)}}
}
