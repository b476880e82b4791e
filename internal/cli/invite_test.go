package cli_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/cli"
)

// signInAPI is the part of the management API that signs in, for one sign-in of these steps.
type signInAPI struct {
	mu      sync.Mutex // guards what follows
	steps   []api.SignInStep
	refuse  string // code of an error, for the last step
	got     []string
	request api.SignInRequest
}

func (a *signInAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.Method == "POST" {
		_ = json.NewDecoder(r.Body).Decode(&a.request) // a wrong one shows in the test
	} else {
		var c api.SignInContinuation
		_ = json.NewDecoder(r.Body).Decode(&c)
		if strings.Contains(c.Redirect, "forged") {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(400)
			_, _ = io.WriteString(w,
				`{"type":"about:blank","title":"x","status":400,"code":"InvalidState","detail":"forged"}`)
			return
		}
		a.got = append(a.got, c.Redirect)
	}
	if len(a.steps) == 1 && a.refuse != "" {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(409)
		_, _ = fmt.Fprintf(w,
			`{"type":"about:blank","title":"x","status":409,"code":%q,"detail":"the policy blocks it"}`, a.refuse)
		return
	}
	_ = json.NewEncoder(w).Encode(a.steps[0])
	a.steps = a.steps[1:]
}

// signIn runs the command. visit is called with each line that it says.
func signIn(t *testing.T, a *signInAPI, visit func(line string), args ...string) (code int, out, said string) {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	r, w := io.Pipe()
	var stdout, stderr bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(io.TeeReader(r, &stderr)); lines.Scan(); {
			visit(lines.Text())
		}
	}()
	code = cli.Run(t.Context(), cli.Program{Args: append([]string{"--url", server.URL, "--token", "t", "tenant",
		"sign-in",
		"contoso"}, args...), Stdout: &stdout, Stderr: w})
	_ = w.Close() // of a pipe
	<-read
	return code, stdout.String(), stderr.String()
}

var signedIn = api.SignInStep{Access: api.TenantAccess{Account: "contoso", State: "integrated", Tenant: "t1",
	Person: &api.TenantPerson{ID: "p", Name: "svc", Roles: []string{"Teams Administrator"}}}}

func TestSignInByLoopback(t *testing.T) {
	t.Parallel()
	a := &signInAPI{steps: []api.SignInStep{{ID: "s1", Step: "consent", URL: "https://login.example/consent"},
		{ID: "s1", Step: "identify", URL: "https://login.example/identify?a=b&c=d"},
		{ID: "s1", Step: "identify", URL: "https://login.example/identify?a=b&c=d", Interval: 15}, signedIn}}
	browse := func(query string) (*http.Response, string) {
		a.mu.Lock()
		port := a.request.Port
		a.mu.Unlock()
		stay := &http.Client{CheckRedirect: func(*http.Request,
			[]*http.Request) error {
			return http.ErrUseLastResponse
		},
			Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := stay.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", port, query))
		if err != nil {
			t.Errorf("the browser's request: %v", err)
			return &http.Response{}, ""
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		return res, string(body)
	}
	code, out, said := signIn(t, a, func(line string) {
		if !strings.HasPrefix(line, "https://login.example/consent") {
			return
		}
		if res, _ := browse("favicon.ico"); res.StatusCode != 404 {
			t.Errorf("another path: %d", res.StatusCode)
		}
		if res, _ := browse("?state=forged"); res.StatusCode != 400 {
			t.Errorf("a forged redirect: %d", res.StatusCode)
		}
		if res, _ := browse("?state=1&tenant=x"); res.StatusCode != 302 ||
			res.Header.Get("Location") != "https://login.example/identify?a=b&c=d" {
			t.Errorf("after the consent: %d %v", res.StatusCode, res.Header)
		}
		if _, body := browse("?state=2&code=x"); !strings.Contains(body,
			`content="15;url=https://login.example/identify?a=b&amp;c=d"`) {
			t.Errorf("while the consent propagates: %s", body)
		}
		if _, body := browse("?state=3&code=y"); !strings.Contains(body, "You are signed in") {
			t.Errorf("at the end: %s", body)
		}
	})
	if code != 0 || !strings.Contains(out, "integrated") || !strings.Contains(out, "Teams Administrator") {
		t.Errorf("exit %d, %s%s", code, out, said)
	}
	want := url.Values{"state": {"3"}, "code": {"y"}}
	if got, _ := url.ParseQuery(a.got[2]); got.Encode() != want.Encode() {
		t.Errorf("handed over %q", a.got)
	}
}

func TestSignInByDeviceCode(t *testing.T) {
	t.Parallel()
	wait := api.SignInStep{ID: "s1", URL: "https://login.example/device", UserCode: "ABC-DEF", Interval: 1}
	code, out, said := signIn(t, &signInAPI{steps: []api.SignInStep{wait, wait, signedIn}}, func(string) {}, "--device")
	if code != 0 || !strings.Contains(said, "enter the code ABC-DEF") || !strings.Contains(out, "integrated") {
		t.Errorf("exit %d, %s%s", code, out, said)
	}
	code, _, said = signIn(t, &signInAPI{steps: []api.SignInStep{wait, {}}, refuse: "DeviceCodeBlocked"},
		func(string) {},
		"--device")
	if code != 5 || !strings.Contains(said, "the policy blocks it") {
		t.Errorf("blocked: exit %d, %s", code, said)
	}
}
