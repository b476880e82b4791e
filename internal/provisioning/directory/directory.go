package directory

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain"
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

// Default returns the configuration used where the file says nothing.
func Default() Config { return Config{} }

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

// Accounts lists accounts by name. Errors: fault.Invalid for a bad Limit.
func (d *Directory) Accounts(ctx context.Context, q Query) (Page[domain.Account], error) {
	panic("not built")
}

// Account returns the account with that name, its number counts filled in. Errors: AccountNotFound.
func (d *Directory) Account(ctx context.Context, name string) (domain.Account, error) {
	panic("not built")
}

// PutAccount creates or replaces the account a.Name. Read-only fields of a are ignored. Errors: see codes.go.
func (d *Directory) PutAccount(ctx context.Context, a domain.Account, w Write) (*Result, error) {
	panic("not built")
}

// DeleteAccount deletes the account; with deleteNumbers its numbers too, in the same transaction however many they are,
// else it fails with AccountHasNumbers if there are any. Errors: AccountNotFound.
func (d *Directory) DeleteAccount(ctx context.Context, name string, deleteNumbers bool, w Write) (*Result, error) {
	panic("not built")
}

// Numbers lists numbers in ascending order of their text: those of one account, which must exist, or those of all
// accounts if account is "".
func (d *Directory) Numbers(ctx context.Context, account string, q Query) (Page[domain.Number], error) {
	panic("not built")
}

// Number returns a number of the account. A number of another account is not found. Errors: AccountNotFound,
// NumberNotFound.
func (d *Directory) Number(ctx context.Context, account string, n domain.E164) (domain.Number, error) {
	panic("not built")
}

// FindNumber returns a number whatever its account. Errors: NumberNotFound.
func (d *Directory) FindNumber(ctx context.Context, n domain.E164) (domain.Number, error) {
	panic("not built")
}

// PutNumber creates or replaces a number of the account n.AccountName. Read-only fields of n are ignored.
func (d *Directory) PutNumber(ctx context.Context, n domain.Number, w Write) (*Result, error) {
	panic("not built")
}

// DeleteNumber deletes a number of the account. Errors: AccountNotFound, NumberNotFound.
func (d *Directory) DeleteNumber(ctx context.Context, account string, n domain.E164, w Write) (*Result, error) {
	panic("not built")
}

// PutNumbers creates or replaces up to MaxBatch numbers of one account, all or none. If any item is bad the error is
// BatchRejected with one detail per bad item; a detail's target is numbers[i] followed by the field.
func (d *Directory) PutNumbers(ctx context.Context, account string, ns []domain.Number, w Write) (*Result, error) {
	panic("not built")
}

// DeleteNumbers deletes up to MaxBatch numbers of one account, all or none. Numbers that do not exist are ignored; a
// number of another account is refused with NumberAssignedToAnotherAccount.
func (d *Directory) DeleteNumbers(ctx context.Context, account string, ns []domain.E164, w Write) (*Result, error) {
	panic("not built")
}

// Import creates or replaces any number of numbers of one account, under the same rules as PutNumbers, in chunks of
// chunk numbers (0 means 5,000). Each chunk is atomic; the first that fails ends the import, and the chunks before it
// stay. Targets of details count from the first number of the sequence. The report is valid on error too.
func (d *Directory) Import(ctx context.Context, account string, chunk int, ns iter.Seq[domain.Number]) (ImportReport, error) {
	panic("not built")
}

// Requests lists requests for information by tenant id.
func (d *Directory) Requests(ctx context.Context, q Query) (Page[domain.RequestForInformation], error) {
	panic("not built")
}

// Request returns the request for information of a tenant. The case of tenantID does not matter. Errors:
// RequestForInformationNotFound.
func (d *Directory) Request(ctx context.Context, tenantID string) (domain.RequestForInformation, error) {
	panic("not built")
}

// PatchRequest changes the operator's side of a request for information.
func (d *Directory) PatchRequest(ctx context.Context, tenantID string, p RelationshipPatch, w Write) (*Result, error) {
	panic("not built")
}

// CivicAddress is a civic address with the validators of a conditional read.
type CivicAddress struct {
	domain.CivicAddress
	Version  int64
	Modified time.Time
}

// CivicAddresses lists the civic addresses of the account's Teams tenant by id; none if it has no tenant. Errors:
// AccountNotFound.
func (d *Directory) CivicAddresses(ctx context.Context, account string, q Query) (Page[CivicAddress], error) {
	panic("not built")
}

// CivicAddress returns one civic address of the account's Teams tenant. Errors: AccountNotFound, CivicAddressNotFound.
func (d *Directory) CivicAddress(ctx context.Context, account, id string) (CivicAddress, error) {
	panic("not built")
}

// CapabilityPlans returns the capability plans of the account's Teams tenant: those saved for the tenant, else those
// saved for every tenant. It writes nothing but the record of w.Once.
func (d *Directory) CapabilityPlans(ctx context.Context, account string, w Write) (*Result, error) {
	panic("not built")
}

// AvailableCapabilities returns the capabilities that all the given numbers have available, sorted. A number of the
// account whose back end has told its capabilities counts with those, any other with all that the account's capability
// plans offer. It takes 1 to MaxBatch numbers, and writes nothing but the record of w.Once.
func (d *Directory) AvailableCapabilities(ctx context.Context, account string, ns []domain.E164, w Write) (*Result, error) {
	panic("not built")
}

// SetAccountService switches a service that the contract has no field for (its trait InContract is false) on or off for
// an account. Management API only. Errors: AccountNotFound, ServiceInContract, ServiceInUse.
func (d *Directory) SetAccountService(ctx context.Context, account string, s domain.Service, enabled bool) (*Result, error) {
	panic("not built")
}

// SetNumberService switches a service that the contract has no field for on or off for up to MaxBatch numbers of an
// account, all or none. Management API only.
func (d *Directory) SetNumberService(ctx context.Context, account string, ns []domain.E164, s domain.Service, enabled bool) (*Result, error) {
	panic("not built")
}

// SaveRequest stores what a tenant asked of this operator: everything of a request for information but the operator's
// own side, which is kept. r.Relationship is used only if there was no request of that tenant before.
func (d *Directory) SaveRequest(ctx context.Context, r domain.RequestForInformation) error {
	panic("not built")
}

// SaveCivicAddresses replaces all civic addresses of a Teams tenant.
func (d *Directory) SaveCivicAddresses(ctx context.Context, tenantID string, as []domain.CivicAddress) error {
	panic("not built")
}

// SaveCapabilityPlans replaces all capability plans of a Teams tenant, or with tenantID "" those of every tenant that
// has none of its own.
func (d *Directory) SaveCapabilityPlans(ctx context.Context, tenantID string, ps []domain.CapabilityPlan) error {
	panic("not built")
}

// Run removes records of repeatable requests when their time is over. It blocks until ctx is done and returns nil.
func (d *Directory) Run(ctx context.Context) error {
	panic("not built")
}
