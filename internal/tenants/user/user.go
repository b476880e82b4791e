package user

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// State is what a user is, for lists. The database computes it.
type State string

// The states.
const (
	Inactive     State = "inactive"     // can be activated
	Activating   State = "activating"   // not all of it was read back
	Active       State = "active"       // has the number and the policies, as last read
	Deactivating State = "deactivating" // what it had before is not read back
	Unlicensed   State = "unlicensed"   // has no Phone System plan that is enabled
	Blocked      State = "blocked"      // may not sign in
	Deleted      State = "deleted"      // in the bin, or gone
)

// States are all states.
var States = []State{Inactive, Activating, Active, Deactivating, Unlicensed, Blocked, Deleted}

// ResourceAccount is the Kind of an account of an application. Others are those of userConfigurations (accountType).
const ResourceAccount = "resourceAccount"

// Plan is a service plan with which an account can have a number, and its state: Enabled, Warning, Suspended, Deleted,
// LockedOut.
type Plan struct {
	Name   string    `json:"name"`
	Status string    `json:"status"`
	Since  time.Time `json:"since,omitzero"`
}

// usable reports whether the plan works. In its grace period (Warning) it does.
func (p Plan) usable() bool { return p.Status == "Enabled" || p.Status == "Warning" }

// Facts are what is shown of a user and not searched for.
type Facts struct {
	OnPremises bool   `json:"onPremises,omitempty"` // synchronised from an on-premises directory
	Plans      []Plan `json:"plans,omitempty"`
}

// Profile is what the directory has of a user.
type Profile struct {
	ID, UPN, Name, Department, Location string
	Blocked                             bool
	Facts
}

// Licensed reports whether the user can have a number.
func (p *Profile) Licensed() bool { return slices.ContainsFunc(p.Plans, Plan.usable) }

// Policy is a policy that applies to a user: directly, or by a group.
type Policy struct {
	Name  string `json:"name"`
	Group string `json:"group,omitempty"` // its id; empty for a direct one
}

// Voice is the voice configuration of a user. Policies are by the field of plan.User that names them.
type Voice struct {
	ID, UPN, Kind string
	Number        string // with "+"; empty if none
	Policies      map[string]Policy
}

// Activation is what a user is to have.
type Activation struct {
	plan.Activation
	// OverrideGroup gives policies directly that the user has by a group.
	OverrideGroup bool `json:"overrideGroup,omitempty"`
}

// User is an account of a tenant.
type User struct {
	Profile
	Voice      Voice
	State      State
	Deleted    time.Time   // since when it is known to be in the bin; zero if it is not
	Activation *Activation // nil unless it is, or is to be, activated
	Pending    bool        // not yet as asked for
	Waiting    *onboard.Waiting
}

// Missing names the service plan that the user needs to have a number, with what became of it; empty if it has one.
func (u *User) Missing() string {
	switch {
	case u.Licensed():
		return ""
	case len(u.Plans) > 0:
		p := u.Plans[0]
		if p.Since.IsZero() {
			return p.Name + " " + p.Status
		}
		return fmt.Sprintf("%s %s since %s", p.Name, p.Status, p.Since.UTC().Format(time.DateOnly))
	case u.Voice.Kind == ResourceAccount:
		return "MCOEV_VIRTUALUSER"
	}
	return "MCOEV"
}

// object returns the user in the words of package plan: direct policies only.
func (u *User) object() plan.Object {
	_, domain, _ := strings.Cut(u.UPN, "@")
	f := plan.Fields{"domain": domain}
	if u.Voice.Number != "" {
		f["number"] = u.Voice.Number
	}
	for field, p := range u.Voice.Policies {
		if p.Group == "" {
			f[field] = p.Name
		}
	}
	return plan.Object{Ref: ref(u.ID), Fields: f}
}

func ref(id string) plan.Ref { return plan.Ref{Type: plan.User, Name: id} }

// Left reports whether a tenant was left: nothing is known of its users any more.
func Left(t *onboard.Tenant) bool { return t.Purpose == onboard.Leave && !t.Pending }

// Synchronised reports whether the users of a tenant are read. Those of the operator's own are not.
func Synchronised(t *onboard.Tenant) bool { return t.Account != onboard.Carrier && !Left(t) }

// ParseNumber reads a number as Teams has it: E.164, perhaps with an extension. "tel:" and a missing "+" are accepted,
// because Teams shows the same number so; other spellings are not guessed.
func ParseNumber(s string) (full string, base domain.E164, err error) {
	main, extension, has := strings.Cut(strings.TrimPrefix(strings.TrimSpace(s), "tel:"), ";ext=")
	if base, err = domain.ParseE164("+" + strings.TrimPrefix(main, "+")); err != nil {
		return "", "", fmt.Errorf("%w; write +3221231212, or +3221231212;ext=1234 with an extension", err)
	}
	if !has {
		return string(base), base, nil
	}
	if extension == "" || len(extension) > 15 || strings.Trim(extension, "0123456789") != "" {
		return "", "", fmt.Errorf("the extension of a number has 1 to 15 digits, as in +3221231212;ext=1234")
	}
	return string(base) + ";ext=" + extension, base, nil
}

// Base returns the part of a number before its extension.
func Base(number string) domain.E164 {
	base, _, _ := strings.Cut(number, ";")
	return domain.E164(base)
}

// Filter selects users. Empty fields select all.
type Filter struct {
	State                State
	Department, Location string
	Text                 string // prefix of the name or the user principal name, without case
	Number               *bool  // has one, or has none
	Kind                 string
}

// Name is how people know a user: the user principal name, and the display name, which may be empty.
type Name struct{ UPN, Display string }

// Key is the place of a user in a list: its user principal name in lower case, then its id.
type Key struct{ Login, ID string }

// Owned is who had a number when.
type Owned struct {
	Number, ID, UPN string
	Began, Ended    time.Time // Ended is zero while the user has it
}

// The modes of a pass.
const (
	Full  = "full"
	Delta = "delta"
)

// Pass is a pass of the synchronisation, under way or ended.
type Pass struct {
	Number              int64
	Mode, Why           string
	Began, Ended        time.Time
	Failure             string // why it was abandoned; it has then marked nobody as deleted
	Users, Voices       int64  // listed, or changed
	Removed             int64
	Restarts            int64  // because a link to a page had expired
	UserPage, VoicePage string // link to the next page; empty for the first, lastPage after the last
	DeltaLink           string
}

// lastPage stands for the link of a page that does not exist.
const lastPage = "end"

// Cloud is a tenant at Microsoft. Its methods are safe for concurrent use; errors are as those of onboard.Cloud. A page
// whose link has expired is an error with the code of ExpiredPage, and a link to changes that Microsoft no longer knows
// one with that of LostChanges.
type Cloud interface {
	// Profiles, Voices and Changes call fn with the pages that follow a link, the first one if it is empty. next is
	// empty after the last page.
	Profiles(ctx context.Context, from string, fn func(page []Profile, next string) error) error
	Voices(ctx context.Context, from string, fn func(page []Voice, next string) error) error
	// Changes also reads the voice configuration of those that changed. latest is the link to later changes; it is
	// empty but on the last page.
	Changes(ctx context.Context, from string, fn func(page []Change, next, latest string) error) error
	// Latest returns the link to what changes from now on.
	Latest(ctx context.Context) (string, error)
	// Sized says how many users the tenant has, which sets its limits.
	Sized(users int)

	// Look reads one user; nil if it is not there.
	Look(ctx context.Context, id string) (*Change, error)
	// Binned reports since when an account is in the bin, and its name; false if it is not there.
	Binned(ctx context.Context, id string) (name string, since time.Time, ok bool, err error)
	// Held returns what the tenant has of these numbers. Those that it does not have are absent.
	Held(ctx context.Context, numbers []string) (map[string]Holding, error)
	// SetVoice starts a step on a user: first the number, then the policies. detail is what Microsoft said of the
	// number; what is there afterwards is for Look to say.
	SetVoice(ctx context.Context, s plan.Step) (detail string, err error)
}

// The codes of errors of Cloud's lists.
const (
	ExpiredPage = "PageExpired"
	LostChanges = "DeltaReset"
)

// Change is what a feed of changes says of a user.
type Change struct {
	Profile Profile
	Voice   *Voice // nil if it has none
	// Binned is set for a user in the bin, and Gone for one that is purged. Both have an id only.
	Binned, Gone bool
}

// Holding is a number that a tenant has.
type Holding struct {
	Number, Type, Source, Status string // directRouting, …; online, onPremises; userAssigned, …
	Target                       string // id of the account that has it; empty if none has
}

// Tx is a transaction on the users of one tenant.
type Tx interface {
	// Tenant returns the tenant, locked until the end of the transaction.
	Tenant(ctx context.Context) (*onboard.Tenant, error)
	// Made returns an entry of the ledger, Record stores one, and Forget removes one.
	Made(ctx context.Context, r plan.Ref) (plan.Made, bool, error)
	Record(ctx context.Context, entries ...plan.Made) error
	Forget(ctx context.Context, refs ...plan.Ref) error

	// User returns a user by id or user principal name; an error of kind fault.NotFound if there is none.
	User(ctx context.Context, idOrUPN string) (*User, error)
	// Users returns up to limit users after a key, in order.
	Users(ctx context.Context, f Filter, after Key, limit int) ([]User, error)
	// NumbersFrom returns the numbers between two that users have or are to have, with the ids of the users.
	NumbersFrom(ctx context.Context, first, last domain.E164) (map[string]string, error)
	// PutProfiles and PutVoices store what a pass saw.
	PutProfiles(ctx context.Context, pass int64, ps []Profile) error
	PutVoices(ctx context.Context, pass int64, vs []Voice) error
	// Remove marks users as being in the bin, or removes those that are gone and were not activated.
	Remove(ctx context.Context, binned, gone []string) error
	// Sweep marks as deleted whom the full pass has not seen, and takes the number and the policies from those that
	// have no voice configuration. It returns how many it marked.
	Sweep(ctx context.Context, pass int64) (int64, error)
	// Clear forgets the users and the passes, but for the history of numbers.
	Clear(ctx context.Context) error
	// Wake enqueues the users that are not yet as asked for, the activated ones that were deleted, and the tenant if
	// its work waits for a person, who may have acted by now.
	Wake(ctx context.Context) error
	// Ask stores what a user is to have (Activation, Pending, Waiting), and enqueues it if it is pending.
	Ask(ctx context.Context, u *User) error
	// Settle stores the same without enqueuing.
	Settle(ctx context.Context, u *User) error
	// Activated returns what users are to have, after an id, in order of the ids.
	Activated(ctx context.Context, after string, limit int) ([]User, error)

	// Owns enters in the history of numbers that a user has one from now on, or none.
	Owns(ctx context.Context, u *User, number string) error
	// History returns up to limit entries of a number or of a user, the newest first; of all if both are empty.
	History(ctx context.Context, number, id string, limit int) ([]Owned, error)

	// Passes returns up to limit passes, the newest first.
	Passes(ctx context.Context, limit int) ([]Pass, error)
	PutPass(ctx context.Context, p *Pass) error
	// SetPage stores how far one of the lists of a pass is: the link to the next page, and how many were read.
	SetPage(ctx context.Context, p *Pass, voices bool) error
	// Sync enqueues the synchronisation.
	Sync(ctx context.Context) error

	// Audit and Event enter what happened in the audit log and the event log. They must hold no phone number.
	Audit(ctx context.Context, action, target string, what any) error
	Event(ctx context.Context, kind, subject string, data map[string]any) error
}

// Store has the users.
type Store interface {
	View(ctx context.Context, account string, fn func(context.Context, Tx) error) error
	// Update runs fn in a transaction. If run is not nil, it is a step of the run, with the progress.
	Update(ctx context.Context, run *flow.Run, account, progress string, fn func(context.Context, Tx) error) error
	// Stale returns up to limit accounts after one whose tenant is to be synchronised and had no pass since a time.
	Stale(ctx context.Context, since time.Time, after string, limit int) ([]string, error)
	// Pending returns up to limit keys (account/objectid) after one, of users that are not as asked for.
	Pending(ctx context.Context, after string, limit int) ([]string, error)
	// Names returns the names of those of the users, by object id, that are or were known.
	Names(ctx context.Context, account string, ids []string) (map[string]Name, error)
	// Count returns how many users of all tenants there are in each state.
	Count(ctx context.Context) (map[State]int64, error)
}

// Clouds returns the tenant at Microsoft.
type Clouds func(ctx context.Context, t *onboard.Tenant) (Cloud, error)
