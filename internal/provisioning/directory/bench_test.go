package directory_test

import (
	"log/slog"
	"strconv"
	"testing"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/testkit"
)

// engines open a directory for a benchmark.
var engines = map[string]func(b *testing.B) *house{
	db.SQLite:   func(b *testing.B) *house { return openWithEvents(b, testkit.SQLiteConfig(b)) },
	db.Postgres: func(b *testing.B) *house { return openWithEvents(b, testkit.PostgresConfig(b)) },
}

// openWithEvents opens a database that also writes events, as a server does.
func openWithEvents(b *testing.B, c db.Config) *house {
	d := testkit.Open(b, c)
	events.New(d, slog.New(slog.DiscardHandler), nil)
	return open(b, d)
}

// BenchmarkImport loads numbers through the directory: rules, rows, feed and audit log, in chunks of 5,000, each a
// durable transaction. One operation is one number. "new" creates them, "changed" gives each another header, "same"
// loads what is already stored.
func BenchmarkImport(b *testing.B) {
	for name, open := range engines {
		b.Run(name, func(b *testing.B) {
			h := open(b)
			h.putAccount(account("acme", directrouting.Service, zoom.Service))
			next := uint64(10_000_000_000)
			load := func(b *testing.B, from uint64, header string) {
				rep, err := h.Import(b.Context(), "acme", 0, func(yield func(domain.Number) bool) {
					for i := range uint64(b.N) {
						n := number("acme", "+"+strconv.FormatUint(from+i, 10), directrouting.Service)
						n.CustomSIPHeader = header
						if !yield(n) {
							return
						}
					}
				})
				if err != nil || rep.Numbers != b.N {
					b.Fatalf("Import: %+v, %v", rep, err)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "numbers/s")
			}
			b.Run("new", func(b *testing.B) {
				load(b, next, "acme-1")
				next += uint64(b.N)
			})
			b.Run("changed", func(b *testing.B) { load(b, 10_000_000_000, "acme-"+strconv.Itoa(b.N)) })
			b.Run("same", func(b *testing.B) { load(b, 10_000_000_000, "acme-"+strconv.Itoa(b.N)) })
		})
	}
}

// BenchmarkDeleteAccount deletes an account with all its numbers in one transaction. One operation is one number.
func BenchmarkDeleteAccount(b *testing.B) {
	for name, open := range engines {
		b.Run(name, func(b *testing.B) {
			h := open(b)
			h.putAccount(account("acme", zoom.Service))
			_, err := h.Import(b.Context(), "acme", 0, func(yield func(domain.Number) bool) {
				for i := range uint64(b.N) {
					if !yield(number("acme", "+"+strconv.FormatUint(10_000_000_000+i, 10), zoom.Service)) {
						return
					}
				}
			})
			if err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			b.ReportAllocs()
			if _, err := h.DeleteAccount(b.Context(), "acme", true, directory.Write{}); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "numbers/s")
		})
	}
}
