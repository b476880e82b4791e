package web

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
)

// Body says what body an operation takes.
type Body struct {
	Most     int64    // maximum size in bytes
	Types    []string // media types, one JSON object each; none: the operation takes no body
	Optional bool
}

// Read reads the body strictly. It returns nil without an error if there is none and none is needed. Afterwards r.Body
// can be read once more. A body that the operation does not take is refused: it would be dropped silently.
func (b Body) Read(w http.ResponseWriter, r *http.Request) (*strictjson.Node, error) {
	tooLarge := fault.New(fault.TooLarge, CodeBodyTooLarge, "the body is larger than %d bytes; send less at once",
		b.Most)
	if r.ContentLength > b.Most {
		return nil, tooLarge
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, b.Most))
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return nil, tooLarge
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, strictjson.CodeInvalidJSON, "the body could not be read completely")
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	switch {
	case len(b.Types) == 0:
		// Generated clients send an empty object where the body has no content.
		if s := strings.TrimSpace(string(raw)); s != "" && s != "{}" {
			return nil, fault.New(fault.Invalid, CodeUnexpectedBody, "this operation takes no body; leave it out")
		}
		return nil, nil
	case len(raw) == 0 && b.Optional:
		return nil, nil
	case len(raw) == 0:
		return nil, fault.New(fault.Invalid, CodeMissingBody, "the body is missing; send one JSON object")
	}
	if err := b.checkMediaType(r.Header); err != nil {
		return nil, err
	}
	return strictjson.Parse(raw)
}

func (b Body) checkMediaType(h http.Header) error {
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return fault.New(fault.Invalid, CodeUnsupportedMediaType,
			"Content-Encoding %q is not supported; send the body uncompressed", Clip(enc)).At("Content-Encoding")
	}
	t, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || !slices.Contains(b.Types, t) || params["charset"] != "" &&
		!strings.EqualFold(params["charset"], "utf-8") {
		return fault.New(fault.Invalid, CodeUnsupportedMediaType, "Content-Type is %q; send the body as %s",
			Clip(h.Get("Content-Type")), strings.Join(b.Types, " or ")).At("Content-Type")
	}
	return nil
}

// ParseTags parses the value of the header name, If-Match or If-None-Match (RFC 9110 §13.1): "*", or a list of entity
// tags (§8.8.3), which are returned with their quotes and W/. A condition that cannot be parsed is refused: ignoring it
// could overwrite what the caller wanted to protect.
func ParseTags(s, name string) (anyTag bool, list []string, err error) {
	s = strings.TrimSpace(s)
	if s == "*" {
		return true, nil, nil
	}
	if !entityTags.MatchString(s) {
		return false, nil, fault.New(fault.Invalid, CodeInvalidHeader,
			"%s is neither * nor a list of entity tags in double quotes, e.g. \"7\"", name).At(name)
	}
	return false, entityTag.FindAllString(s, -1), nil
}

// An entity tag (RFC 9110 §8.8.3), and a list of them, which may have empty elements (§5.6.1).
var (
	entityTag  = regexp.MustCompile(`(?:W/)?"[^"]*"`)
	entityTags = regexp.MustCompile(`^[, \t]*(?:(?:W/)?"[^"]*"[ \t]*(?:,[, \t]*|$))+$`)
)

// Sealer seals texts that callers keep and send back unchanged.
type Sealer interface {
	SealToken(purpose string, plain []byte) ([]byte, error)
	OpenToken(purpose string, token []byte) ([]byte, error)
}

// SealCursor returns v, the position in a listing, as an opaque text. Purpose names the listing: a cursor of another
// one does not open.
func SealCursor(s Sealer, purpose string, v any) (string, error) {
	sealed, err := s.SealToken(purpose, Encode(v))
	return base64.RawURLEncoding.EncodeToString(sealed), err
}

// Page returns a page of a listing of the management API, of at most limit items (nil: 200), and the cursor of the next
// page, empty for the last one. The page continues at cursor, nil for the first one. list returns at most so many items
// that follow the one with the key after, which is zero at first. Errors: InvalidContinuation, and those of list.
func Page[T, K any](s Sealer, purpose string, limit *int, cursor *string,
	list func(after K, limit int) ([]T, error), key func(T) K) (items []T, next string, err error) {
	n := *cmp.Or(limit, new(200))
	var after K
	if cursor != nil {
		if err := OpenCursor(s, purpose, *cursor, &after); err != nil {
			return nil, "", fault.New(fault.Invalid, CodeInvalidContinuation, "the cursor does not continue this "+
				"listing; use next of the page before exactly as given, or start again").At("cursor").Because(err)
		}
	}
	items, err = list(after, n+1) // one more than the page
	if err == nil && len(items) > n {
		items = items[:n]
		next, err = SealCursor(s, purpose, key(items[n-1]))
	}
	return items, next, err
}

// OpenCursor is the inverse of SealCursor. It fails if the text was changed or is another listing's.
func OpenCursor(s Sealer, purpose, text string, v any) error {
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	plain, err := s.OpenToken(purpose, sealed)
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, v)
}

// Clip limits how much text from a caller goes into logs and messages.
func Clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
