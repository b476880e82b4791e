package directory

import (
	"context"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Store is the directory's storage. Implementations are safe for concurrent use and report an unavailable database as
// fault.Unavailable with a RetryAfter.
type Store interface {
	// View runs fn on a connection for reading, with a context that fn must use. fn may run more than once.
	View(ctx context.Context, fn func(context.Context, Reader) error) error
	// Update runs fn in a transaction and commits if it returns nil. fn must use the context it gets, and may run more
	// than once: a transaction that loses against a concurrent one is rolled back and retried.
	Update(ctx context.Context, fn func(context.Context, Tx) error) error
}

// Reader holds the queries. In an Update, what Account, FindAccounts and FindNumbers return stays locked until the
// transaction ends.
type Reader interface {
	// Account returns the account, counts filled in, or nil.
	Account(ctx context.Context, name string) (*domain.Account, error)
	// FindAccounts returns those of the accounts that exist, without their counts, in no particular order.
	FindAccounts(ctx context.Context, names []string) ([]domain.Account, error)
	Accounts(ctx context.Context, q Query) ([]domain.Account, error)
	CountAccounts(ctx context.Context, q Query) (int64, error)
	// SubdomainOwner returns the name of the account with that label (lower case), active or pending, or "".
	SubdomainOwner(ctx context.Context, label string) (string, error)
	// FindNumbers returns those of the numbers that exist, in no particular order.
	FindNumbers(ctx context.Context, ns []domain.E164) ([]domain.Number, error)
	// Numbers lists the numbers of an account, or of all if account is "".
	Numbers(ctx context.Context, account string, q Query) ([]domain.Number, error)
	CountNumbers(ctx context.Context, account string, q Query) (int64, error)
	// SlotNumbers returns up to limit numbers of an account after the given one that record a slot, in order.
	SlotNumbers(ctx context.Context, account string, s domain.Slot, after domain.E164, limit int) ([]domain.E164, error)
	Request(ctx context.Context, tenantID string) (*domain.RequestForInformation, error)
	Requests(ctx context.Context, q Query) ([]domain.RequestForInformation, error)
	CountRequests(ctx context.Context, q Query) (int64, error)
	CivicAddress(ctx context.Context, tenantID, id string) (*CivicAddress, error)
	CivicAddresses(ctx context.Context, tenantID string, q Query) ([]CivicAddress, error)
	CountCivicAddresses(ctx context.Context, tenantID string, q Query) (int64, error)
	CapabilityPlans(ctx context.Context, tenantID string) ([]domain.CapabilityPlan, error)
}

// Tx is a transaction.
type Tx interface {
	Reader
	// HoldAccount returns the account like Account but with a weaker lock: other transactions may hold it too, none may
	// change it. It is for changes of the account's numbers.
	HoldAccount(ctx context.Context, name string) (*domain.Account, error)
	// PutAccount stores an account; create is set when Account has not found it.
	PutAccount(ctx context.Context, a *domain.Account, create bool) error
	// PutSubdomainStatus stores the subdomainStatus of an account that FindAccounts has returned in this transaction.
	PutSubdomainStatus(ctx context.Context, a *domain.Account) error
	DeleteAccount(ctx context.Context, name string) error
	// PutNumbers stores numbers of one account; old holds the present state of those that FindNumbers found. It updates
	// the account's counts.
	PutNumbers(ctx context.Context, ns []domain.Number, old map[domain.E164]*domain.Number) error
	// DeleteNumbers deletes numbers that FindNumbers or Numbers has returned in this transaction.
	DeleteNumbers(ctx context.Context, ns []domain.Number) error
	// TakeNumbers deletes up to limit numbers of an account after the given one, in order, and returns them; none if
	// there are no more. It does not update the account's counts: it is for deleting an account.
	TakeNumbers(ctx context.Context, account string, after domain.E164, limit int) ([]domain.E164, error)
	PutRequest(ctx context.Context, r *domain.RequestForInformation) error
	ReplaceCivicAddresses(ctx context.Context, tenantID string, as []CivicAddress) error
	ReplaceCapabilityPlans(ctx context.Context, tenantID string, ps []domain.CapabilityPlan) error

	// Remember claims a repeatability record. If one already exists it is returned and nothing is stored.
	Remember(ctx context.Context, r *Record) (*Record, error)
	// Answer stores the answer of a record claimed in this transaction.
	Answer(ctx context.Context, scope, id string, response []byte) error
	// Forget removes records made before t and returns their number.
	Forget(ctx context.Context, t time.Time) (int64, error)

	// Publish appends changes to the provisioning feed when the transaction commits, as one entry.
	Publish(ctx context.Context, changes []domain.Change) error
	// Audit appends an entry to the audit log when the transaction commits.
	Audit(e AuditEntry)
	// OnCommit runs fn after the commit with the position of the last feed entry, or 0 if none was published.
	OnCommit(fn func(feed.Position))
}

// Record is the stored record of a repeatable request.
type Record struct {
	Scope, ID string
	FirstSent time.Time
	Digest    [32]byte
	Response  []byte
	Made      time.Time
}

// AuditEntry is one change as recorded in the audit log.
type AuditEntry struct {
	Actor   domain.Actor
	At      time.Time
	Action  string // e.g. "account.put", "numbers.delete"
	Target  string // account name or tenant id
	Count   int    // resources changed
	Digest  [32]byte
	Summary string // JSON for readers: the new state, or for a long batch the first and last key
}
