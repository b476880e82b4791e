package teamsadmin_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// token is a token that is never refused.
type token struct{ t *testing.T }

func (k token) Token(context.Context) (secret.Text, error) { return secret.New("the token"), nil }
func (k token) Refused(secret.Text, string)                { k.t.Error("token refused") }
func (k token) Forbidden(secret.Text) bool                 { return false }

// inMemory serves requests without a network, so that a test can run in a bubble.
type inMemory struct{ handler http.Handler }

func (m inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	m.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

const discovery = `{"Endpoints":{"ConfigApiEndpoint":"config.example","AdminServiceEndpoint":"admin.example"},` +
	`"Headers":{"X-MS-Forest":"1a"}}`

// strict answers the discovery and, by path and query, what is given, and refuses what teams-tenant §4 does not allow.
func strict(t *testing.T, answers map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		routed := r.Header.Get("X-MS-Target-Uri") == "https://admin.example/" && r.Header.Get("X-MS-Forest") == "1a"
		if r.URL.Path == "/Teams.Tenant/serviceDiscovery" {
			_, _ = io.WriteString(w, cmp.Or(answers[r.URL.Path], discovery))
			return
		}
		if !routed || r.Header.Get("Authorization") != "Bearer the token" || r.UserAgent() != "Tandem/1" ||
			r.Header.Get("X-MS-Correlation-Id") == "" || r.Header.Get("X-MS-CmdletName") != "" ||
			r.Header.Get("X-Requested-With") != "" {
			t.Errorf("%s %s with %v", r.Method, r.URL, r.Header)
		}
		answer, ok := answers[r.URL.RequestURI()]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, answer)
	})
}

func client(t *testing.T, base string, transport http.RoundTripper) *teamsadmin.Client {
	t.Helper()
	c, err := teamsadmin.New(teamsadmin.Config{Enabled: true, BaseURL: base, Tokens: token{t}, UserAgent: "Tandem/1",
		Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	usagesPath = "/Skype.Policy/configurations/OnlinePstnUsages"
	usersPath  = "/Teams.User/users"
)

// An answer that is not understood is never an empty list: it would have everything made again.
func TestAnswersThatAreNotUnderstood(t *testing.T) {
	for _, c := range []struct{ path, answer string }{
		{"/Teams.Tenant/serviceDiscovery", `{}`}, {"/Teams.Tenant/serviceDiscovery", `[]`},
		{"/Teams.Tenant/serviceDiscovery", `{"Endpoints":{"AdminServiceEndpoint":"http://evil.example/?x"}}`},
		{"/Teams.Tenant/serviceDiscovery", strings.Replace(discovery, "1a", `1\r\nX: y`, 1)},
		{usagesPath, `null`}, {usagesPath, `{}`}, {usagesPath, `{"value":[]}`}, {usagesPath, `[{}]`},
		{usagesPath, `<html>`}, {usagesPath, ``}, {usagesPath, `[{"Identity":"Global"}]`},
		{usagesPath, `[{"Identity":"Global","Usage":"x"}]`}, {usagesPath, `[{"Identity":"Global","Usage":[1]}]`},
		{usersPath, `[]`}, {usersPath, `{}`}, {usersPath, `{"users":null}`}, {usersPath, `{"users":{}}`},
		{usersPath, `{"value":[]}`}, {"/Teams.Tenant/VerifiedSipDomains", `[{"domain":"x"}]`},
		{"/Skype.Policy/groupPolicyAssignments", `null`},
	} {
		admin := client(t, "", inMemory{strict(t, map[string]string{c.path: c.answer})})
		ctx := t.Context()
		var err error
		switch c.path {
		case usersPath:
			_, err = admin.Users(ctx)
		case "/Teams.Tenant/VerifiedSipDomains":
			_, err = admin.SIPDomains(ctx)
		case "/Skype.Policy/groupPolicyAssignments":
			_, err = admin.GroupGrants(ctx)
		default:
			_, err = admin.Usages(ctx)
		}
		want(t, c.path+" "+c.answer, err, fault.Unavailable, teamsadmin.CodeUnreadable, "PowerShell worker")
	}
}

// The answers of other people's tools: more members, other case, pages of users, no usages yet.
func TestAnswersThatAreUnderstood(t *testing.T) {
	admin := client(t, "", inMemory{strict(t, map[string]string{
		usagesPath: `[{"Identity":"Global","Usage":null,"Other":1}]`,
		usersPath: `{"users":[{"ObjectId":"u","effectivePolicyAssignments":[{"policyType":"TenantDialPlan",
			"policyAssignment":{"displayName":"X","assignmentType":"Direct","groupId":null}}]}],"skipToken":"x+y/="}`,
		usersPath + "?skipToken=x%2By%2F%3D": `{"users":[{"objectId":"v"}],"skipToken":null}`})})
	if usages, err := admin.Usages(t.Context()); err != nil || len(usages) != 0 {
		t.Errorf("Usages = %q, %v", usages, err)
	}
	users, err := admin.Users(t.Context())
	if err != nil || len(users) != 2 || users[1].ID != "v" || users[0].ID != "u" ||
		users[0].Policies[0].Assignment.Policy != "X" ||
		users[0].Policies[0].Assignment.GroupID != "" {
		t.Errorf("Users = %+v, %v", users, err)
	}
}

func TestEndlessPages(t *testing.T) {
	n := 0
	admin := client(t, "", inMemory{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "serviceDiscovery") {
			_, _ = io.WriteString(w, discovery)
			return
		}
		n++
		_, _ = fmt.Fprintf(w, `{"users":[{"objectId":"a"}],"skipToken":"%d"}`, n)
	})})
	_, err := admin.Users(t.Context())
	want(t, "endless pages", err, fault.Unavailable, teamsadmin.CodeUnreadable, "no last page")
}

// The form of the list modifier is an assumption: that it is ignored, or understood as the new list, is noticed.
func TestModifierIsMisunderstood(t *testing.T) {
	for _, c := range []struct{ after, code, text string }{
		{`["Foreign-1","Foreign-2"]`, teamsadmin.CodeNotReady, "not visible"},
		{`["Tandem"]`, teamsadmin.CodeUsagesLost, `"Foreign-1" "Foreign-2"`},
		{`["foreign-1","Tandem"]`, teamsadmin.CodeUsagesLost, `["Foreign-2"]`},
	} {
		synctest.Test(t, func(t *testing.T) {
			list, puts := `["Foreign-1","Foreign-2"]`, 0
			admin := client(t, "", inMemory{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasSuffix(r.URL.Path, "serviceDiscovery"):
					_, _ = io.WriteString(w, discovery)
				case r.Method == http.MethodPut:
					list = c.after
					puts++
					body, _ := io.ReadAll(r.Body)
					if string(body) != `{"Usage":{"Add":["Tandem"]}}` { // no Key was read
						t.Errorf("sent %s", body)
					}
				default:
					_, _ = io.WriteString(w, `[{"Identity":"Global","Usage":`+list+`}]`)
				}
			})})
			err := admin.AddUsages(t.Context(), "Tandem")
			f := fault.As(err)
			if f == nil || f.Code != c.code || !strings.Contains(f.Message, c.text) || puts != 1 {
				t.Errorf("AddUsages = %v after %d changes, want %s with %s", err, puts, c.code, c.text)
			}
		})
	}
}

// Where the tenant's part of the service is, is asked once an hour.
func TestDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		served := strict(t, map[string]string{usagesPath: `[{"Identity":"Global","Usage":["a"]}]`})
		admin := client(t, "", inMemory{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "serviceDiscovery") {
				asked++
			}
			served.ServeHTTP(w, r)
		})})
		for range 5 { // at 0, 25, 50, 75 and 100 minutes
			if usages, err := admin.Usages(t.Context()); err != nil || len(usages) != 1 {
				t.Errorf("Usages = %q, %v", usages, err)
			}
			time.Sleep(25 * time.Minute) // of the bubble
		}
		if asked != 2 {
			t.Errorf("asked %d times, want 2", asked)
		}
	})
}

// Reads are tried five times, with a back-off that doubles.
func TestTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		admin := client(t, "", inMemory{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			at = append(at, time.Since(began))
			w.Header().Set("X-MS-Correlation-Id", "theirs")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"Message":"busy"}`)
		})})
		_, err := admin.Usages(t.Context())
		f := fault.As(err)
		if f.Kind != fault.Unavailable || f.RetryAfter <= 0 || !strings.Contains(f.Message, "busy") ||
			!strings.Contains(f.Message, "theirs") {
			t.Errorf("Usages = %v", err)
		}
		if len(at) != 5 || at[4] < 7*time.Second || at[4] > 23*time.Second || !slices.IsSorted(at) {
			t.Errorf("tries at %v", at)
		}
	})
}

// broken fails requests as a network does: the discovery passes.
type broken struct {
	inMemory
	err   error
	tries int
}

func (b *broken) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "serviceDiscovery") {
		return b.inMemory.RoundTrip(r)
	}
	b.tries++
	return nil, b.err
}

// A change without a connection has had no effect: it is tried again. If the connection broke, that is not known.
func TestChangeWithoutAnswer(t *testing.T) {
	for _, c := range []struct {
		err   error
		code  string
		tries int
	}{
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "TeamsUnavailable", 5},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, teamsadmin.CodeUnknown, 1},
		{io.ErrUnexpectedEOF, teamsadmin.CodeUnknown, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := &broken{inMemory{strict(t, nil)}, c.err, 0}
			err := client(t, "", b).Create(t.Context(), teamsadmin.Object{Type: teamsadmin.DialPlan,
				Identity: "Tandem"})
			want(t, c.err.Error(), err, fault.Unavailable, c.code, "")
			if b.tries != c.tries {
				t.Errorf("%v: %d tries, want %d", c.err, b.tries, c.tries)
			}
		})
	}
}

// The token goes to the configured host only, and answers are bounded.
func TestRedirectsAndSizes(t *testing.T) {
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("redirect followed")
	}))
	defer evil.Close()
	var packed bytes.Buffer // 1 MiB of blanks
	z := gzip.NewWriter(&packed)
	_, err := z.Write(bytes.Repeat([]byte(" "), 1<<20))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "serviceDiscovery"):
			_, _ = io.WriteString(w, discovery)
		case r.URL.Path == usersPath: // 100 MB, packed
			w.Header().Set("Content-Encoding", "gzip")
			for range 100 {
				if _, err := w.Write(packed.Bytes()); err != nil {
					return
				}
			}
		default:
			http.Redirect(w, r, evil.URL, http.StatusTemporaryRedirect)
		}
	}))
	defer server.Close()
	admin := client(t, server.URL, server.Client().Transport)

	_, err = admin.Usages(t.Context())
	want(t, "a redirect", err, fault.Invalid, "TeamsRefused", "307")
	_, err = admin.Users(t.Context())
	want(t, "a large answer", err, fault.Unavailable, teamsadmin.CodeUnreadable, "too large")
}
