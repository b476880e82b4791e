package transport

// Alive reports whether the flow can still carry messages: always for UDP, while its connection is open otherwise.
func (f Flow) Alive() bool { return f.ep != nil && (f.conn == nil || f.conn.alive()) }

// Same reports whether two flows are the same path: same endpoint and connection, or for UDP same remote address.
func (f Flow) Same(o Flow) bool { return f.ep == o.ep && f.conn == o.conn && f.remote == o.remote }

// Identity returns the key of the local certificate presented on this flow's connection; empty without TLS.
func (f Flow) Identity() string {
	if f.conn == nil {
		return ""
	}
	return f.conn.identity
}

// Name returns the configured name.
func (e *Endpoint) Name() string { return e.cfg.Name }

// Metrics returns the stack's counters.
func (s *Stack) Metrics() *Metrics { return s.m }
