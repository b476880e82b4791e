package transport

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// outQueue is a TCP connection whose Write never blocks. Data that the kernel does not accept at once is queued and
// written by a goroutine that runs while the queue is not empty. If the far side leaves more than the bound unread, or
// accepts nothing for the write time-out, the connection is closed.
type outQueue struct {
	*net.TCPConn
	raw   syscall.RawConn
	stack *Stack
	max   int

	mu       sync.Mutex // guards the fields below
	buf      []byte     // not yet passed to the flusher
	inHand   int        // bytes that the flusher is writing
	flushing bool
	err      error
}

func newOutQueue(nc *net.TCPConn, s *Stack, max int) *outQueue {
	q := &outQueue{TCPConn: nc, stack: s, max: max}
	q.raw, q.err = nc.SyscallConn()
	return q
}

// Write implements io.Writer. After an error the connection is unusable.
func (q *outQueue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return 0, q.err
	}
	rest := p
	if !q.flushing {
		n, err := q.try(p)
		if err != nil {
			return 0, q.fail(err)
		}
		if rest = p[n:]; len(rest) == 0 {
			return len(p), nil
		}
	}
	if len(q.buf)+q.inHand+len(rest) > q.max {
		q.stack.m.SlowPeers.Add(1)
		return 0, q.fail(fmt.Errorf("%d bytes queued: %w", len(q.buf)+q.inHand, ErrSlowPeer))
	}
	q.buf = append(q.buf, rest...)
	if !q.flushing {
		q.flushing = true
		q.stack.wg.Go(q.flush)
	}
	return len(p), nil
}

// try writes what the kernel accepts at once.
func (q *outQueue) try(p []byte) (n int, err error) {
	werr := q.raw.Write(func(fd uintptr) bool {
		n, err = syscall.Write(int(fd), p)
		return true // whatever the result: do not wait
	})
	switch {
	case werr != nil:
		return 0, werr
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return n, nil
}

// fail records why the connection is unusable and, unless the far side has done so, closes it; its reader cleans up.
// q.mu is held.
func (q *outQueue) fail(err error) error {
	q.err = err
	if !gone(err) {
		_ = q.TCPConn.Close()
	}
	return err
}

// gone reports whether a write failed because the far side has closed the connection. What it sent before, such as a
// TLS alert that says why, is still to be read; the reader gets that and then the end.
func gone(err error) bool { return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) }

func (q *outQueue) flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.buf) > 0 && q.err == nil {
		b := q.buf
		q.buf, q.inHand = nil, len(b)
		q.mu.Unlock()
		err := q.writeAll(b)
		q.mu.Lock()
		q.inHand = 0
		if err != nil && q.err == nil {
			q.stack.m.SlowPeers.Add(1)
			_ = q.fail(fmt.Errorf("%w: %w", ErrSlowPeer, err))
		}
	}
	q.flushing = false
}

// writeAll writes b in pieces, with the write time-out for each.
func (q *outQueue) writeAll(b []byte) error {
	for len(b) > 0 {
		piece := b[:min(len(b), 64<<10)]
		if err := q.TCPConn.SetWriteDeadline(time.Now().Add(q.stack.cfg.WriteTimeout)); err != nil {
			return err
		}
		n, err := q.TCPConn.Write(piece)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
