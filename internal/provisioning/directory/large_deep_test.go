//go:build deep

package directory_test

import (
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/testkit"
)

// TestLargeAccountIsDeletedInBoundedMemory deletes an account with a million numbers and measures the process's peak
// resident memory. The engines run one after the other, because they share the process's memory.
func TestLargeAccountIsDeletedInBoundedMemory(t *testing.T) {
	const n, limit = 1_000_000, 48 << 20
	for _, conf := range []db.Config{testkit.SQLiteConfig(t), testkit.PostgresConfig(t)} {
		t.Run(conf.Driver, func(t *testing.T) {
			h := open(t, testkit.Open(t, conf))
			h.putAccount(account("acme", zoom.Service))
			_, err := h.Import(t.Context(), "acme", 0, func(yield func(domain.Number) bool) {
				for i := range uint64(n) {
					if !yield(number("acme", "+"+strconv.FormatUint(10_000_000_000+i, 10), zoom.Service)) {
						return
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			at, err := h.feed.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			debug.FreeOSMemory()
			if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
				t.Skipf("the peak of resident memory cannot be reset here: %v", err)
			}
			before := status(t, "VmRSS")
			start := time.Now()
			if _, err := h.DeleteAccount(t.Context(), "acme", true, directory.Write{}); err != nil {
				t.Fatal(err)
			}
			took, grew := time.Since(start), status(t, "VmHWM")-before
			if grew > limit {
				t.Errorf("memory grew by %d MiB, want at most %d", grew>>20, limit>>20)
			}
			t.Logf("%d numbers deleted in %v, memory grew by %d MiB", n, took, grew>>20)
			changes := 0
			for {
				p, err := h.feed.Read(t.Context(), feed.Provisioning, at, 20)
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Entries) == 0 {
					break
				}
				for _, e := range p.Entries {
					changes += deleted.count(e.Payload)
				}
				at = p.Next
			}
			if changes != n+1 {
				t.Errorf("the feed has %d deletions, want %d", changes, n+1)
			}
		})
	}
}

type pattern struct{ *regexp.Regexp }

func (p pattern) count(b []byte) int { return len(p.FindAllIndex(b, -1)) }

var deleted = pattern{regexp.MustCompile(`"deleted":true`)}

// status reads a size of this process, in bytes.
func status(t *testing.T, name string) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Skipf("/proc/self/status has no %s", name)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}
