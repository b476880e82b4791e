package manage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Limits of event streams; the contract states them.
const (
	maxStreams   = 64               // of one node
	streamPage   = 100              // events read and written at once
	streamWrite  = 10 * time.Second // for a client to take what was written
	streamSilent = 15 * time.Second // until a comment shows that the stream is alive
	streamAge    = time.Hour        // the client's token may have expired or been revoked meanwhile
)

// EventLog is what streams read; see events.Log.
type EventLog interface {
	Head(ctx context.Context) (feed.Cursor, error)
	Read(ctx context.Context, after feed.Cursor, all bool, limit int) ([]api.Event, feed.Cursor, error)
	Wait(ctx context.Context, after feed.Position) error
}

// Streams serves the event log as server-sent events. It is safe for concurrent use.
type Streams struct {
	log      EventLog
	draining context.Context
	drain    context.CancelFunc
	slots    chan struct{} // one value for each open stream
	ended    *prometheus.CounterVec
}

// NewStreams returns the streams of log.
func NewStreams(log EventLog, reg prometheus.Registerer) *Streams {
	s := &Streams{log: log, slots: make(chan struct{}, maxStreams),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_manage_event_streams_ended_total",
			Help: "Event streams that ended, by reason: client, it disconnected; slow, it did not take what was " +
				"sent; age, after an hour; drain; failed, the log could not be read."}, []string{"reason"})}
	s.draining, s.drain = context.WithCancel(context.Background())
	reg.MustRegister(s.ended, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tandem_manage_event_streams",
		Help: "Event streams that clients have open."}, func() float64 { return float64(len(s.slots)) }))
	return s
}

// Drain ends all streams, each after a complete event, and refuses new ones.
func (s *Streams) Drain(context.Context) error {
	s.drain()
	return nil
}

// stream is one client's stream: the answer of FollowEvents.
type stream struct {
	s    *Streams
	ctx  context.Context // of the request
	all  bool
	page []api.Event // not written yet
	next feed.Cursor
	said string // the last id that the client has
}

// FollowEvents is the operation of that name. Restricted events are for administrators only.
func (s *Streams) FollowEvents(ctx context.Context,
	r api.FollowEventsRequestObject) (_ api.FollowEventsResponseObject, err error) {
	x := &stream{s: s, ctx: ctx, all: ctx.Value(adminKey{}) == true, said: r.Params.LastEventID}
	if x.said == "" {
		x.next, err = s.log.Head(ctx)
		x.page = []api.Event{{ID: events.ID(x.next), Time: time.Now().UTC(), Kind: "stream.start"}}
	} else if x.next, err = events.ParseID(x.said); err == nil {
		x.page, x.next, err = s.log.Read(ctx, x.next, x.all, streamPage)
	}
	if err != nil {
		return nil, err
	}
	if s.draining.Err() != nil {
		return nil, fault.New(fault.Unavailable, "ShuttingDown", "this node is shutting down; use another one").
			After(time.Second)
	}
	select {
	case s.slots <- struct{}{}:
		return x, nil
	default:
		return nil, fault.New(fault.Unavailable, "TooManyStreams",
			"this node already serves %d event streams, its maximum; use another node or try again later", maxStreams).
			After(10 * time.Second)
	}
}

// VisitFollowEventsResponse writes the stream until it ends, and the connection with it.
func (x *stream) VisitFollowEventsResponse(w http.ResponseWriter) error {
	reason := "failed" // also of a panic
	rc := http.NewResponseController(w)
	defer func() {
		_ = rc.SetWriteDeadline(time.Now().Add(streamWrite)) // for the end of the answer
		x.s.ended.WithLabelValues(reason).Inc()
		<-x.s.slots
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Connection", "close") // its deadlines are no longer those of the server
	w.WriteHeader(http.StatusOK)

	age, cancel := context.WithTimeout(x.ctx, streamAge)
	defer cancel()
	defer context.AfterFunc(x.s.draining, cancel)()
	// Otherwise the server would take a client that has nothing to say for a disconnected one.
	_ = rc.SetReadDeadline(time.Time{})

	var err error
	for wrote := (time.Time{}); err == nil; {
		if text := x.text(time.Since(wrote)); len(text) > 0 {
			wrote = time.Now()
			_ = rc.SetWriteDeadline(wrote.Add(streamWrite)) // replaces that of the whole answer
			if _, err = w.Write(text); err == nil {
				err = rc.Flush()
			}
		}
		if err == nil {
			err = x.s.log.Wait(age, x.next.Position)
		}
		if err == nil {
			x.page, x.next, err = x.s.log.Read(age, x.next, x.all, streamPage)
		}
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = "slow"
	case x.ctx.Err() != nil:
		reason = "client"
	case x.s.draining.Err() != nil:
		reason = "drain"
	case age.Err() != nil:
		reason = "age"
	default:
		return err
	}
	return nil
}

// text returns what is to be written after a silence: events, else a comment if it was long.
func (x *stream) text(silence time.Duration) []byte {
	var out bytes.Buffer
	for i := range x.page {
		data, err := json.Marshal(&x.page[i])
		if err != nil {
			panic(err) // it was stored as JSON
		}
		x.said = x.page[i].ID
		fmt.Fprintf(&out, "id: %s\ndata: %s\n\n", x.said, data)
	}
	if id := events.ID(x.next); out.Len() == 0 && silence >= streamSilent && id != x.said {
		x.said = id // past restricted events
		fmt.Fprintf(&out, "id: %s\n\n", id)
	} else if out.Len() == 0 && silence >= streamSilent {
		out.WriteString(":\n\n")
	}
	return out.Bytes()
}

// adminKey is the key of whether a request has the role Management.Admin, in its context.
type adminKey struct{}
