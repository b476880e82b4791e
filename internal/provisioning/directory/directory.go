package directory

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
)

// Limits of the contract and ours.
const (
	// MaxBatch is the maximum size of a batch, in numbers.
	MaxBatch = 100
	// MaxPage is the maximum size of a page, in items.
	MaxPage = 500
	// MaxSeen is the maximum number of accounts whose subdomainStatus is stored at once.
	MaxSeen = pageChanges
	// Repeatable is how long the answer to a repeatable request is kept.
	Repeatable = 24 * time.Hour
)

// Directory is the system of record. Create it with New; its methods are safe for concurrent use.
type Directory struct {
	store Store
	cfg   Config
	log   *slog.Logger

	changes *prometheus.CounterVec // by action
}

// Config is the directory's part of the configuration.
type Config struct {
	// BaseDomain is the DNS name under which customers' Direct Routing names are: <subdomain>.1r1.<baseDomain>. Default
	// empty: the length of full names is not checked. When it is set, a subdomain whose full name would be longer than
	// the 48 characters that Entra ID accepts is refused.
	BaseDomain string `yaml:"baseDomain"`
	// Observed is set if the names of labels are looked for in DNS: a new label begins as notProvisioned, until
	// SetSubdomainStatus says otherwise. Else it is provisioned at once (docs/decisions/0003).
	Observed bool `yaml:"-"`
}

// New returns a Directory on store. It starts no goroutine; see Run.
func New(store Store, cfg Config, log *slog.Logger, reg prometheus.Registerer) *Directory {
	return &Directory{store: store, cfg: cfg, log: log,
		changes: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_directory_changes_total",
			Help: "Accounts, numbers and requests for information changed, by action. Writes that change nothing are " +
				"not counted.",
		}, []string{"action"})}
}

// Query selects a page of a listing. Listings are ordered by their key (account name, number, tenant id, civic address
// id), ascending, byte by byte, and stable.
type Query struct {
	Filter filter.Expr // from the resource's filter.Table; nil for everything
	After  string      // key of the last item of the previous page; "" for the start
	Skip   int         // items to skip after After
	Limit  int         // 1 to MaxPage
	Count  bool        // fill Page.Total
}

// Page is one page of a listing.
type Page[T any] struct {
	Items []T
	// Next is the After of the next page; "" if this is the last.
	Next string
	// Total is the number of items that match the filter, whatever the page; set only if the Query asked for it.
	Total int64
}

// Write is what a contract write may carry besides its body. The zero value is an unconditional, unrepeatable write.
type Write struct {
	Condition Condition
	Once      *Once
	// Refused are the items of a batch that the caller has already found wrong, by index: the batch is then rejected,
	// with these faults among the details. Their values are ignored. For batch operations only.
	Refused map[int]fault.Error
}

// Once makes a write happen at most once (OASIS Repeatable Requests 1.0). The record is stored in the transaction of
// the change, so every node that shares the database sees it. Only writes that succeed are recorded: one that fails
// changes nothing, and a repetition tries again.
type Once struct {
	// Scope separates callers: the API client's id. The same ID in two scopes is two requests.
	Scope     string
	ID        string // Repeatability-Request-ID
	FirstSent time.Time
	// Digest identifies the request itself (method, path, query and body). The same ID with another Digest is refused
	// with RepeatabilityMismatch.
	Digest [32]byte
	// Render turns the result of the write into the answer, which is opaque to the directory. It runs inside the
	// transaction, perhaps more than once (a transaction may be retried), so it must be quick and free of side effects.
	Render func(*Result) ([]byte, error)
}

// Result is what a write did. Which fields are set depends on the operation.
type Result struct {
	// Created is set when the resource did not exist before (201 instead of 200).
	Created bool
	// Account is the stored account: PutAccount.
	Account *domain.Account
	// Numbers holds the stored numbers in the order of the request: PutNumber (one), PutNumbers.
	Numbers []domain.Number
	// Request is the stored request for information: PatchRequest.
	Request *domain.RequestForInformation
	// Plans is the answer of CapabilityPlans, Capabilities that of AvailableCapabilities.
	Plans        []domain.CapabilityPlan
	Capabilities []string
	// Position is the feed position of the change; 0 if nothing changed.
	Position feed.Position
	// Replayed is set when this request was executed before: only Response is set then.
	Replayed bool
	// Response is what Once.Render returned, now or the first time; nil without a Once.
	Response []byte
}

// RelationshipPatch is a merge patch (RFC 7396) of a request for information's customerRelationship.
type RelationshipPatch struct {
	// Clear removes the whole object ("customerRelationship": null); the other fields are then ignored.
	Clear bool
	// Status and Comment replace the members; nil leaves one as it is, a pointer to "" removes it.
	Status, Comment *string
}

// ImportReport is the result of an import.
type ImportReport struct {
	Numbers   int // stored, all chunks together
	Created   int
	Updated   int
	Unchanged int
	Chunks    int
}
