// Package wire is what the clients of other people's HTTP APIs share: an HTTP client that bounds answers and follows no
// redirect, the check of base URLs, the reading of Retry-After, and the one layer that repeats requests ([API.Run]),
// on the pipeline of azcore. It knows no API: what differs are fields of [API].
package wire

import (
	"context"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Client returns a client that sends by base, whose trust roots decide which servers it trusts; nil is
// http.DefaultTransport. An exchange takes at most timeout; a body longer than maxBytes fails to be read. A redirect is
// returned as the answer, never followed: tokens go to the configured host only.
func Client(base http.RoundTripper, timeout time.Duration, maxBytes int64) *http.Client {
	if base == nil {
		base = http.DefaultTransport
	}
	return &http.Client{
		Transport:     bounded{base, maxBytes},
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type bounded struct {
	base     http.RoundTripper
	maxBytes int64
}

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, b.maxBytes)
	return resp, nil
}

// Base parses a base URL without its trailing slash. It must use https; http is accepted on a loopback address only,
// because tokens and secrets are sent there.
func Base(s string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSuffix(s, "/"))
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fault.New(fault.Invalid, "InvalidBaseURL", "%q is not a base URL; write https://host/path", s)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || ip == nil || !ip.IsLoopback()) {
		return nil, fault.New(fault.Invalid, "InvalidBaseURL", "%q does not use https; tokens would be readable", s)
	}
	return u, nil
}

// maxRetryAfter bounds what a Retry-After header can ask for.
const maxRetryAfter = 24 * time.Hour

// RetryAfter reads Retry-After (RFC 9110 §10.2.3) and reports whether it states a wait. Beyond the RFC it accepts what
// Microsoft's services send: decimal seconds, rounded up, and a list, of which the longest wait counts.
func RetryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	var longest time.Duration
	stated := false
	for _, value := range h.Values("Retry-After") {
		if at, err := http.ParseTime(value); err == nil {
			longest, stated = max(longest, at.Sub(now)), true
			continue
		}
		for part := range strings.SplitSeq(value, ",") {
			s, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
			if err != nil || math.IsNaN(s) || s < 0 {
				continue
			}
			s = math.Ceil(min(s, maxRetryAfter.Seconds()))
			longest, stated = max(longest, time.Duration(s)*time.Second), true
		}
	}
	return min(longest, maxRetryAfter), stated
}

// Sleep waits for d, or returns the error of ctx when it ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Clip cuts text from outside to at most most bytes, for messages.
func Clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
