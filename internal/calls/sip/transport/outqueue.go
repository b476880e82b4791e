package transport

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// outQueue is a TCP connection whose Write never waits. What the kernel does not take at once is written by a goroutine that lives while there
// is a rest. A far side that leaves more than the bound unread, or takes nothing for the write time-out, loses the connection.
type outQueue struct {
	*net.TCPConn
	raw   syscall.RawConn
	stack *Stack
	max   int

	mu       sync.Mutex // guards the fields below
	buf      []byte     // not yet given to the flusher
	inHand   int        // bytes the flusher is writing
	flushing bool
	err      error
}

func newOutQueue(nc *net.TCPConn, s *Stack, max int) *outQueue {
	q := &outQueue{TCPConn: nc, stack: s, max: max}
	q.raw, q.err = nc.SyscallConn()
	return q
}

// Write implements io.Writer. An error means that the connection is of no more use.
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
		return 0, q.fail(fmt.Errorf("%d bytes wait: %w", len(q.buf)+q.inHand, ErrSlowPeer))
	}
	q.buf = append(q.buf, rest...)
	if !q.flushing {
		q.flushing = true
		q.stack.wg.Go(q.flush)
	}
	return len(p), nil
}

// try writes what the kernel takes now.
func (q *outQueue) try(p []byte) (n int, err error) {
	werr := q.raw.Write(func(fd uintptr) bool {
		n, err = syscall.Write(int(fd), p)
		return true // whatever came of it: do not wait
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

// fail notes why the connection is of no more use, and closes it; its reader cleans up. q.mu is held.
func (q *outQueue) fail(err error) error {
	q.err = err
	_ = q.TCPConn.Close()
	return err
}

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

// writeAll writes b, giving the far side the write time-out for each piece.
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
