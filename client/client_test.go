package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

// script is a server that returns its answers in turn and records the requests.
type script struct {
	answers []answer
	got     []*http.Request
	bodies  []string
	at      []time.Time
}

type answer struct {
	status int
	header map[string]string
	body   string
	err    error
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	b, _ := io.ReadAll(r.Body)
	s.got, s.bodies, s.at = append(s.got, r), append(s.bodies, string(b)), append(s.at, time.Now())
	if len(s.got) > len(s.answers) {
		return nil, errors.New("one request too many")
	}
	a := s.answers[len(s.got)-1]
	if a.err != nil {
		return nil, a.err
	}
	h := http.Header{}
	for k, v := range a.header {
		h.Set(k, v)
	}
	return &http.Response{StatusCode: a.status, Header: h, Body: io.NopCloser(strings.NewReader(a.body)),
		Request: r}, nil
}

func newClient(t *testing.T, s *script, o client.Options) *client.Client {
	t.Helper()
	o.HTTPClient = &http.Client{Transport: s}
	c, err := client.New("https://api.example.com/", o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBusyServerIsAskedAgainAfterTheTimeItNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{
			{status: 429, header: map[string]string{"Retry-After": "7"},
				body: `{"error":{"code":"TooManyRequests","message":"wait"}}`},
			{status: 503, header: map[string]string{
				"Retry-After": time.Now().UTC().Add(30 * time.Second).Format(http.TimeFormat)}},
			{err: &net.OpError{Op: "read", Err: errors.New("reset")}},
			{status: 201, header: map[string]string{"ETag": `"5"`}, body: `{"name":"contoso"}`},
		}}
		a, err := newClient(t, s, client.Options{Tokens: client.StaticToken("tok")}).PutAccount(t.Context(),
			&client.Account{Name: "contoso"}, client.Condition{IfNoneMatch: new("*")})
		if err != nil || a.Name != "contoso" || a.ETag != `"5"` {
			t.Fatalf("PutAccount = %+v, %v", a, err)
		}
		if got := s.at[1].Sub(s.at[0]); got != 7*time.Second {
			t.Errorf("waited %v after Retry-After: 7", got)
		}
		if got := s.at[2].Sub(s.at[0]); got != 30*time.Second {
			t.Errorf("waited %v for the date that Retry-After named, want 30s", got)
		}
		id := s.got[0].Header.Get("Repeatability-Request-ID")
		for i, r := range s.got {
			if r.Header.Get("Repeatability-Request-ID") != id || id == "" ||
				r.Header.Get("Repeatability-First-Sent") == "" || s.bodies[i] != s.bodies[0] {
				t.Errorf("attempt %d is not a repetition: %v %s", i+1, r.Header, s.bodies[i])
			}
			if r.Header.Get("Authorization") != "Bearer tok" || r.Header.Get("If-None-Match") != "*" ||
				r.URL.String() != "https://api.example.com/accounts/contoso?api-version=2024-02-29-preview" {
				t.Errorf("attempt %d: %s %v", i+1, r.URL, r.Header)
			}
		}
	})
}

// TestWaitingDecidesAboutRetries: it learns the reason and the length of each pause, and ends the attempts.
func TestWaitingDecidesAboutRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busy := answer{status: 429, header: map[string]string{"Retry-After": "7"}}
		s := &script{answers: []answer{busy, busy, busy}}
		var pauses []time.Duration
		c := newClient(t, s, client.Options{Attempts: 100, Waiting: func(err error, pause time.Duration) bool {
			var e *client.Error
			if !errors.As(err, &e) || e.Status != 429 {
				t.Errorf("waiting after %v, want the answer 429", err)
			}
			pauses = append(pauses, pause)
			return len(pauses) < 3
		}})
		if _, err := c.Account(t.Context(), "a"); err == nil {
			t.Error("no error")
		}
		if want := []time.Duration{7e9, 7e9, 7e9}; !slices.Equal(pauses, want) || len(s.got) != 3 {
			t.Errorf("pauses %v and %d requests, want %v and 3", pauses, len(s.got), want)
		}
	})
}

// minute is the time to live of the server's name, and the second in which a resolver may have asked for it.
const minute = time.Minute + time.Second

// TestFailureIsRepeatedAfterAMinuteOnANewConnection: the name of a gateway with two regions has a time to live of 60 s,
// and clients look it up again and repeat 60 s after a timeout or a 5xx (provisioning-api §3.6): when no resolver that
// counts whole seconds still has it. A second lookup means a second connection.
func TestFailureIsRepeatedAfterAMinuteOnANewConnection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer string        // of the first region; empty: it never answers
		after  time.Duration // from the first request to its repetition
	}{
		"a timeout":            {"", 30*time.Second + minute},
		"a lost connection":    {"close", minute},
		"500":                  {"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", minute},
		"503 without a time":   {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", minute},
		"503 with Retry-After": {"HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 7 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			regions := &regions{first: c.answer, connect: make(chan struct{}, 9)}
			hc := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: regions.dial}}
			defer hc.CloseIdleConnections()
			gateway, err := client.New("http://localhost", client.Options{HTTPClient: hc})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err = gateway.PutAccount(t.Context(), &client.Account{Name: "contoso"}, client.Condition{})
			if took := time.Since(start); err != nil || took != c.after {
				t.Errorf("%s: repeated after %v (%v), want %v", name, took, err, c.after)
			}
			if n := len(regions.connect); name != "503 with Retry-After" && n != 2 {
				t.Errorf("%s: %d connections, want 2: the name is looked up for each", name, n)
			}
		})
	}
}

// TestNoConnectionToTheFormerRegionIsUsed: a connection that was in use at the time of a failure, and became idle
// during the pause, is not used for the repetition.
func TestNoConnectionToTheFormerRegionIsUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		regions := &regions{first: "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
			connect: make(chan struct{}, 9)}
		hc := &http.Client{Transport: &http.Transport{DialContext: regions.dial}}
		defer hc.CloseIdleConnections()
		gateway, err := client.New("http://localhost", client.Options{HTTPClient: hc})
		if err != nil {
			t.Fatal(err)
		}
		put := func() {
			a := &client.Account{Name: "contoso"}
			if _, err := gateway.PutAccount(t.Context(), a, client.Condition{}); err != nil {
				t.Error(err)
			}
		}
		var first sync.WaitGroup
		first.Go(put)
		synctest.Wait()
		time.Sleep(30 * time.Second)
		put() // by another connection, which is idle afterwards
		first.Wait()
		if n := len(regions.connect); n != 3 {
			t.Errorf("%d connections, want 3: the repetition used one from before the failure was over", n)
		}
	})
}

// TestRequestsShareNoConnection: a request that fails while others are in progress can be repeated elsewhere, also
// where the server, or a load balancer before it, offers HTTP/2.
func TestRequestsShareNoConnection(t *testing.T) {
	var from sync.Map
	var both sync.WaitGroup // requests that have not come
	both.Add(2)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from.Store(r.RemoteAddr, r.Proto)
		both.Done()
		both.Wait()
		_, _ = io.WriteString(w, "{}")
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	before := http.DefaultTransport
	defer func() { http.DefaultTransport = before }()
	http.DefaultTransport = &http.Transport{ForceAttemptHTTP2: true,
		TLSClientConfig: server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
	gateway, err := client.New(server.URL, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()

	var running sync.WaitGroup
	for range 2 {
		running.Go(func() {
			if _, err := gateway.Account(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	n := 0
	from.Range(func(any, any) bool { n++; return true })
	if n != 2 {
		t.Errorf("two requests at a time on %d connections", n)
	}
}

// TestAServerThatStaysUnavailableIsLeft: Retry-After is honoured twice; a server that is still unavailable then has
// failed, and the record of its name may lead elsewhere after a minute. A rate limit is no failure.
func TestAServerThatStaysUnavailableIsLeft(t *testing.T) {
	t.Parallel()
	for status, want := range map[int][]time.Duration{
		503: {5 * time.Second, 5 * time.Second, minute, minute},
		429: {5 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{}
			for range 4 {
				s.answers = append(s.answers, answer{status: status, header: map[string]string{"Retry-After": "5"}})
			}
			s.answers = append(s.answers, answer{status: 200, body: "{}"})
			if _, err := newClient(t, s, client.Options{}).Account(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			var got []time.Duration
			for i := range s.at[1:] {
				got = append(got, s.at[i+1].Sub(s.at[i]))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d: pauses %v, want %v", status, got, want)
			}
		})
	}
}

// regions is a server in two regions, connected to by pipes: the first answers as given, the second creates an account.
type regions struct {
	first   string
	connect chan struct{} // one value for each connection
	asked   atomic.Int32
}

func (s *regions) dial(context.Context, string, string) (net.Conn, error) {
	s.connect <- struct{}{}
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		in := bufio.NewReader(there)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return // the client has closed the connection
			}
			_, _ = io.Copy(io.Discard, r.Body)
			answer := "HTTP/1.1 201 Created\r\nContent-Length: 18\r\n\r\n{\"name\":\"contoso\"}"
			if s.asked.Add(1) == 1 {
				answer = s.first
			}
			switch answer {
			case "close":
				return
			case "":
				continue
			}
			if _, err := io.WriteString(there, answer); err != nil {
				return
			}
		}
	}()
	return here, nil
}

// TestRepetitionIsSafeAndBounded: what may have been executed is sent again only if that does no harm, and never
// beyond the caller's deadline.
func TestRepetitionIsSafeAndBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{status: 500}}}
		if _, err := newClient(t, s, client.Options{}).CreateToken(t.Context(), api.TokenRequest{}); err == nil ||
			len(s.got) != 1 {
			t.Errorf("a POST without a repeatability id: %v after %d requests, want an error after 1", err, len(s.got))
		}

		s = &script{answers: []answer{{status: 500}}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := newClient(t, s, client.Options{}).Account(ctx, "a"); err == nil || time.Since(start) != 0 {
			t.Errorf("with less than a minute left: %v after %v, want the answer at once", err, time.Since(start))
		}

		s = &script{answers: []answer{{status: 500}, {status: 200, body: "{}"}}}
		start = time.Now()
		if _, err := newClient(t, s, client.Options{MaxWait: 5 * time.Second}).Account(t.Context(), "a"); err != nil ||
			time.Since(start) != 5*time.Second {
			t.Errorf("with MaxWait 5 s: %v after %v", err, time.Since(start))
		}

		s = &script{answers: []answer{{err: context.Canceled}}}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		if _, err := newClient(t, s, client.Options{}).Account(ctx, "a"); !errors.Is(err, context.Canceled) ||
			len(s.got) > 1 {
			t.Errorf("cancelled: %v after %d requests", err, len(s.got))
		}
	})
}

// TestEveryConditionIsSent: every value that is set counts, also Go's zero values. An empty ETag, such as that of an
// account from a list, must not become an unconditional write: the server refuses it.
func TestEveryConditionIsSent(t *testing.T) {
	t.Parallel()
	s := &script{answers: []answer{{status: 204}, {status: 204}, {status: 204}}}
	c := newClient(t, s, client.Options{})
	for i, x := range []struct {
		d            client.Condition
		header, want string
	}{
		{client.Condition{IfMatch: new("")}, "If-Match", ""},
		{client.Condition{IfUnmodifiedSince: new(time.Time{})}, "If-Unmodified-Since", "Mon, 01 Jan 0001 00:00:00 GMT"},
		{client.Condition{IfModifiedSince: new(time.Time{})}, "If-Modified-Since", "Mon, 01 Jan 0001 00:00:00 GMT"},
	} {
		if err := c.DeleteAccount(t.Context(), "contoso", false, x.d); err != nil {
			t.Fatal(err)
		}
		if got := s.got[i].Header.Values(x.header); len(got) != 1 || got[0] != x.want {
			t.Errorf("%s: %q, want %q", x.header, got, x.want)
		}
	}
}

func TestWhatIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []answer
		want    int // requests
	}{
		"a refusal": {[]answer{{status: 409,
			body: `{"error":{"code":"AccountHasNumbers","message":"m"}}`}}, 1},
		"a wait beyond MaxWait":      {[]answer{{status: 429, header: map[string]string{"Retry-After": "3600"}}}, 1},
		"attempts are used up":       {[]answer{{status: 503}, {status: 503}, {status: 503}}, 3},
		"an answer that is not JSON": {[]answer{{status: 200, body: "<html>"}}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{answers: c.answers}
			if _, err := newClient(t, s, client.Options{Attempts: 3}).Account(t.Context(), "a"); err == nil {
				t.Errorf("%s: no error", name)
			}
			if len(s.got) != c.want {
				t.Errorf("%s: %d requests, want %d", name, len(s.got), c.want)
			}
		})
	}
}

func TestNewClientIsNeverMadeTwice(t *testing.T) {
	t.Parallel()
	s := &script{answers: []answer{{status: 503}}}
	if _, err := newClient(t, s, client.Options{}).CreateClient(t.Context(),
		api.ClientRequest{Name: "n", Roles: []string{"r"}}); err == nil || len(s.got) != 1 {
		t.Errorf("CreateClient: %v after %d requests, want an error after 1", err, len(s.got))
	}
}

func TestErrorSaysWhatTheServerSaid(t *testing.T) {
	t.Parallel()
	s := &script{answers: []answer{{status: 400, header: map[string]string{"x-ms-error-code": "InvalidBatch"},
		body: `{"error":{"code":"InvalidBatch","message":"2 numbers are wrong","details":[
			{"code":"InvalidNumber","message":"no digits","target":"numbers[17].telephoneNumber"}]}}`}}}
	err := newClient(t, s, client.Options{}).CreateOrUpdateNumbers(t.Context(), "a b", nil)
	var e *client.Error
	if !errors.As(err, &e) || !client.HasCode(err, "InvalidBatch") || client.IsNotFound(err) {
		t.Fatalf("error %v", err)
	}
	want := "InvalidBatch: 2 numbers are wrong\n  InvalidNumber (numbers[17].telephoneNumber): no digits"
	if err.Error() != want {
		t.Errorf("error text %q, want %q", err.Error(), want)
	}
	if got := s.got[0].URL.EscapedPath(); got != "/accounts/a%20b:createOrUpdateNumbers" {
		t.Errorf("path %s", got)
	}
	if e.RequestID != s.got[0].Header.Get("x-ms-client-request-id") {
		t.Errorf("request id %q", e.RequestID)
	}
}

// TestProblemDocuments: errors of the management API (RFC 9457) are reported like those of the Provisioning API.
func TestProblemDocuments(t *testing.T) {
	t.Parallel()
	s := &script{answers: []answer{{status: 400, body: `{"type":"about:blank","title":"Bad Request","status":400,
		"code":"InvalidRequestBody","detail":"the body has 2 problems","details":[
			{"code":"MissingField","detail":"to is missing","target":"to"}]}`}}}
	_, err := newClient(t, s, client.Options{}).Explain(t.Context(), api.Question{From: "+1", Peer: "core"})
	const want = "InvalidRequestBody: the body has 2 problems\n  MissingField (to): to is missing"
	var e *client.Error
	if !errors.As(err, &e) || e.Status != 400 || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if got := s.got[0]; got.URL.String() != "https://api.example.com/manage/v1/explain" ||
		got.Header.Get("Content-Type") != "application/json" || s.bodies[0] != `{"from":"+1","peer":"core","to":""}` {
		t.Errorf("sent %s %v %s", got.URL, got.Header, s.bodies[0])
	}
}

func TestClientsFollowsTheCursor(t *testing.T) {
	t.Parallel()
	s := &script{answers: []answer{{status: 200, body: `{"clients":[{"id":"1"},{"id":"2"}],"next":"a b"}`},
		{status: 200, body: `{"clients":[{"id":"3"}]}`}}}
	l, err := newClient(t, s, client.Options{}).Clients(t.Context())
	if err != nil || len(l) != 3 || l[2].ID != "3" || s.got[0].URL.RawQuery != "" ||
		s.got[1].URL.Query().Get("cursor") != "a b" {
		t.Errorf("Clients = %+v, %v; asked %v", l, err, s.got)
	}
}

// TestAManagementAnswerThatIsNotJSON: a page of a proxy, for example, is an error and not an empty answer.
func TestAManagementAnswerThatIsNotJSON(t *testing.T) {
	t.Parallel()
	s := &script{answers: []answer{{status: 200, body: "<html>"}}}
	if h, err := newClient(t, s, client.Options{}).Health(t.Context()); err == nil {
		t.Errorf("Health = %+v", h)
	}
}

func TestListsFollowPagesOnTheirOwnServerOnly(t *testing.T) {
	t.Parallel()
	s := &script{answers: []answer{
		{status: 200, body: `{"value":[{"telephoneNumber":"+1"},{"telephoneNumber":"+2"}],
			"nextLink":"https://evil.example/numbers?api-version=2024-02-29-preview&cursor=x"}`},
		{status: 200, body: `{"value":[{"telephoneNumber":"+3"}]}`},
	}}
	c := newClient(t, s, client.Options{Tokens: client.StaticToken("secret")})
	var got []string
	for n, err := range c.Numbers(t.Context(), "", client.List{Filter: "accountName eq 'a'", Top: 9}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n.TelephoneNumber)
	}
	if !slices.Equal(got, []string{"+1", "+2", "+3"}) {
		t.Errorf("numbers %v", got)
	}
	if u := s.got[0].URL.Query(); u.Get("filter") != "accountName eq 'a'" || u.Get("top") != "9" {
		t.Errorf("first page asked with %v", u)
	}
	if u := s.got[1].URL; u.Host != "api.example.com" || u.Path != "/numbers" || u.Query().Get("cursor") != "x" {
		t.Errorf("second page asked at %v", u)
	}
}

func TestListThatLoopsEnds(t *testing.T) {
	t.Parallel()
	s := &script{answers: []answer{{status: 200, body: `{"value":[],"nextLink":"?api-version=2024-02-29-preview"}`}}}
	var last error
	for _, err := range newClient(t, s, client.Options{}).Accounts(t.Context(), client.List{}) {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "back to the same page") {
		t.Errorf("error %v", last)
	}
}

type tokens struct{ refused []string }

func (k *tokens) Token(_ context.Context, refused string) (string, error) {
	k.refused = append(k.refused, refused)
	if refused == "old" {
		return "new", nil
	}
	return "old", nil
}

func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{status: 401}, {status: 200, body: `{"name":"a"}`}}}
		k := &tokens{}
		if _, err := newClient(t, s, client.Options{Tokens: k}).Account(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		if s.got[1].Header.Get("Authorization") != "Bearer new" {
			t.Errorf("second attempt with %q", s.got[1].Header.Get("Authorization"))
		}
		s, k = &script{answers: []answer{{status: 401}, {status: 201, body: "{}"}}}, &tokens{}
		if _, err := newClient(t, s, client.Options{Tokens: k}).CreateClient(t.Context(),
			api.ClientRequest{}); err != nil { // it was not carried out, so it may be sent again
			t.Errorf("CreateClient with a token that was refused: %v", err)
		}
		s = &script{answers: []answer{{status: 401}}}
		if _, err := newClient(t, s, client.Options{Tokens: client.StaticToken("only")}).Account(t.Context(),
			"a"); !client.HasCode(err, "TokenRefused") || len(s.got) != 1 {
			t.Errorf("with one token only: %v after %d requests", err, len(s.got))
		}
	})
}

func TestCredentialsKeepTheirTokenWhileItIsGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{
			{status: 200, body: `{"access_token":"one","expires_in":3600}`},
			{status: 200, body: `{"access_token":"two","expires_in":3600}`},
			{status: 400, body: `{"error":"invalid_client","error_description":"no"}`},
		}}
		c := &client.Credentials{TokenURL: "https://issuer.example/token", ClientID: "id", ClientSecret: "se&cret",
			Scope: "api/.default", HTTPClient: &http.Client{Transport: s}}
		token := func(refused string) string {
			tok, err := c.Token(t.Context(), refused)
			if err != nil {
				return err.Error()
			}
			return tok
		}
		got := []string{token(""), token("")}
		time.Sleep(59*time.Minute + time.Second)
		got = append(got, token(""), token("two"))
		want := []string{"one", "one", "two", "the token endpoint answered 400 invalid_client: no"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("tokens (-want +got):\n%s", diff)
		}
		if s.bodies[0] != "client_id=id&client_secret=se%26cret&grant_type=client_credentials&scope=api%2F.default" {
			t.Errorf("asked with %s", s.bodies[0])
		}
	})
}

// TestTokenEndpointIsAskedAgain: it is treated like the API when it is busy or fails, but what it refuses is no answer
// of the API.
func TestTokenEndpointIsAskedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, x := range []struct {
			first answer
			after time.Duration
		}{
			{answer{status: 503, header: map[string]string{"Retry-After": "7"},
				body: `{"error":"temporarily_unavailable"}`}, 7 * time.Second},
			{answer{status: 502, body: "<html>"}, minute},
			{answer{err: io.ErrUnexpectedEOF}, minute},
		} {
			issuer := &script{answers: []answer{x.first, {status: 200, body: `{"access_token":"t","expires_in":3600}`}}}
			s := &script{answers: []answer{{status: 200, body: "{}"}}}
			start := time.Now()
			if _, err := newClient(t, s, client.Options{Tokens: &client.Credentials{TokenURL: "https://issuer.example",
				HTTPClient: &http.Client{Transport: issuer}}}).Account(t.Context(), "a"); err != nil ||
				time.Since(start) != x.after {
				t.Errorf("%+v: %v after %v, want success after %v", x.first, err, time.Since(start), x.after)
			}
		}

		issuer := &script{answers: []answer{{status: 404, body: `{"error":"invalid_request"}`}}}
		_, err := newClient(t, &script{}, client.Options{Tokens: &client.Credentials{TokenURL: "https://issuer.example",
			HTTPClient: &http.Client{Transport: issuer}}}).Account(t.Context(), "a")
		if err == nil || client.IsNotFound(err) {
			t.Errorf("a wrong token URL: %v, which must not mean that there is no account", err)
		}
	})
}

func TestSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l,
		Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/manage/v1/health" {
				t.Errorf("path %s", r.URL.Path)
			}
			_ = json.NewEncoder(w).Encode(api.Health{Status: api.HealthStatusReady, Node: "n1"})
		})}}
	srv.Start()
	defer srv.Close()
	c, err := client.NewSocket(path, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Health(t.Context())
	if err != nil || h.Node != "n1" {
		t.Errorf("Health = %+v, %v", h, err)
	}
}

// TestTokensAndSecretsDoNotCrossANetworkInTheClear: tokens and secrets go only to this machine or over TLS, unless
// configured otherwise.
func TestTokensAndSecretsDoNotCrossANetworkInTheClear(t *testing.T) {
	t.Parallel()
	for u, safe := range map[string]bool{
		"https://api.example.com": true, "http://localhost:8080": true, "http://LocalHost": true,
		"http://127.0.0.1:8080": true, "http://127.9.9.9": true,
		"http://[::1]:8080": true, "http://api.example.com": false, "http://192.0.2.1:8080": false,
		"http://[2001:db8::1]":         false,
		"http://localhost.example.com": false, "http://127.0.0.1.example.com": false, "HTTP://api.example.com": false,
	} {
		if _, err := client.New(u, client.Options{Tokens: client.StaticToken("t0k3n")}); (err == nil) != safe ||
			err != nil && strings.Contains(err.Error(), "t0k3n") {
			t.Errorf("New(%q) with a token: %v, want success %v", u, err, safe)
		}
		s := &script{answers: []answer{{status: 200, body: `{"access_token":"one","expires_in":3600}`}}}
		c := &client.Credentials{TokenURL: u + "/token", ClientID: "id", ClientSecret: "s3cret",
			HTTPClient: &http.Client{Transport: s}}
		if _, err := c.Token(t.Context(), ""); (err == nil) != safe || safe != (len(s.got) == 1) || err != nil &&
			strings.Contains(err.Error(), "s3cret") {
			t.Errorf("token from %q: %v after %d requests, want success %v", u, err, len(s.got), safe)
		}
		c.Insecure = true
		if _, err := c.Token(t.Context(), ""); err != nil {
			t.Errorf("token from %q, insecure: %v", u, err)
		}
		for _, o := range []client.Options{{}, {Tokens: client.StaticToken("t"), Insecure: true}} {
			if _, err := client.New(u, o); err != nil {
				t.Errorf("New(%q, %+v): %v", u, o, err)
			}
		}
	}
}

func TestBaseURLsThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, u := range []string{"", "api.example.com", "ftp://x", "https://user:pw@x", "https://x?y=z", "http://%zz"} {
		if _, err := client.New(u, client.Options{}); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("New(%q): %v", u, err)
		}
	}
}
