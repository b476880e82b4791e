package graph_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

func users(ids ...string) []any {
	var l []any
	for _, id := range ids {
		l = append(l, object{"id": id})
	}
	return l
}

func page(next string, ids ...string) answer {
	body := list(users(ids...)...)
	if next != "" {
		body["@odata.nextLink"] = next
	}
	return answer{status: 200, body: body}
}

// read returns the ids of the pages until the first error.
func read(ctx context.Context, c *graph.Client, l graph.List[graph.User], from string) (ids []string, delta string,
	err error) {
	for page, err := range l.Pages(ctx, c, from) {
		if err != nil {
			return ids, "", err
		}
		for _, u := range page.Items {
			ids = append(ids, u.ID)
		}
		delta = page.Delta
	}
	return ids, delta, nil
}

func TestPagesFollowLinksVerbatim(t *testing.T) {
	link := base + "/users?$select=id&$skiptoken=RFNwdAIA%2BAB/a==_-~'x'"
	a := newAPI(t, step{"GET /users?$select=id&$top=2", page(link, "u1", "u2")},
		step{"GET " + strings.TrimPrefix(link, base), page("", "u3")},
		step{"GET " + strings.TrimPrefix(link, base), page("", "u3")})
	l := graph.Users(graph.Query{Select: []string{"id"}, Top: 2})
	if ids, _, err := read(t.Context(), a.client(nil), l, ""); err != nil || !slices.Equal(ids, []string{"u1", "u2",
		"u3"}) {
		t.Errorf("pages = %v, %v", ids, err)
	}
	if ids, _, err := read(t.Context(), a.client(nil), l, link); err != nil || !slices.Equal(ids, []string{"u3"}) {
		t.Errorf("pages from a stored link = %v, %v", ids, err)
	}
}

func TestTokensDoNotLeak(t *testing.T) {
	for _, link := range []string{"https://evil.example/v1.0/users?$skiptoken=x",
		"http://graph.microsoft.com/v1.0/users",
		"//evil.example/users", "/users", "https://graph.microsoft.com.evil.example/v1.0/users", "%", "users",
		"https://graph.microsoft.com:8443/v1.0/users", "https://graph.microsoft.com@evil.example/v1.0/users"} {
		a := newAPI(t, step{"GET /users", page(link, "u1")})
		ids, _, err := read(t.Context(), a.client(nil), graph.Users(graph.Query{}), "")
		if !fault.HasCode(err, graph.CodeForeignLink) || len(ids) != 1 {
			t.Errorf("link %q: %v, %v; want it refused", link, ids, err)
		}
		if len(a.saw) != 1 {
			t.Errorf("link %q was followed", link)
		}
	}

	a := newAPI(t, step{"GET /users", answer{status: 307,
		header: map[string]string{"Location": "https://evil.example/"}}})
	if _, err := graph.Users(graph.Query{}).All(t.Context(), a.client(nil)); err == nil {
		t.Error("a redirect is no error")
	}
}

func TestPageThatLinksToItself(t *testing.T) {
	self := base + "/users?$skiptoken=x"
	a := newAPI(t, step{"GET /users", page(self, "u1")}, step{"GET /users?$skiptoken=x", page(self, "u2")})
	ids, _, err := read(t.Context(), a.client(nil), graph.Users(graph.Query{}), "")
	if !fault.HasCode(err, graph.CodeUnreadable) || !slices.Equal(ids, []string{"u1", "u2"}) {
		t.Errorf("%v, %v; want an error after two pages", ids, err)
	}
}

func TestAllIsBounded(t *testing.T) {
	a := newAPI(t)
	n := 0
	a.any = func(*http.Request) answer {
		n++
		return page(fmt.Sprintf("%s/users?$skiptoken=%d", base, n), strings.Split(strings.Repeat("u,", 998)+"u",
			",")...)
	}
	if _, err := graph.Users(graph.Query{}).All(t.Context(), a.client(nil)); !fault.Is(err, fault.TooLarge) || n > 12 {
		t.Errorf("an endless list: %v after %d pages", err, n)
	}
}

// tenant-cases 8: only Directory_ExpiredPageToken means to begin again; the client repeats neither.
func TestExpiredPageToken(t *testing.T) {
	stored := base + "/users?$skiptoken=page6"
	for code, want := range map[string]string{"Directory_ExpiredPageToken": graph.CodePageExpired,
		"Request_BadRequest": "Request_BadRequest", "Request_UnsupportedQuery": "Request_UnsupportedQuery"} {
		a := newAPI(t, step{"GET /users?$skiptoken=page6", refusal(400, code,
			"The specified page token value has expired")})
		_, _, err := read(t.Context(), a.client(nil), graph.Users(graph.Query{}), stored)
		if !fault.HasCode(err, want) {
			t.Errorf("%s: %v; want %s", code, err, want)
		}
	}
}

// tenant-cases 9: both reasons of @removed, and both forms in which a feed is lost.
func TestDelta(t *testing.T) {
	delta := base + "/users/delta?$deltatoken=d1"
	removed := list(object{"id": "u1", "@removed": object{"reason": "changed"}},
		object{"id": "u2", "@removed": object{"reason": "deleted"}}, object{"id": "u3", "displayName": "restored"})
	removed["@odata.deltaLink"] = base + "/users/delta?$deltatoken=d2"
	first := list(users("u1")...)
	first["@odata.deltaLink"] = delta
	a := newAPI(t, step{"GET /users/delta?$select=id,displayName", answer{status: 200, body: first}},
		step{"GET /users/delta?$deltatoken=d1", answer{status: 200, body: removed}})
	l := graph.UserChanges("id", "displayName")
	ids, got, err := read(t.Context(), a.client(nil), l, "")
	if err != nil || got != delta || !slices.Equal(ids, []string{"u1"}) {
		t.Fatalf("first pass: %v, %q, %v", ids, got, err)
	}
	for page, err := range l.Pages(t.Context(), a.client(nil), delta) {
		if err != nil || len(page.Items) != 3 || page.Items[0].Removed.Reason != "changed" ||
			page.Items[1].Removed.Reason != "deleted" || page.Items[2].Removed != nil ||
			!strings.HasSuffix(page.Delta, "d2") {
			t.Errorf("changes = %+v, %v", page, err)
		}
	}

	for name, lost := range map[string]answer{
		"410 with Location": {status: 410, header: map[string]string{"Location": base + "/users/delta?$deltatoken="},
			body: object{"error": object{"code": "resyncRequired", "message": "reset"}}},
		"410 without a body": {status: 410},
		"syncStateNotFound":  refusal(400, "syncStateNotFound", "The sync state generation is not found"),
		"another case":       refusal(404, "SyncStateNotFound", "The sync state generation is not found"),
	} {
		a := newAPI(t, step{"GET /users/delta?$deltatoken=d1", lost})
		if _, _, err := read(t.Context(), a.client(nil), l, delta); !fault.HasCode(err, graph.CodeDeltaReset) {
			t.Errorf("%s: %v; want a reset", name, err)
		}
	}
}

// tenant-cases 10: the forms of Retry-After; without one, jittered back-off.
func TestThrottledRequestsWait(t *testing.T) {
	for header, want := range map[string][2]time.Duration{
		"7":     {7 * time.Second, 7 * time.Second},
		"0.249": {time.Second, time.Second},
		"0,120": {2 * time.Minute, 2 * time.Minute},
		"":      {500 * time.Millisecond, 1500 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			limited := refusal(429, "TooManyRequests", "slow down")
			if header != "" {
				limited = refusal(429, "TooManyRequests", "slow down", "Retry-After", header)
			}
			a := newAPI(t, step{"PATCH /users/u1", limited}, step{"PATCH /users/u1", answer{status: 204}})
			begin := time.Now()
			_, err := graph.UpdateUser("u1", object{"usageLocation": "GB"}).Do(t.Context(), a.client(nil))
			if d := time.Since(begin); err != nil || d < want[0] || d > want[1] {
				t.Errorf("Retry-After %q: %v after %v; want %v", header, err, d, want)
			}
		})
	}
}

func TestReadsAreRepeatedAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := step{"GET /users/u1", answer{status: 504, body: "<html>"}}
		lost := step{"GET /users/u1", answer{err: errors.New("connection reset")}}
		a := newAPI(t, bad, lost, step{"GET /users/u1", answer{status: 200, body: object{"id": "u1"}}})
		if u, err := graph.GetUser("u1").Do(t.Context(), a.client(nil)); err != nil || u.ID != "u1" {
			t.Errorf("after 504 and a lost connection: %+v, %v", u, err)
		}

		a = newAPI(t, bad, bad, bad, bad, bad)
		begin := time.Now()
		_, err := graph.GetUser("u1").Do(t.Context(), a.client(nil))
		f := fault.As(err)
		if f.Kind != fault.Unavailable || f.RetryAfter <= 0 || time.Since(begin) < 7*time.Second ||
			time.Since(begin) > 25*time.Second {
			t.Errorf("five times 504: %v, retry after %v, took %v", err, f.RetryAfter, time.Since(begin))
		}

		a = newAPI(t, step{"GET /users/u1", refusal(501, "NotImplemented", "x")}) // the cloud will not have it soon
		if _, err := graph.GetUser("u1").Do(t.Context(), a.client(nil)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("501: %v", err)
		}
	})
}

func TestLongWaitsAreTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		a := newAPI(t, step{"GET /users/u1", refusal(429, "TooManyRequests", "x", "Retry-After", "600")})
		_, err := graph.GetUser("u1").Do(t.Context(), a.client(nil))
		if f := fault.As(err); f.Kind != fault.Limited || f.RetryAfter != 10*time.Minute {
			t.Errorf("%v, retry after %v; want 10 minutes", err, f.RetryAfter)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		a = newAPI(t, step{"GET /users/u1", refusal(429, "TooManyRequests", "x", "Retry-After", "30")})
		_, err = graph.GetUser("u1").Do(ctx, a.client(nil))
		if f := fault.As(err); f.Kind != fault.Limited || f.RetryAfter != 30*time.Second {
			t.Errorf("%v, retry after %v; want 30 s", err, f.RetryAfter)
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("waited %v", d)
		}
	})
}

// A change whose answer is lost may have happened: it is sent once, and the caller is told.
func TestLostAnswersOfChangesAreUnknown(t *testing.T) {
	for name, lost := range map[string]answer{
		"connection lost": {err: errors.New("connection reset by peer")},
		"timeout":         {err: context.DeadlineExceeded},
		"500":             refusal(500, "InternalServerError", "x"),
		"503":             refusal(503, "ServiceUnavailable", "x", "Retry-After", "1"),
		"504":             {status: 504, body: "<html>"},
		"unreadable":      {status: 201, body: `{"id":`},
		"too long":        {status: 201, body: `{"id":"` + strings.Repeat("x", 33<<20) + `"}`},
	} {
		a := newAPI(t, step{"POST /domains", lost})
		_, err := graph.AddDomain("x.example").Do(t.Context(), a.client(nil))
		if !fault.HasCode(err, graph.CodeUnknown) {
			t.Errorf("%s: %v; want unknown", name, err)
		}
	}

	a := newAPI(t, step{"POST /admin/teams/telephoneNumberManagement/numberAssignments/assignNumber",
		answer{status: 202, header: map[string]string{"Location": "https://graph.microsoft.com/elsewhere"}}})
	if _, err := graph.AssignNumber("+441632960123", userID).Do(t.Context(), a.client(nil)); !fault.HasCode(err,
		graph.CodeUnknown) {
		t.Errorf("202 without an operation: %v; want unknown", err)
	}
}

func TestChangesThatDidNotLeaveAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := step{"POST /domains", answer{err: &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("refused")}}}
		a := newAPI(t, refused, step{"POST /domains", answer{status: 201, body: object{"id": "x.example"}}})
		if d, err := graph.AddDomain("x.example").Do(t.Context(), a.client(nil)); err != nil || d.ID != "x.example" {
			t.Errorf("after a refused connection: %+v, %v", d, err)
		}

		a = newAPI(t, refused, refused, refused, refused, refused)
		_, err := graph.AddDomain("x.example").Do(t.Context(), a.client(nil))
		if fault.HasCode(err, graph.CodeUnknown) || !fault.Is(err, fault.Unavailable) {
			t.Errorf("five refused connections: %v; want unavailable, not unknown", err)
		}
	})
}

func TestErrorsHoldTheRequestIDs(t *testing.T) {
	for status, want := range map[int]fault.Kind{400: fault.Invalid, 403: fault.Forbidden, 404: fault.NotFound,
		409: fault.Conflict, 412: fault.Precondition, 302: fault.Invalid} {
		a := newAPI(t, step{"DELETE /directory/deletedItems/u1", refusal(status, "Authorization_RequestDenied",
			"Insufficient privileges to complete the operation.")})
		_, err := graph.Purge("u1").Do(t.Context(), a.client(nil))
		f, e := fault.As(err), &graph.Error{}
		if !errors.As(err, &e) || f.Kind != want || f.Code != "Authorization_RequestDenied" ||
			e.RequestID != "microsoft-1" || e.ClientRequestID != a.saw[0].Header.Get("client-request-id") ||
			e.Status != status || !strings.Contains(f.Message, "microsoft-1") ||
			!strings.Contains(f.Message, "Insufficient privileges") {
			t.Errorf("%d: %v (%+v)", status, err, e)
		}
	}
}

// tenant-cases 4, on Graph's side: the refused token is reported with its challenge,
// and one more try is made with the next.
func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	unauthorized := step{"POST /domains", refusal(401, "InvalidAuthenticationToken",
		"TokenCreatedWithOutdatedPolicies", "WWW-Authenticate", "Bearer claims=e30")}
	created := step{"POST /domains", answer{status: 201, body: object{"id": "x.example"}}}
	tokens := &fixed{tokens: []string{"t1", "t2"}}
	a := newAPI(t, unauthorized, created)
	if _, err := graph.AddDomain("x.example").Do(t.Context(), a.client(tokens)); err != nil {
		t.Error(err)
	}
	if got := a.saw[1].Header.Get("Authorization"); got != "Bearer t2" ||
		!slices.Equal(tokens.refusals, []string{"Bearer claims=e30"}) {
		t.Errorf("second try with %q, refusals %q", got, tokens.refusals)
	}

	a = newAPI(t, unauthorized, unauthorized)
	_, err := graph.AddDomain("x.example").Do(t.Context(), a.client(&fixed{tokens: []string{"t1", "t2", "t3"}}))
	if !fault.Is(err, fault.Conflict) || !fault.HasCode(err, "TokenRefused") ||
		!strings.Contains(err.Error(), "signs in again") {
		t.Errorf("refused twice: %v", err)
	}

	a = newAPI(t, unauthorized)
	_, err = graph.AddDomain("x.example").Do(t.Context(), a.client(&fixed{tokens: []string{"t1"}}))
	if err == nil || !strings.Contains(err.Error(), "sign-in is needed") {
		t.Errorf("no other token: %v", err)
	}
}

// tenant-cases 4 from end to end: Graph's challenge reaches the login as claims, and a refusal there as a sign-in.
func TestClaimsChallengeEndToEnd(t *testing.T) {
	var mu sync.Mutex
	var claims []string
	login := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		claims = append(claims, r.FormValue("claims"))
		w.Header().Set("Content-Type", "application/json")
		if len(claims) == 3 {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprint(w,
				`{"error":"interaction_required","error_codes":[50076],"error_description":"AADSTS50076"}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"access_token":"t%d","expires_in":3600}`, len(claims))
	}))
	defer login.Close()
	app, err := entra.New(entra.Config{Authority: login.URL, ClientID: tenantID, Secret: secret.New("s"),
		Transport: login.Client().Transport})
	if err != nil {
		t.Fatal(err)
	}

	challenge := `Bearer realm="", authorization_uri=https://login.example/common/oauth2/authorize, ` +
		`error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiI` +
		`xNzk1ODY0NDE3In19fQ=="`
	unauthorized := refusal(401, "InvalidAuthenticationToken", "TokenIssuedBeforeRevocationTimestamp",
		"WWW-Authenticate", challenge)
	a := newAPI(t, step{"GET /users/u1", unauthorized}, step{"GET /users/u1", answer{status: 200,
		body: object{"id": "u1"}}},
		step{"GET /users/u1", unauthorized})
	c := a.client(app.Connect(tenantID, nil, time.Time{}).Source("https://graph.microsoft.com"))
	if u, err := graph.GetUser("u1").Do(t.Context(), c); err != nil || u.ID != "u1" {
		t.Errorf("%+v, %v", u, err)
	}
	if want := `{"access_token":{"nbf":{"essential":true,"value":"1795864417"}}}`; !slices.Equal(claims, []string{"",
		want}) {
		t.Errorf("claims sent to the login: %q", claims)
	}
	_, err = graph.GetUser("u1").Do(t.Context(), c)
	if !fault.HasCode(err, string(entra.SignInNeeded)) {
		t.Errorf("after the login wants interaction: %v", err)
	}
}

// Permissions are in the token: a 403 is repeated with another one, if there is one that may have more.
func TestForbiddenIsRepeatedWithANewToken(t *testing.T) {
	forbidden := refusal(403, "Authorization_RequestDenied", "Insufficient privileges")
	a := newAPI(t, step{"GET /users/u1", forbidden}, step{"GET /users/u1", answer{status: 200,
		body: object{"id": "u1"}}}, step{"GET /users/u1", forbidden})
	c := a.client(&fixed{tokens: []string{"old", "new"}})
	if u, err := graph.GetUser("u1").Do(t.Context(), c); err != nil || u.ID != "u1" {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := graph.GetUser("u1").Do(t.Context(), c); !fault.Is(err, fault.Forbidden) {
		t.Errorf("with the new token: %v", err)
	}
}

// tenant-cases 11: the header is sent, unknown words end the wait, and a failed number within a success is visible.
func TestOperationsEnd(t *testing.T) {
	const path = "GET /admin/teams/telephoneNumberManagement/operations/op1"
	for status, waiting := range map[string]bool{"notStarted": true, "running": true, "succeeded": false,
		"failed":             false,
		"unknownFutureValue": false, "skipped": false} {
		a := newAPI(t, step{path, answer{status: 200, body: object{"id": "op1",
			"createdDateTime": "2026-11-29T09:00:00Z",
			"status":          status, "numbers": []object{{"resourceLocation": "x", "status": "failed",
				"statusDetail": "UserNotLicensed"}}}}})
		op, err := graph.GetOperation("op1").Do(t.Context(), a.client(nil))
		if err != nil || op.Waiting() != waiting || op.Status != status ||
			op.Numbers[0].StatusDetail != "UserNotLicensed" {
			t.Errorf("%s: %+v, %v; waiting should be %v", status, op, err, waiting)
		}
		if got := a.saw[0].Header.Get("Prefer"); got != "include-unknown-enum-members" {
			t.Errorf("Prefer = %q", got)
		}
	}
}

func TestConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		cfg graph.Config
		ok  bool
	}{
		"global":         {graph.Config{Tenant: tenantID}, true},
		"national cloud": {graph.Config{Tenant: tenantID, BaseURL: "https://graph.example/v1.0/"}, true},
		"plain HTTP":     {graph.Config{Tenant: tenantID, BaseURL: "http://graph.example/v1.0"}, false},
		"domain":         {graph.Config{Tenant: "contoso.example"}, false},
	} {
		if _, err := graph.New(c.cfg); (err == nil) != c.ok {
			t.Errorf("%s: %v; accepted should be %v", name, err, c.ok)
		}
	}
}

func TestServerWithUnknownCertificateIsNotTrusted(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a request reached a server that is not trusted")
	}))
	defer srv.Close()
	c, err := graph.New(graph.Config{BaseURL: srv.URL, Tenant: tenantID, Tokens: &fixed{tokens: []string{"t1"}},
		Budget: graph.NewBudget()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := graph.DeleteUser("u1").Do(t.Context(), c); err == nil || !strings.Contains(err.Error(),
		"certificate") {
		t.Errorf("%v; want an error about the certificate", err)
	}
}

func TestClientIsSafeForConcurrentUse(t *testing.T) {
	a := newAPI(t)
	a.router = nil // for speed
	a.any = func(r *http.Request) answer {
		if strings.HasSuffix(r.URL.Path, "/$batch") {
			return batch(object{"id": "1", "status": 200, "body": object{"id": "u1"}})
		}
		return answer{status: 200, body: object{"id": "u1"}}
	}
	c := a.client(nil)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			call := graph.GetUser("u1")
			if i%2 == 0 {
				if err := c.Batch(t.Context(), call); err != nil {
					t.Error(err)
				}
			} else if _, err := call.Do(t.Context(), c); err != nil {
				t.Error(err)
			}
			if call.Err() != nil || call.Value.ID != "u1" {
				t.Errorf("%+v, %v", call.Value, call.Err())
			}
		})
	}
	wg.Wait()
}
