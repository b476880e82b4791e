package replica

import (
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config holds the settings of the number index.
type Config struct {
	// SnapshotAfterChanges is how many changes may be in the journals before a snapshot is written. Changes; default
	// 500000; fewer make restarts quicker and write more.
	SnapshotAfterChanges int `yaml:"snapshotAfterChanges"`
	// SnapshotEvery is the longest time between snapshots while there are changes. Default 15m.
	SnapshotEvery time.Duration `yaml:"snapshotEvery"`
}

// Default returns the settings of a deployment that sets none.
func Default() Config { return Config{SnapshotAfterChanges: 500_000, SnapshotEvery: 15 * time.Minute} }

// Validate returns every mistake in the settings, each a *fault.Error whose Target is the field.
func (c *Config) Validate() []error {
	var problems []error
	if c.SnapshotAfterChanges < 0 {
		problems = append(problems, fault.New(fault.Invalid, "InvalidConfiguration", "%d is negative; write how many changes may pass between snapshots", c.SnapshotAfterChanges).At("snapshotAfterChanges"))
	}
	if c.SnapshotEvery < 0 || c.SnapshotEvery > 0 && c.SnapshotEvery < time.Second {
		problems = append(problems, fault.New(fault.Invalid, "InvalidConfiguration", "%v is shorter than a second; write a longer time, such as 15m", c.SnapshotEvery).At("snapshotEvery"))
	}
	return problems
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	d := Default()
	if c.SnapshotAfterChanges == 0 {
		c.SnapshotAfterChanges = d.SnapshotAfterChanges
	}
	if c.SnapshotEvery == 0 {
		c.SnapshotEvery = d.SnapshotEvery
	}
	return c
}
