package certificate

import "time"

// SetClock replaces the clock, before the manager is used.
func (m *Manager) SetClock(now func() time.Time) { m.now = now }
