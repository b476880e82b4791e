package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
)

const (
	eventSilence  = 45 * time.Second // longest silence of an event stream; the server sends something every 15 seconds
	maxEventBytes = 1 << 20          // longest line of a stream
	eventStream   = "text/event-stream"
)

// Errors of readEvents.
var (
	errStopped = errors.New("client: the reader has stopped")
	errLost    = errors.New("client: the event stream ended")
	errSilent  = fmt.Errorf("client: nothing arrived for %v", eventSilence)
)

// Events returns the events after the one with the ID since, in order, until ctx is done. With an empty since it begins
// with an event of kind "stream.start", whose ID is the present place; state that is read after that event is complete
// up to the events that follow it.
//
// After a lost connection the sequence continues on a new one without leaving out or repeating an event; to continue in
// another process, store the ID of the last event. The sequence ends with an error if the server refuses the request,
// or cannot be reached at first. An *Error with the code "resync" means that events after since are missing: read the
// state again, as after a start.
func (c *Client) Events(ctx context.Context, since string) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		reader := *c
		r := request{method: http.MethodGet, path: "/manage/v1/events", header: http.Header{}}
		r.header.Set("Accept", eventStream+", application/problem+json")
		r.stream = func(body io.Reader, alive func()) error {
			reader.o.Attempts, reader.o.Waiting = math.MaxInt, nil // reached once: reconnect without limit
			return readEvents(body, &since, yield, alive)
		}
		for {
			if since != "" {
				r.header.Set("Last-Event-ID", since)
			}
			_, err := reader.do(ctx, r, nil)
			switch {
			case errors.Is(err, errStopped) || ctx.Err() != nil:
				return
			case !errors.Is(err, errLost):
				yield(api.Event{}, err)
				return
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// readEvents parses a stream (HTML standard, section 9.2.6) and passes events on. It calls alive for each line. since
// is always the last id of a complete block.
func readEvents(r io.Reader, since *string, yield func(api.Event, error) bool, alive func()) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxEventBytes)
	afterCR := false
	s.Split(func(p []byte, _ bool) (int, []byte, error) {
		skip := 0
		if afterCR && len(p) > 0 && p[0] == '\n' { // the second half of CR LF
			skip = 1
		}
		n := bytes.IndexAny(p[skip:], "\r\n")
		if n < 0 {
			return 0, nil, nil // an incomplete line at the end is dropped
		}
		end := skip + n
		afterCR = p[end] == '\r'
		return end + 1, p[skip:end], nil
	})
	id, data := *since, []byte(nil)
	for s.Scan() {
		alive()
		name, value, _ := bytes.Cut(bytes.TrimPrefix(s.Bytes(), []byte("\ufeff")), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(s.Bytes()) == 0:
			*since = id
			if len(data) == 0 {
				continue
			}
			var e api.Event
			if err := json.Unmarshal(data, &e); err != nil {
				return fmt.Errorf("event %s does not match the contract: %w", id, err)
			}
			data = nil
			if !yield(e, nil) {
				return errStopped
			}
		case string(name) == "id" && !bytes.ContainsRune(value, 0):
			id = string(value)
		case string(name) == "data" && len(data) < maxEventBytes:
			data = append(append(data, value...), '\n')
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("an event after %s is longer than %d bytes", *since, maxEventBytes)
	}
	return errLost
}
