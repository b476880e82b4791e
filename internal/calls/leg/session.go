package leg

import (
	"io"
	"mime"
	"mime/multipart"
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// MinSession is the shortest accepted session interval, in seconds (RFC 4028 §4).
const MinSession = 90

// SessionInterval returns the seconds of a Session-Expires or Min-SE value. ok is false for a malformed value.
func SessionInterval(value string) (seconds uint64, ok bool) {
	text, _, _ := strings.Cut(value, ";")
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	return n, err == nil
}

// atLeastMinSession raises an interval below MinSession to it and keeps the parameters. It returns other values
// unchanged.
func atLeastMinSession(value string) string {
	if n, ok := SessionInterval(value); !ok || n >= MinSession {
		return value
	}
	text, _, _ := strings.Cut(value, ";")
	return strconv.Itoa(MinSession) + value[len(text):]
}

// maxNesting bounds how deep multipart bodies are searched.
const maxNesting = 5

// HasSDP reports whether m carries a session description: a body of type application/sdp that is not empty and whose
// Content-Disposition is "session" or absent (RFC 3261 §20.11), alone or as a part of a multipart body (RFC 5621 §3).
func HasSDP(m *sip.Message) bool {
	return hasSDP(m.Get(sip.KindContentType), m.Get(sip.KindContentDisposition), m.Body(), maxNesting)
}

func hasSDP(contentType, disposition, body string, depth int) bool {
	if contentType == "application/sdp" && disposition == "" {
		return strings.TrimSpace(body) != ""
	}
	media, params, _ := mime.ParseMediaType(contentType) // a malformed parameter leaves the type readable
	switch {
	case media == "application/sdp":
		kind, _, _ := strings.Cut(disposition, ";")
		kind = strings.TrimSpace(kind)
		return strings.TrimSpace(body) != "" && (kind == "" || strings.EqualFold(kind, "session"))
	case !strings.HasPrefix(media, "multipart/") || params["boundary"] == "" || depth == 0:
		return false
	}
	parts := multipart.NewReader(strings.NewReader(body), params["boundary"])
	for {
		p, err := parts.NextRawPart()
		if err != nil {
			return false
		}
		text, err := io.ReadAll(p)
		if err == nil && hasSDP(p.Header.Get("Content-Type"), p.Header.Get("Content-Disposition"),
			string(text), depth-1) {
			return true
		}
	}
}
