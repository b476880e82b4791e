package powershell

import (
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config says how PowerShell is run.
type Config struct {
	// Command is the PowerShell 7 program, by name or absolute path. The systemd unit of the package forbids memory
	// that is written and run, which PowerShell needs: set MemoryDenyWriteExecute=no in a drop-in. Default "pwsh".
	Command string `yaml:"command"`
	// Module is the MicrosoftTeams module, by name or by the absolute path of its directory. By name it must be
	// installed for all users: children have home directories of their own. Version 7.1.1 or later. Default
	// "MicrosoftTeams".
	Module string `yaml:"module"`
	// MaxChildren is how many tenants can be worked on at a time, each with a process that may take some hundred MiB
	// of memory. 1 to 64; default 4.
	MaxChildren int `yaml:"maxChildren"`
	// StartTimeout bounds the start of a process and the loading of the module. 1s to 10m; default 2m.
	StartTimeout time.Duration `yaml:"startTimeout"`
	// CommandTimeout bounds a command, among them the reading of all users. 1s to 1h; default 5m.
	CommandTimeout time.Duration `yaml:"commandTimeout"`
	// IdleTimeout is after how long a process without commands is stopped. 1s to 24h; default 5m.
	IdleTimeout time.Duration `yaml:"idleTimeout"`
}

// Default returns the configuration used where the file says nothing.
func Default() Config {
	return Config{Command: "pwsh", Module: "MicrosoftTeams", MaxChildren: 4, StartTimeout: 2 * time.Minute,
		CommandTimeout: 5 * time.Minute, IdleTimeout: 5 * time.Minute}
}

// Validate returns every mistake. It runs nothing.
func (c *Config) Validate() []error {
	var errs fault.Problems
	if c.Command == "" {
		errs.Add("command", "is empty; use pwsh, or the path of PowerShell 7")
	}
	if c.Module == "" {
		errs.Add("module", "is empty; use MicrosoftTeams, or the path of the module's directory")
	}
	if c.MaxChildren < 1 || c.MaxChildren > 64 {
		errs.Add("maxChildren", "%d is out of range; use 1 to 64", c.MaxChildren)
	}
	for _, t := range []struct {
		name       string
		value, max time.Duration
	}{{"startTimeout", c.StartTimeout, 10 * time.Minute}, {"commandTimeout", c.CommandTimeout, time.Hour},
		{"idleTimeout", c.IdleTimeout, 24 * time.Hour}} {
		if t.value < time.Second || t.value > t.max {
			errs.Add(t.name, "%v is out of range; use 1s to %v", t.value, t.max)
		}
	}
	return errs
}
