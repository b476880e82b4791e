package replica

// View returns the index, or nil if none was ever loaded.
func (r *Replica) View() *View { return r.view.Load() }
