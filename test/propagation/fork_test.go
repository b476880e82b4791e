package propagation

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/replica"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
)

// base is an open database with its directory.
type base struct {
	d   *db.DB
	o   *outbox.Outbox
	st  *provisioning.Store
	dir *directory.Directory
}

func openBase(t *testing.T, c db.Config) *base {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	d, err := db.Open(t.Context(), c, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // a successful test has closed it already
	o := outbox.New(d, outbox.Default(), log, nil)
	st := provisioning.New(d, o, services.All().Services())
	return &base{d, o, st, directory.New(st, directory.Config{BaseDomain: "gw.example.com"}, log, nil)}
}

func (b *base) close(t *testing.T) {
	t.Helper()
	if err := b.d.Close(); err != nil {
		t.Fatal(err)
	}
}

// seed provisions two accounts and some numbers of each, in three feed entries.
func (b *base) seed(t *testing.T, each int) {
	t.Helper()
	for _, name := range []string{"contoso", "fabrikam"} {
		b.must(b.dir.PutAccount(t.Context(), account(name, name[:3], true), directory.Write{}))(t)
	}
	var batch []domain.Number
	for i := range each {
		batch = append(batch, number(i, "contoso", directrouting.Service, fmt.Sprintf("S-%d", i)))
	}
	b.must(b.dir.PutNumbers(t.Context(), "contoso", batch, directory.Write{}))(t)
}

func (b *base) must(res *directory.Result, err error) func(*testing.T) feed.Position {
	return func(t *testing.T) feed.Position {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return res.Position
	}
}

// write makes the i-th change of a history. Each change takes one position, and no two histories make the same change.
func (b *base) write(t *testing.T, history string, i int) feed.Position {
	t.Helper()
	ctx := t.Context()
	switch {
	case i%3 == 2 && history == "old": // deletes a number that the other history keeps
		return b.must(b.dir.DeleteNumber(ctx, "contoso", number(i-2, "", domain.NoService, "").TelephoneNumber,
			directory.Write{}))(t)
	case i%3 == 1:
		return b.must(b.dir.PutNumber(ctx, number(100+10*i+len(history), "fabrikam", zoom.Service, ""),
			directory.Write{}))(t)
	default:
		return b.must(b.dir.PutNumber(ctx, number(30+i, "contoso", directrouting.Service,
			fmt.Sprintf("%s-%d", history, i)), directory.Write{}))(t)
	}
}

// level waits until the index reports that it is level with the database.
func level(t *testing.T, r *replica.Replica, head feed.Position) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if s := r.Status(); s.Current() && s.Position == head {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("the index does not reach position %d: %+v", head, r.Status())
		}
	}
}

// follow runs an index on dir until it is level with the database, compares the two, and stops it.
func (b *base) follow(t *testing.T, dir string, head feed.Position) {
	t.Helper()
	r := open(t, dir, b.st.Source())
	stop := run(t, r.Run)
	level(t, r, head)
	compare(t, r, b.dir)
	stop()
	compare(t, open(t, dir, away{}), b.dir) // the index after a restart without the database
}

func image(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestForkedAtEveryPosition loses the end of a history at every position and writes another end of every length, as
// when a copy of the database is restored or a standby is promoted too early. An index at every position of the lost
// history must become level with the database it now sees, number by number, also after the next restart.
func TestForkedAtEveryPosition(t *testing.T) {
	t.Parallel()
	const writes = 4
	testkit.Configs(t, func(t *testing.T, c db.Config) {
		// The history that will be lost: after each write, copies of the database and of an index level with it.
		var copies []db.Config
		var indexes []string
		b := openBase(t, c)
		b.seed(t, 20)
		dir := t.TempDir()
		for i := 0; ; i++ {
			head, err := b.o.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b.follow(t, dir, head.Position)
			b.close(t)
			copies, indexes = append(copies, testkit.Clone(t, c)), append(indexes, image(t, dir))
			if i == writes {
				break
			}
			b = openBase(t, c)
			b.write(t, "old", i)
		}
		cases := 0
		for fork, c := range copies {
			b := openBase(t, c)
			for length := 1; length <= writes-fork+1; length++ {
				head := b.write(t, "new", fork+length-1)
				for at := fork; at <= writes; at++ {
					b.follow(t, image(t, indexes[at]), head)
					if cases++; t.Failed() {
						t.Fatalf("forked after write %d, %d writes since; the index is at write %d", fork, length, at)
					}
				}
			}
			b.close(t)
		}
		t.Logf("%d combinations of fork, length and index", cases)
	})
}
