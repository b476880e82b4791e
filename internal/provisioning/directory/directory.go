package directory

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
)

// Limits of the contract and ours.
const (
	// MaxBatch is the most numbers a batch operation takes.
	MaxBatch = 100
	// MaxPage is the most items a Query may ask for at once.
	MaxPage = 500
	// Repeatable is how long the answer to a repeatable request is kept.
	Repeatable = 24 * time.Hour
)

// Directory is the system of record. Build it with New; its methods are safe for concurrent use.
type Directory struct {
	store Store
	cfg   Config
	log   *slog.Logger
	m     metrics
}

// Config is the directory's part of the configuration.
type Config struct {
	// BaseDomain is the DNS name under which customers' Direct Routing names live: <subdomain>.1r1.<baseDomain>. Default
	// empty: the length of full names is not checked. With it set, a subdomain whose full name would be longer than the 48
	// characters that Entra ID takes is refused.
	BaseDomain string `yaml:"baseDomain"`
}

// New builds a Directory on store. It keeps no goroutine; see Run.
func New(store Store, cfg Config, log *slog.Logger, reg prometheus.Registerer) *Directory {
	return &Directory{store: store, cfg: cfg, log: log, m: newMetrics(reg)}
}

// Query selects a page of a listing. Listings are ordered by their key (account name, number, tenant id, civic address
// id), ascending, byte by byte, and stable.
type Query struct {
	Filter filter.Expr // from the resource's filter.Table; nil for everything
	After  string      // key of the last item of the page before; "" for the start
	Skip   int         // items to leave out after After
	Limit  int         // 1 to MaxPage
	Count  bool        // fill Page.Total
}

// Page is one page of a listing.
type Page[T any] struct {
	Items []T
	// Next is the After of the following page; "" if this is the last.
	Next string
	// Total is how many items match the filter, whatever the page; only set if the Query asked for it.
	Total int64
}

// Write is what a contract write may carry besides its body. The zero value is an unconditional, unrepeatable write.
type Write struct {
	Condition Condition
	Once      *Once
	// Refused are the items of a batch that the caller found wrong already, by their place: the batch is then rejected, with
	// them among the details. Their values are not looked at. For operations on batches only.
	Refused map[int]fault.Error
}

// Once makes a write happen at most once (OASIS Repeatable Requests 1.0). The record is stored in the transaction of the
// change, so every node that shares the database knows it. Only writes that succeed are recorded: one that fails changes
// nothing, and repeating it tries again.
type Once struct {
	// Scope separates callers: the API client's id. The same ID in two scopes is two requests.
	Scope     string
	ID        string // Repeatability-Request-ID
	FirstSent time.Time
	// Digest identifies the request itself (method, path, query and body). The same ID with another Digest is refused
	// with RepeatabilityMismatch.
	Digest [32]byte
	// Render turns what the write did into the answer, opaque to the directory. It runs inside the transaction, perhaps
	// more than once (a transaction may be retried), so it must be quick and free of side effects.
	Render func(*Result) ([]byte, error)
}

// Result is what a write did. Which fields are set depends on the operation.
type Result struct {
	// Created tells that the resource did not exist before (201 instead of 200).
	Created bool
	// Account is the stored account: PutAccount and SetAccountService.
	Account *domain.Account
	// Numbers holds the stored numbers in the order of the request: PutNumber (one), PutNumbers, SetNumberService.
	Numbers []domain.Number
	// Request is the stored request for information: PatchRequest.
	Request *domain.RequestForInformation
	// Plans is the answer of CapabilityPlans, Capabilities that of AvailableCapabilities.
	Plans        []domain.CapabilityPlan
	Capabilities []string
	// Position is the feed position of the change; 0 if nothing changed.
	Position feed.Position
	// Replayed tells that this request had been done before: only Response is set.
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

// ImportReport says what an import did.
type ImportReport struct {
	Numbers   int // stored, all chunks together
	Created   int
	Updated   int
	Unchanged int
	Chunks    int
}

// Validate returns every mistake in the configuration.
func (c *Config) Validate() []error {
	if c.BaseDomain == "" || hostName(c.BaseDomain) {
		return nil
	}
	return []error{invalid("InvalidConfiguration", "baseDomain", "%q is not a DNS name; use letters, digits, \"-\" and dots, e.g. voice.example.net", c.BaseDomain)}
}
