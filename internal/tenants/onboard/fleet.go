package onboard

import "time"

// Filter selects tenants for a list. Empty fields select all.
type Filter struct {
	State    State
	Waiting  Party
	Template string
	Drift    *bool // has differences, or has none
}

// Listed is a tenant in the list of all, with what other parts know of it. Its target is not read.
type Listed struct {
	*Tenant
	Drift    int       // differences by the last comparison
	Compared time.Time // when that was
	Consented, SignedIn,
	ConsentLost, Lost time.Time // since when the consent, or the sign-in, does not work; zero while it does
	Problem string // why not
	Synced  time.Time
	Active  int // users
}
