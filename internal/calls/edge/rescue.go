package edge

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/sip"
)

// rescue is deferred, with mu held, where a panic would end the process or leave a call that never ends. It ends the
// call in which the panic occurred, and no other. An INVITE without a final response gets 500.
func (c *call) rescue() {
	r := recover()
	if r == nil {
		return
	}
	c.e.panicked(c, r)
	if c.state == over && c.rec == nil {
		return
	}
	defer func() { // ending the call may panic for the same reason
		if r := recover(); r != nil {
			c.e.panicked(c, r)
			if c.rec != nil {
				c.abandon()
			}
		}
	}()
	if c.state == over {
		c.abandon() // the panic occurred while the call was being ended
		return
	}
	c.finish(finish{by: record.Tandem, status: 500, text: internalError, cause: causeTemporaryFailure})
}

// panicked counts and logs a panic.
func (e *Edge) panicked(c *call, r any) {
	e.m.panics.Inc()
	c.log().Error("panic while handling a call; the call was ended", "panic", fmt.Sprint(r), "stack",
		string(debug.Stack()))
}

// abandon ends a call with as little code as possible, because the code that shapes messages cannot be relied on: it
// answers open requests with bare responses and cancels a far INVITE. A later BYE gets 481.
func (c *call) abandon() {
	e := c.e
	c.state = over
	c.uncount()
	c.times = [numTimes]time.Time{}
	if c.timer != nil {
		c.timer.Stop()
	}
	for _, r := range c.pending {
		r.done = true
		e.respond(r.in, sip.NewResponse(r.req, 500, "", ""))
	}
	c.pending = nil
	c.endRefers()
	if c.srv != nil && c.rec.Answer.IsZero() {
		c.rec.Status = 500
		e.respond(c.srv, sip.NewResponse(c.invite, 500, "", c.near.base))
		c.srv.Handle(nil)
		if a := c.try; a != nil && a.tx != nil {
			_ = a.tx.Cancel() // an error means that the final response has arrived; a 2xx gets ACK and BYE
		}
	}
	c.drop()
	c.close(finish{by: record.Tandem, text: internalError, cause: causeTemporaryFailure})
}
