package replica

import (
	"cmp"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config holds the settings of the number index.
type Config struct {
	// SnapshotAfterChanges is the number of changes in the journals after which a snapshot is written. Default 500000;
	// a smaller number makes restarts faster and writes more.
	SnapshotAfterChanges int `yaml:"snapshotAfterChanges"`
	// SnapshotEvery is the longest time between snapshots while there are changes. Default 15m.
	SnapshotEvery time.Duration `yaml:"snapshotEvery"`
	// MaxShrinkPercent limits the share of its numbers that the index may lose when it is reloaded from a database that
	// was set back. Percent, 1 to 100; default 50. If it would lose more, and more than maxShrinkNumbers, the old index
	// serves until an operator runs tandem index accept. There is no limit for changes read from the feed.
	MaxShrinkPercent int `yaml:"maxShrinkPercent"`
	// MaxShrinkNumbers is the number of numbers that the index may lose in any case; see maxShrinkPercent. Default 100.
	MaxShrinkNumbers int `yaml:"maxShrinkNumbers"`
}

// Default returns the settings of a deployment that sets none.
func Default() Config {
	return Config{SnapshotAfterChanges: 500_000, SnapshotEvery: 15 * time.Minute, MaxShrinkPercent: 50,
		MaxShrinkNumbers: 100}
}

// Validate returns every mistake in the settings, each a *fault.Error whose Target is the field.
func (c *Config) Validate() []error {
	var problems fault.Problems
	bad := problems.Add
	if c.SnapshotAfterChanges < 0 {
		bad("snapshotAfterChanges", "%d is negative; write the number of changes between snapshots",
			c.SnapshotAfterChanges)
	}
	if c.SnapshotEvery < 0 || c.SnapshotEvery > 0 && c.SnapshotEvery < time.Second {
		bad("snapshotEvery", "%v is shorter than a second; write a longer time, such as 15m", c.SnapshotEvery)
	}
	if c.MaxShrinkPercent < 0 || c.MaxShrinkPercent > 100 {
		bad("maxShrinkPercent", "%d is not a percentage from 1 to 100", c.MaxShrinkPercent)
	}
	if c.MaxShrinkNumbers < 0 {
		bad("maxShrinkNumbers", "%d is negative; write a positive number", c.MaxShrinkNumbers)
	}
	return problems
}

// withDefaults returns c with defaults in place of zero values.
func (c Config) withDefaults() Config {
	d := Default()
	return Config{
		SnapshotAfterChanges: cmp.Or(c.SnapshotAfterChanges, d.SnapshotAfterChanges),
		SnapshotEvery:        cmp.Or(c.SnapshotEvery, d.SnapshotEvery),
		MaxShrinkPercent:     cmp.Or(c.MaxShrinkPercent, d.MaxShrinkPercent),
		MaxShrinkNumbers:     cmp.Or(c.MaxShrinkNumbers, d.MaxShrinkNumbers),
	}
}
