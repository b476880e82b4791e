package transaction

import "github.com/tandemgw/tandem/internal/calls/sip"

type eventKind uint8

const (
	evRequest eventKind = iota
	evResponse
	evCancel
	evAck
	evFailed
)

// event is one callback to be made.
type event struct {
	kind eventKind
	msg  *sip.Message
	err  error
}

// box keeps a transaction's callbacks in order and one at a time, without a goroutine of its own: the first caller
// makes the callbacks, its own and those that others add meanwhile. The transaction's mutex guards it.
type box struct {
	queue *[]event // nil while no goroutine makes callbacks
}

// noEvents is the queue while callbacks are made and no others wait. It is never written to.
var noEvents []event

// put adds an event and reports whether the caller must now make the callbacks.
func (b *box) put(e event) bool {
	switch b.queue {
	case nil:
		b.queue = &noEvents
		return true
	case &noEvents:
		b.queue = &[]event{e}
	default:
		*b.queue = append(*b.queue, e)
	}
	return false
}

// next returns the next event; if there is none it ends the caller's turn and returns false.
func (b *box) next() (event, bool) {
	if len(*b.queue) == 0 {
		b.queue = nil
		return event{}, false
	}
	e := (*b.queue)[0]
	*b.queue = (*b.queue)[1:]
	return e, true
}

// post makes the callback for e now or leaves it to the goroutine that is making callbacks. c.mu is held on entry and
// released on return.
func (c *Client) post(e event) {
	if c.h == nil {
		c.mu.Unlock()
		return
	}
	mine := c.box.put(e)
	c.mu.Unlock()
	for mine {
		c.call(e)
		c.mu.Lock()
		e, mine = c.box.next()
		c.mu.Unlock()
	}
}

func (c *Client) call(e event) {
	defer c.layer.recovered()
	c.mu.Lock()
	h := c.h
	c.mu.Unlock()
	if e.kind == evFailed {
		h.Failed(c, e.err)
		return
	}
	h.Response(c, e.msg)
}
