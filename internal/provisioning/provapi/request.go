package provapi

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

// readQuery parses and checks the query: the api-version, then that the operation has every parameter and none is
// repeated.
func (c *call) readQuery() error {
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return invalid(web.CodeInvalidURI, "", "the query has an invalid percent-encoding or a semicolon")
	}
	v := q["api-version"]
	switch {
	case len(v) == 0 || len(v) == 1 && v[0] == "":
		return invalid(CodeMissingAPIVersion, "api-version", "the query parameter api-version is missing; add "+
			"api-version=%s", Version)
	case len(v) > 1:
		return invalid(web.CodeInvalidParameter, "api-version", "api-version is given %d times; give it once", len(v))
	case v[0] != Version:
		return invalid(CodeUnsupportedAPIVersion, "api-version", "api-version %q is not supported; use one of %s",
			web.Clip(v[0]), Version)
	}
	c.query = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(q)) { // the same request gets the same answer
		if name == "api-version" {
			continue
		}
		if !slices.Contains(c.op.query, name) {
			hint := "it takes only api-version"
			if known := slices.DeleteFunc(slices.Clone(c.op.query),
				func(s string) bool { return s == continuation }); len(known) > 0 {
				hint = "it takes api-version, " + strings.Join(known, ", ")
			}
			return invalid(web.CodeUnknownParameter, web.Clip(name), "this operation has no query parameter %q; %s",
				web.Clip(name), hint)
		}
		if len(q[name]) > 1 {
			return invalid(web.CodeInvalidParameter, name, "%s is given %d times; give it once", name, len(q[name]))
		}
		c.query[name] = q[name][0]
	}
	return nil
}

// integer parses an int32 parameter, which is otherwise if it is absent.
func (c *call) integer(name string, least, otherwise int) (int, error) {
	s, given := c.query[name]
	if !given {
		return otherwise, nil
	}
	v, err := strconv.ParseInt(s, 10, 32)
	if err != nil || v < int64(least) || strings.HasPrefix(s, "+") {
		return 0, invalid(web.CodeInvalidParameter, name, "%s is %q; give a whole number from %d to 2147483647",
			name, web.Clip(s), least)
	}
	return int(v), nil
}

func (c *call) boolean(name string) (bool, error) {
	s, given := c.query[name]
	switch {
	case !given || s == "false":
		return false, nil
	case s == "true":
		return true, nil
	}
	return false, invalid(web.CodeInvalidParameter, name, "%s is %q; give true or false", name, web.Clip(s))
}

// header returns the value of a header that may appear once.
func (c *call) header(name string) (value string, given bool, err error) {
	l := c.r.Header.Values(name)
	switch len(l) {
	case 0:
		return "", false, nil
	case 1:
		return strings.TrimSpace(l[0]), true, nil
	}
	return "", true, invalid(web.CodeInvalidHeader, name, "the header %s appears %d times; send it once", name, len(l))
}

// date parses a header with a time, or returns nil if it is absent. The contract's document shows RFC 3339, while its
// type's default encoding and RFC 9110 use HTTP dates: both are accepted.
func (c *call) date(name string) (*time.Time, error) {
	s, given, err := c.header(name)
	if err != nil || !given {
		return nil, err
	}
	t, err := parseDate(s)
	if err != nil {
		return nil, invalid(web.CodeInvalidHeader, name,
			"%s is not a date; write e.g. Tue, 05 Mar 2024 10:00:00 GMT", name)
	}
	return &t, nil
}

func parseDate(s string) (time.Time, error) {
	if t, err := http.ParseTime(s); err == nil {
		return t.UTC(), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t.UTC(), err
}

var conditionHeaders = []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"}

// readHeaders reads the client's request id and the conditions (RFC 9110 §13.1). A condition that cannot be parsed is
// refused: ignoring it could overwrite what the caller wanted to protect.
func (c *call) readHeaders() error {
	if id, given, err := c.header("x-ms-client-request-id"); err != nil || given && !web.Opaque(id) {
		return invalid(web.CodeInvalidHeader, "x-ms-client-request-id",
			"x-ms-client-request-id must be one id of 1 to 128 visible characters; send a GUID")
	}
	if !c.op.conditional {
		// A listing or an action has no entity tag. A condition on a read then has no effect; one on a write was meant
		// to protect something.
		if c.op.method != http.MethodGet {
			for _, h := range conditionHeaders {
				if len(c.r.Header.Values(h)) > 0 {
					return invalid(CodeConditionUnsupported, h, "%s is not supported: the operation has no "+
						"entity tag to compare with; leave it out", h)
				}
			}
		}
		return nil
	}
	var errs [4]error
	cond := &c.carried.Condition
	cond.IfMatch, errs[0] = c.tags("If-Match")
	cond.IfNoneMatch, errs[1] = c.tags("If-None-Match")
	cond.IfModifiedSince, errs[2] = c.date("If-Modified-Since")
	cond.IfUnmodifiedSince, errs[3] = c.date("If-Unmodified-Since")
	return cmp.Or(errs[:]...)
}

// tags parses a list of entity tags.
func (c *call) tags(name string) (directory.Tags, error) {
	values := c.r.Header.Values(name)
	if len(values) == 0 {
		return directory.Tags{}, nil
	}
	anyTag, list, err := web.ParseTags(strings.Join(values, ","), name)
	return directory.Tags{Any: anyTag, List: list}, err
}

// readRepeatability reads the two headers that make a request repeatable (OASIS Repeatable Requests 1.0 §2). Both must
// be sent; a pair that cannot be honoured is answered 412 with Repeatability-Result: rejected. The directory, which
// keeps the answers, checks whether first-sent is in range. The headers are ignored on reads, which are repeatable
// anyway.
func (c *call) readRepeatability() error {
	if c.op.method == http.MethodGet {
		return nil
	}
	const idName, sentName = "Repeatability-Request-ID", "Repeatability-First-Sent"
	refuse := func(target, format string, args ...any) error {
		return fault.New(fault.Precondition, directory.CodeRepeatabilityInvalid, format, args...).At(target)
	}
	ids, sents := c.r.Header.Values(idName), c.r.Header.Values(sentName)
	switch {
	case len(ids) == 0 && len(sents) == 0:
		return nil
	case len(ids) != 1 || !web.Opaque(ids[0]):
		return refuse(idName, "%s must appear once, with 1 to 128 visible characters, together with %s",
			idName, sentName)
	case len(sents) != 1:
		return refuse(sentName, "%s must appear once, together with %s", sentName, idName)
	}
	sent, err := parseDate(strings.TrimSpace(sents[0]))
	if err != nil {
		return refuse(sentName, "%s is not a date; write e.g. Tue, 05 Mar 2024 10:00:00 GMT", sentName)
	}
	c.carried.Once = &directory.Once{Scope: c.caller.ID, ID: ids[0], FirstSent: sent, Digest: c.digest()}
	return nil
}

// digest identifies the request: method, operation, names, parameters, conditions and body. The body counts by its
// content, not its spelling: a client that builds it again may order members differently.
func (c *call) digest() [sha256.Size]byte {
	h := sha256.New()
	put := func(parts ...string) {
		for _, p := range parts {
			_, _ = fmt.Fprintf(h, "%d:%s", len(p), p) // a hash does not fail
		}
	}
	put(c.op.method, c.op.path, c.vars.account, string(c.vars.number), c.vars.address, c.vars.tenant)
	for _, name := range c.op.query {
		put(name, c.query[name])
	}
	for _, name := range conditionHeaders {
		put(strings.Join(c.r.Header.Values(name), ","))
	}
	c.body.Canonical(h)
	return [sha256.Size]byte(h.Sum(nil))
}
