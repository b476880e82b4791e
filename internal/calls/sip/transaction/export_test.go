package transaction

import (
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// Branch returns the branch of the request's Via.
func (c *Client) Branch() string { return c.branch }

// Flow returns the flow of the latest response, or that of the request before there is one.
func (c *Client) Flow() transport.Flow {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flow
}

// Request returns the request, nil once it has its final response.
func (s *Server) Request() *sip.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.req
}

// Metrics returns the layer's counters.
func (l *Layer) Metrics() *Metrics { return l.m }

// Live returns the number of transactions held.
func (l *Layer) Live() int { return int(l.live.Load()) }
