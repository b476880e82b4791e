package directory

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// importChunk is how many numbers an import stores in one transaction. Larger chunks were hardly faster when measured,
// and block other writers longer.
const importChunk = 5000

// Numbers lists numbers in ascending order of their text: those of one account, which must exist, or those of all
// accounts if account is "". Errors: AccountNotFound, InvalidPageSize.
func (d *Directory) Numbers(ctx context.Context, account string, q Query) (Page[domain.Number], error) {
	return list(ctx, d, q, func(n *domain.Number) string { return string(n.TelephoneNumber) },
		func(r Reader, ctx context.Context, q Query) ([]domain.Number, error) {
			if account != "" {
				if _, err := mustAccount(ctx, r.Account, account); err != nil {
					return nil, err
				}
			}
			return r.Numbers(ctx, account, q)
		}, func(r Reader, ctx context.Context, q Query) (int64, error) { return r.CountNumbers(ctx, account, q) })
}

// Number returns a number of the account. A number of another account counts as not found. Errors: AccountNotFound,
// NumberNotFound.
func (d *Directory) Number(ctx context.Context, account string, n domain.E164) (domain.Number, error) {
	return view(ctx, d, func(ctx context.Context, r Reader) (*domain.Number, error) {
		if _, err := mustAccount(ctx, r.Account, account); err != nil {
			return nil, err
		}
		return findNumber(ctx, r, n, account)
	})
}

func findNumber(ctx context.Context, r Reader, n domain.E164, account string) (*domain.Number, error) {
	ns, err := r.FindNumbers(ctx, []domain.E164{n})
	if err != nil {
		return nil, err
	}
	if len(ns) == 0 || ns[0].AccountName != account {
		return nil, fault.New(fault.NotFound, CodeNumberNotFound,
			"the number does not exist on this account").At("telephoneNumber")
	}
	return &ns[0], nil
}

// PutNumber creates or replaces a number of the account n.AccountName. Read-only fields of n are ignored. Errors: the
// rules on numbers in codes.go.
func (d *Directory) PutNumber(ctx context.Context, n domain.Number, w Write) (*Result, error) {
	return d.write(ctx, w, func(ctx context.Context, tx Tx, r *Result) error {
		b, err := d.batch(ctx, tx, n.AccountName, []domain.Number{n})
		if err != nil {
			return err
		}
		old := cmp.Or(b.old[n.TelephoneNumber], &domain.Number{})
		exists := old.AccountName == n.AccountName // a number of another account does not exist here
		if err := w.Condition.check(exists, old.Version, old.Modified); err != nil {
			return err
		}
		if err := b.problem(0); err != nil {
			return err
		}
		r.Numbers, r.Created = b.ns, b.old[n.TelephoneNumber] == nil
		return d.storeNumbers(ctx, tx, "number.put", b)
	})
}

// PutNumbers creates or replaces up to MaxBatch numbers of one account, all or none. If any item is bad the error is
// BatchRejected with one detail per bad item; a detail's target is numbers[i] followed by the field. Errors:
// AccountNotFound, TooManyItems, BatchRejected.
func (d *Directory) PutNumbers(ctx context.Context, account string, ns []domain.Number, w Write) (*Result, error) {
	if err := CheckBatch(len(ns)); err != nil {
		return nil, err
	}
	return d.write(ctx, w, func(ctx context.Context, tx Tx, r *Result) error {
		b, err := d.batch(ctx, tx, account, ns)
		if err != nil {
			return err
		}
		if err := b.checkAll(0, w.Refused); err != nil {
			return err
		}
		r.Numbers = b.ns
		return d.storeNumbers(ctx, tx, "numbers.put", b)
	})
}

// CheckBatch refuses batches of more than MaxBatch numbers.
func CheckBatch(n int) error {
	if n > MaxBatch {
		return invalid(CodeTooManyItems, "numbers", "the batch has %d numbers; send at most %d in one request", n,
			MaxBatch)
	}
	return nil
}

// batch is a set of numbers to be stored on one account, with what the store holds of them.
type batch struct {
	account *domain.Account
	ns      []domain.Number                // as they will be stored
	old     map[domain.E164]*domain.Number // their present state; those that do not exist are missing
	seen    map[domain.E164]int            // index of the first occurrence of each number
	label   string                         // what RecordLabel records
}

// batch reads what is needed to check and store ns, and locks the account and the numbers until the end of tx.
func (d *Directory) batch(ctx context.Context, tx Tx, account string, ns []domain.Number) (*batch, error) {
	if err := checkAccountName(account); err != nil {
		return nil, err.At("accountName")
	}
	a, err := mustAccount(ctx, tx.HoldAccount, account)
	if err != nil {
		return nil, err
	}
	b := &batch{account: a, ns: make([]domain.Number, len(ns)), old: make(map[domain.E164]*domain.Number),
		seen: make(map[domain.E164]int, len(ns))}
	keys := make([]domain.E164, 0, len(ns))
	for i := range ns {
		n := ns[i].TelephoneNumber
		if _, err := domain.ParseE164(string(n)); err != nil {
			continue // problem reports it
		}
		if _, ok := b.seen[n]; !ok {
			b.seen[n] = i
			keys = append(keys, n)
		}
	}
	found, err := tx.FindNumbers(ctx, keys)
	if err != nil {
		return nil, err
	}
	for i := range found {
		b.old[found[i].TelephoneNumber] = &found[i]
	}
	for i := range ns {
		b.ns[i] = settleNumber(&ns[i], b.old[ns[i].TelephoneNumber])
	}
	return b, nil
}

// settleNumber returns the number as it will be stored: what the caller may write from n, the rest from old, which may
// be nil.
func settleNumber(n, old *domain.Number) domain.Number {
	old = cmp.Or(old, &domain.Number{})
	r := domain.Number{TelephoneNumber: n.TelephoneNumber, AccountName: n.AccountName,
		CustomSIPHeader:  n.CustomSIPHeader,
		HasConfiguration: n.HasConfiguration || n.CustomSIPHeader != "", Slot: old.Slot,
		// As for accounts: see settle.
		State: domain.ProvisioningState{Status: domain.SyncSynced}}
	if len(n.Services) > 0 {
		r.Services = make(map[domain.Service]domain.NumberService, len(n.Services))
	}
	for s, det := range n.Services {
		if det.Teams != nil {
			c := *det.Teams
			if c.ChoosableCapabilities == nil {
				c.ChoosableCapabilities = []string{}
			}
			if len(c.AdditionalUsages) == 0 {
				c.AdditionalUsages = nil
			}
			was := cmp.Or(old.Services[s].Teams, &domain.TeamsNumberConfig{})
			c.AcquiredCapabilities, c.AvailableCapabilities = was.AcquiredCapabilities, was.AvailableCapabilities
			det.Teams = &c
		}
		r.Services[s] = det
	}
	return r
}

// problem returns what is wrong with item i, with a target relative to it.
func (b *batch) problem(i int) *fault.Error {
	n := &b.ns[i]
	if err := checkNumber(b.account, n, b.old[n.TelephoneNumber]); err != nil {
		return err
	}
	if first, ok := b.seen[n.TelephoneNumber]; ok && first != i {
		return invalid(CodeDuplicateNumber, "telephoneNumber", "the number is in the request more than once; it "+
			"first appears at index %d", first)
	}
	return nil
}

// checkAll checks every item except those already refused; first is the index of the first one in the whole sequence.
func (b *batch) checkAll(first int, refused map[int]fault.Error) error {
	var details []fault.Error
	for i := range b.ns {
		if known, ok := refused[i]; ok {
			details = append(details, known)
			continue
		}
		if err := b.problem(i); err != nil {
			err.Target = fmt.Sprintf("numbers[%d].%s", first+i, err.Target)
			details = append(details, *err)
		}
	}
	return rejected(details, len(b.ns))
}

func rejected(details []fault.Error, of int) error {
	if len(details) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, CodeBatchRejected,
		"%d of %d items were refused; nothing was changed; details names each of them", len(details),
		of).At("numbers").With(details...)
}

// storeNumbers stores the numbers of a checked batch that differ from what is stored.
func (d *Directory) storeNumbers(ctx context.Context, tx Tx, action string, b *batch) error {
	at := now()
	changed := make([]domain.Number, 0, len(b.ns))
	for i := range b.ns {
		n := &b.ns[i]
		if old := b.old[n.TelephoneNumber]; old != nil {
			n.Version, n.Modified = old.Version, old.Modified
			if reflect.DeepEqual(n, old) {
				continue
			}
		}
		n.Version, n.Modified = next(n.Version, at), at
		changed = append(changed, *n)
	}
	if len(changed) == 0 {
		return nil
	}
	if err := tx.PutNumbers(ctx, changed, b.old); err != nil {
		return err
	}
	routing := make([]domain.NumberRouting, len(changed))
	changes := make([]domain.Change, len(changed))
	for i := range changed {
		routing[i] = *changed[i].Routing()
		changes[i].Number = &routing[i]
	}
	if len(changed) == 1 && b.label == "" {
		return d.record(ctx, tx, change{action: action, target: b.account.Name, items: 1, state: &changed[0],
			changes: changes})
	}
	digest := sha256.New()
	enc := json.NewEncoder(digest)
	for i := range changed {
		if err := enc.Encode(&changed[i]); err != nil {
			return fmt.Errorf("describe the change: %w", err)
		}
	}
	return d.record(ctx, tx, change{action: action, target: b.account.Name, items: len(changed),
		digest: [32]byte(digest.Sum(nil)), summary: b.summarise(changed), changes: changes})
}

// batchSummary is what an audit row shows of a batch: every number of a contract batch, the first and last number of a
// longer one.
type batchSummary struct {
	Numbers     []domain.E164 `json:"numbers,omitempty"`
	First, Last domain.E164   `json:",omitempty"`
	Label       string        `json:"label,omitempty"` // recorded for them
}

func (b *batch) summarise(ns []domain.Number) batchSummary {
	s := summarise(ns)
	s.Label = b.label
	return s
}

func summarise(ns []domain.Number) batchSummary {
	if len(ns) > MaxBatch {
		return batchSummary{First: ns[0].TelephoneNumber, Last: ns[len(ns)-1].TelephoneNumber}
	}
	var s batchSummary
	for i := range ns {
		s.Numbers = append(s.Numbers, ns[i].TelephoneNumber)
	}
	return s
}

// DeleteNumber deletes a number of the account. Errors: AccountNotFound, NumberNotFound.
func (d *Directory) DeleteNumber(ctx context.Context, account string, n domain.E164, w Write) (*Result, error) {
	return d.write(ctx, w, func(ctx context.Context, tx Tx, r *Result) error {
		if _, err := mustAccount(ctx, tx.HoldAccount, account); err != nil {
			return err
		}
		old, err := findNumber(ctx, tx, n, account)
		if err != nil {
			return err
		}
		if err := w.Condition.check(true, old.Version, old.Modified); err != nil {
			return err
		}
		return d.deleteNumbers(ctx, tx, "number.delete", account, []domain.Number{*old})
	})
}

// DeleteNumbers deletes up to MaxBatch numbers of one account, all or none. Numbers that do not exist are ignored; a
// number of another account is refused. Errors: AccountNotFound, TooManyItems, BatchRejected.
func (d *Directory) DeleteNumbers(ctx context.Context, account string, ns []domain.E164, w Write) (*Result, error) {
	if err := CheckBatch(len(ns)); err != nil {
		return nil, err
	}
	return d.write(ctx, w, func(ctx context.Context, tx Tx, r *Result) error {
		if _, err := mustAccount(ctx, tx.HoldAccount, account); err != nil {
			return err
		}
		found, err := tx.FindNumbers(ctx, distinct(ns))
		if err != nil {
			return err
		}
		elsewhere := make(map[domain.E164]bool)
		for i := range found {
			elsewhere[found[i].TelephoneNumber] = found[i].AccountName != account
		}
		details := badNumbers(ns, w.Refused)
		for i, n := range ns {
			if _, refused := w.Refused[i]; elsewhere[n] && !refused {
				details = append(details, *conflict(CodeNumberElsewhere, fmt.Sprintf("numbers[%d].telephoneNumber", i),
					"the number is assigned to another account"))
			}
		}
		if err := rejected(details, len(ns)); err != nil {
			return err
		}
		return d.deleteNumbers(ctx, tx, "numbers.delete", account, found)
	})
}

func (d *Directory) deleteNumbers(ctx context.Context, tx Tx, action, account string, ns []domain.Number) error {
	if len(ns) == 0 {
		return nil
	}
	if err := tx.DeleteNumbers(ctx, ns); err != nil {
		return err
	}
	keys := make([]domain.E164, len(ns))
	for i := range ns {
		keys[i] = ns[i].TelephoneNumber
	}
	return d.record(ctx, tx, change{action: action, target: account, items: len(ns), state: summarise(ns),
		changes: deletions(keys)})
}

// Import creates or replaces any number of numbers of one account, under the same rules as PutNumbers, in chunks of
// chunk numbers (0 means 5,000). Each chunk is atomic; the first that fails ends the import, and the chunks before it
// stay. Indexes in the targets of details count from the first number of the sequence. The report is valid on error
// too.
func (d *Directory) Import(ctx context.Context, account string, chunk int,
	ns iter.Seq[domain.Number]) (ImportReport, error) {
	if chunk <= 0 {
		chunk = importChunk
	}
	var rep ImportReport
	part := make([]domain.Number, 0, chunk)
	flush := func() error {
		var after ImportReport
		_, err := d.write(ctx, Write{}, func(ctx context.Context, tx Tx, r *Result) error {
			b, err := d.batch(ctx, tx, account, part)
			if err != nil {
				return err
			}
			if err := b.checkAll(rep.Numbers, nil); err != nil {
				return err
			}
			if err := d.storeNumbers(ctx, tx, "numbers.import", b); err != nil {
				return err
			}
			after = rep
			after.Numbers += len(part)
			after.Chunks++
			for i := range b.ns {
				switch old := b.old[b.ns[i].TelephoneNumber]; {
				case old == nil:
					after.Created++
				case old.Version == b.ns[i].Version:
					after.Unchanged++
				default:
					after.Updated++
				}
			}
			return nil
		})
		if err == nil {
			rep, part = after, part[:0]
		}
		return err
	}
	for n := range ns {
		part = append(part, n)
		if len(part) == chunk {
			if err := flush(); err != nil {
				return rep, err
			}
		}
	}
	if len(part) > 0 {
		if err := flush(); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

// badNumbers returns a detail for each item that is already refused or is not a valid number.
func badNumbers(ns []domain.E164, refused map[int]fault.Error) []fault.Error {
	var details []fault.Error
	for i, n := range ns {
		if known, ok := refused[i]; ok {
			details = append(details, known)
		} else if _, err := domain.ParseE164(string(n)); err != nil {
			details = append(details,
				*invalid(CodeInvalidTelephoneNumber, fmt.Sprintf("numbers[%d].telephoneNumber", i), "%s", err.Error()))
		}
	}
	return details
}
