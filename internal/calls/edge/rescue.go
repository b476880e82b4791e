package edge

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/sip"
)

// rescue is deferred, with mu held, where a panic would take the process with it, or leave a call that nobody ends: it ends the call that the panic
// came in, and no other. An INVITE without a final answer gets 500.
func (c *call) rescue() {
	r := recover()
	if r == nil {
		return
	}
	c.e.panicked(c, r)
	if c.state == over && c.rec == nil {
		return
	}
	defer func() { // what was to end the call may panic over the same thing
		if r := recover(); r != nil {
			c.e.panicked(c, r)
			if c.rec != nil {
				c.abandon()
			}
		}
	}()
	if c.state == over {
		c.abandon() // it came while the call was being ended
		return
	}
	c.finish(finish{by: record.Tandem, status: 500, text: "an internal error; the log says more", cause: 41})
}

func (e *Edge) panicked(c *call, r any) {
	e.m.panics.Inc()
	c.log().Error("panic while handling a call; the call was ended", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
}

// abandon ends a call with as little code as can be, as none of what shapes messages may be relied upon: what is open is answered by bare
// responses, a far INVITE is canceled, and who sends BYE will hear that there is no such call.
func (c *call) abandon() {
	e := c.e
	c.state = over
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
			_ = a.tx.Cancel() // an error says that the final answer has come: a 2xx will be hung up on
		}
	}
	c.drop()
	c.close(finish{by: record.Tandem, text: "an internal error; the log says more", cause: 41})
}
