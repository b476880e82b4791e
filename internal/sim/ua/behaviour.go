package ua

import (
	"context"
	"strconv"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Behaviour is what an agent does with an incoming call. The zero value rings once and answers.
type Behaviour struct {
	Silent bool          `yaml:"silent"` // send no response at all
	Delay  time.Duration `yaml:"delay"`  // wait before anything but 100 is sent

	Status     int           `yaml:"status"`      // refuse with this status instead of answering
	Reason     string        `yaml:"reason"`      // reason phrase of the refusal
	RetryAfter time.Duration `yaml:"retry_after"` // Retry-After of the refusal, whole seconds; none if 0
	// close the TCP or TLS connection after the refusal, or instead of the lost final response
	Drop bool `yaml:"drop"`

	NoRinging  bool          `yaml:"no_ringing"`  // no 180
	Forks      int           `yaml:"forks"`       // number of early dialogs, each with its own To tag; 1 if 0
	EarlyMedia bool          `yaml:"early_media"` // 183 with a session description, after the 180s
	Ring       time.Duration `yaml:"ring"`        // how long it rings before the answer or the refusal
	NoAnswer   bool          `yaml:"no_answer"`   // ring until the caller cancels
	LostAnswer bool          `yaml:"lost_answer"` // ring, then send nothing more: the final response is lost
	HangUp     time.Duration `yaml:"hang_up"`     // send BYE this long after the answer; never if 0

	Headers []Header `yaml:"-"` // added to every response except 100
	Body    string   `yaml:"-"` // session description of 183 and 200; a plain one if empty
}

// reasons are the phrases of the statuses that the simulators use.
var reasons = map[int]string{302: "Moved Temporarily", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
	408: "Request Timeout", 410: "Gone", 416: "Unsupported URI Scheme", 480: "Temporarily Unavailable",
	482: "Loop Detected", 484: "Address Incomplete", 486: "Busy Here", 487: "Request Terminated",
	488: "Not Acceptable Here", 500: "Server Internal Error", 503: "Service Unavailable", 504: "Server Time-out",
	603: "Decline"}

// ReasonPhrase returns the usual phrase of a status.
func ReasonPhrase(status int) string {
	if r, ok := reasons[status]; ok {
		return r
	}
	return "Status " + strconv.Itoa(status)
}

// Play handles the call as b says. It returns the call once the answer is acknowledged, and nil if the call was not
// answered. A hang-up set in b follows by itself.
func (in *Incoming) Play(ctx context.Context, b Behaviour) (*Call, error) {
	if b.Silent {
		return nil, nil
	}
	if err := in.Reply(100, "Trying", Answer{}); err != nil {
		return nil, err
	}
	if !in.pause(ctx, b.Delay) {
		return nil, nil
	}
	if b.Body == "" {
		b.Body = SDP(in.a.cfg.Name, 1)
	}
	if !b.NoRinging && (b.Status == 0 || b.Ring > 0) {
		for i := range max(1, b.Forks) {
			x := Answer{Headers: b.Headers}
			if i > 0 {
				x.Tag = sip.GenerateTagN(10)
			}
			if err := in.Reply(180, "Ringing", x); err != nil {
				return nil, err
			}
		}
	}
	if b.EarlyMedia {
		if err := in.Reply(183, "Session Progress", Answer{Body: b.Body, Headers: b.Headers}); err != nil {
			return nil, err
		}
	}
	if b.NoAnswer {
		select {
		case <-in.cancelled:
		case <-ctx.Done():
		}
		return nil, nil
	}
	if !in.pause(ctx, b.Ring) {
		return nil, nil
	}
	if b.LostAnswer {
		if b.Drop {
			in.a.DropConnection(in.Invite.Remote)
		}
		return nil, nil
	}
	if b.Status != 0 {
		if b.Reason == "" {
			b.Reason = ReasonPhrase(b.Status)
		}
		x := Answer{Headers: append([]Header(nil), b.Headers...)}
		if b.RetryAfter > 0 {
			x.Headers = append(x.Headers, Header{"Retry-After", strconv.Itoa(int(b.RetryAfter / time.Second))})
		}
		err := in.Reply(b.Status, b.Reason, x)
		if b.Drop {
			in.a.linger(in.tx, in.transport)
			in.a.DropConnection(in.Invite.Remote)
		}
		return nil, err
	}
	c, err := in.Accept(ctx, Answer{Body: b.Body, Headers: b.Headers})
	if err != nil || c == nil || b.HangUp <= 0 {
		return c, err
	}
	if in.a.begin() != nil {
		return c, nil
	}
	go func() {
		defer in.a.work.Done()
		t := time.NewTimer(b.HangUp)
		defer t.Stop()
		select {
		case <-t.C:
			_, _ = c.Bye(ctx) // the result is visible in the log
		case <-c.ended:
		case <-ctx.Done():
		}
	}()
	return c, nil
}

// pause waits. It reports whether the call still exists.
func (in *Incoming) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-in.cancelled:
		return false
	case <-ctx.Done():
		return false
	}
}

// SDP returns a plain session description (G.711, RFC 4733 events) with a version, which grows with every change of the
// session (RFC 3264 §8).
func SDP(name string, version int) string {
	return "v=0\r\no=" + user(name) + " 4711 " + strconv.Itoa(version) +
		" IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n" +
		"m=audio 16384 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n" +
		"a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
}

// user makes a name valid in SDP's o= line.
func user(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c <= ' ' || c >= 0x7f {
			b[i] = '-'
		}
	}
	if len(b) == 0 {
		return "-"
	}
	return string(b)
}
