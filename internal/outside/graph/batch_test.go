package graph_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/graph"
)

func batch(responses ...object) answer {
	return answer{status: 200, body: object{"responses": responses}}
}

func failed(code string) object { return object{"error": object{"code": code, "message": "x"}} }

// tenant-cases 10: a 200 that hides a 429, in any order.
func TestBatchRepeatsOnlyWhatWasThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t,
			step{"POST /$batch", batch(
				object{"id": "3", "status": 200, "body": object{"id": "u3"}},
				object{"id": "1", "status": 200, "headers": object{"Content-Type": "application/json"},
					"body": object{"id": "u1"}},
				object{"id": "4", "status": 200, "body": object{"id": "u4"}},
				object{"id": "2", "status": 429, "headers": object{"retry-after": "7"},
					"body": failed("TooManyRequests")})},
			step{"POST /$batch", batch(
				object{"id": "1", "status": 204})})
		one, three := graph.GetUser("u1"), graph.GetUser("u3")
		two := graph.UpdateUser("u2", object{"usageLocation": "GB"})
		four := graph.AssignLicences("u2", []graph.Licence{{SkuID: skuID}}, nil)

		begin := time.Now()
		if err := a.client(nil).Batch(t.Context(), one, two, three, four); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d != 7*time.Second {
			t.Errorf("waited %v, want 7 s", d)
		}
		if one.Err() != nil || two.Err() != nil || three.Err() != nil || four.Err() != nil || one.Value.ID != "u1" ||
			three.Value.ID != "u3" || four.Value.ID != "u4" {
			t.Errorf("results %v %v %v %v, %v %v %v", one.Err(), two.Err(), three.Err(), four.Err(), one.Value.ID,
				three.Value.ID, four.Value.ID)
		}

		for i, want := range [][]object{
			{{"id": "1", "method": "GET", "url": "/users/u1"},
				{"id": "2", "method": "PATCH", "url": "/users/u2", "body": object{"usageLocation": "GB"}},
				{"id": "3", "method": "GET", "url": "/users/u3"},
				{"id": "4", "method": "POST", "url": "/users/u2/assignLicense", "body": object{
					"addLicenses":    []any{object{"skuId": skuID, "disabledPlans": []any{}}},
					"removeLicenses": []any{}}}},
			{{"id": "1", "method": "PATCH", "url": "/users/u2", "body": object{"usageLocation": "GB"}}},
		} {
			sent := parts(t, a.bodies()[i])
			for _, p := range sent {
				headers, _ := p["headers"].(object)
				if (headers["Content-Type"] == "application/json") != (p["body"] != nil) ||
					headers["client-request-id"] == "" {
					t.Errorf("headers of a part: %v", headers)
				}
				delete(p, "headers")
			}
			if diff := cmp.Diff(want, sent); diff != "" {
				t.Errorf("batch %d (-want +got):\n%s", i+1, diff)
			}
		}
	})
}

func TestBatchResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reading := func() *graph.Call[graph.User] { return graph.GetUser("u1") }
		for name, c := range map[string]struct {
			steps []answer
			read  string // code of the error of a read, "" for none
			write string // the same of a change
		}{
			"a part is refused": {[]answer{batch(object{"id": "1", "status": 404,
				"body": failed("Request_ResourceNotFound")},
				object{"id": "2", "status": 400, "body": failed("Request_BadRequest")})},
				"Request_ResourceNotFound", "Request_BadRequest"},
			"parts fail at Microsoft": {[]answer{batch(object{"id": "1", "status": 503, "body": failed("x")},
				object{"id": "2", "status": 503, "body": failed("x")}),
				batch(object{"id": "1", "status": 200, "body": object{"id": "u1"}})}, "", graph.CodeUnknown},
			"parts are missing": {[]answer{batch(object{"id": "2", "status": 204}, object{"id": "99", "status": 200},
				object{"id": "x", "status": 200}),
				batch(object{"id": "1", "status": 200, "body": object{"id": "u1"}})}, "", ""},
			"everything is lost": {[]answer{{err: errors.New("connection reset")},
				batch(object{"id": "1", "status": 200, "body": object{"id": "u1"}})}, "", graph.CodeUnknown},
			"everything is throttled": {[]answer{refusal(429, "TooManyRequests", "x", "Retry-After", "2"),
				batch(object{"id": "1", "status": 200, "body": object{"id": "u1"}}, object{"id": "2", "status": 204})},
				"", ""},
			"no content": {[]answer{{status: 204},
				batch(object{"id": "1", "status": 200, "body": object{"id": "u1"}})}, "", graph.CodeUnknown},
			"not JSON": {[]answer{{status: 200, body: "<html>"},
				batch(object{"id": "1", "status": 200, "body": object{"id": "u1"}})}, "", graph.CodeUnknown},
			"a token is refused": {[]answer{batch(object{"id": "1", "status": 200, "body": object{"id": "u1"}},
				object{"id": "2", "status": 401, "body": failed("InvalidAuthenticationToken")}),
				batch(object{"id": "1", "status": 204})}, "", ""},
		} {
			a := newAPI(t)
			for _, s := range c.steps {
				a.steps = append(a.steps, step{"POST /$batch", s})
			}
			read, write := reading(), graph.UpdateUser("u2", object{"usageLocation": "GB"})
			if err := a.client(&fixed{tokens: []string{"t1", "t2"}}).Batch(t.Context(), read, write); err != nil {
				t.Fatal(err)
			}
			for what, r := range map[string]struct {
				err  error
				want string
			}{"read": {read.Err(), c.read}, "write": {write.Err(), c.write}} {
				if r.want == "" && r.err != nil || r.want != "" && !fault.HasCode(r.err, r.want) {
					t.Errorf("%s: %s: %v; want %q", name, what, r.err, r.want)
				}
			}
			if c.read == "" && read.Value.ID != "u1" {
				t.Errorf("%s: read %+v", name, read.Value)
			}
			if e := (*graph.Error)(nil); c.read != "" && (!errors.As(read.Err(), &e) || e.ClientRequestID == "") {
				t.Errorf("%s: %v has no client-request-id", name, read.Err())
			}
		}
	})
}

func TestBatchLimits(t *testing.T) {
	a := newAPI(t)
	var calls []graph.Part
	for i := range 21 {
		calls = append(calls, graph.GetUser(fmt.Sprint(i)))
	}
	if err := a.client(nil).Batch(t.Context(), calls...); !fault.Is(err, fault.TooLarge) {
		t.Errorf("21 parts: %v", err)
	}
	if err := a.client(nil).Batch(t.Context()); err != nil {
		t.Errorf("an empty batch: %v", err)
	}
}

// The limits of teams-tenant §2, for an app in a tenant of each size.
func TestBudgetKeepsBelowTheLimits(t *testing.T) {
	for users, limit := range map[int]int{10: 3_500, 50: 5_000, 500: 5_000, 501: 8_000} {
		synctest.Test(t, func(t *testing.T) {
			a := newAPI(t)
			a.router = nil // for speed
			var sent []time.Time
			a.any = func(*http.Request) answer {
				sent = append(sent, time.Now())
				var all []object
				for i := range 20 {
					all = append(all, object{"id": fmt.Sprint(i + 1), "status": 200, "body": object{"id": "u1"}})
				}
				return batch(all...)
			}
			budget := graph.NewBudget()
			budget.SetUsers(tenantID, users)
			c, err := graph.New(graph.Config{Tenant: tenantID, Tokens: &fixed{tokens: []string{"t1"}}, Budget: budget,
				Transport: a, UserAgent: "Tandem/test"})
			if err != nil {
				t.Fatal(err)
			}

			const units = 40 // of a batch of 20 reads of one user
			for range 3 * limit / units {
				var calls []graph.Part
				for range 20 {
					calls = append(calls, graph.GetUser("u1"))
				}
				if err := c.Batch(t.Context(), calls...); err != nil {
					t.Fatal(err)
				}
			}
			for i := range sent {
				if j := i + limit/units; j < len(sent) && sent[j].Sub(sent[i]) < 10*time.Second {
					t.Fatalf("%d users: %d units within %v", users, limit, sent[j].Sub(sent[i]))
				}
			}
			// A fifth at once, the rest at 80 % of the limit per 10 s; a small tenant's fifth for a start.
			if d := time.Since(sent[0]); d > 38*time.Second {
				t.Errorf("%d users: %v for 3 times the limit", users, d)
			}
		})
	}
}

func TestBudgetFollowsWhatGraphReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		header := map[string]string{}
		a.any = func(*http.Request) answer { return answer{status: 200, header: header, body: object{"id": "u1"}} }
		c := a.client(nil)
		get := func() time.Duration {
			begin := time.Now()
			if _, err := graph.GetUser("u1").Do(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			return time.Since(begin)
		}

		if d := get() + get(); d != 0 {
			t.Errorf("two reads took %v", d)
		}
		header["x-ms-throttle-limit-percentage"] = "1.0"
		get()
		if d := get(); d == 0 || d > time.Second {
			t.Errorf("at the limit a read took %v; want it slowed down", d)
		}
		header["x-ms-throttle-limit-percentage"] = "1.4"
		get()
		if d := get(); d < 2*time.Second {
			t.Errorf("above the limit a read took %v; want seconds", d)
		}

		header = map[string]string{"x-ms-resource-unit": "700"}
		time.Sleep(time.Minute)
		get()
		if d := get(); d == 0 {
			t.Errorf("after a request of 700 units the next took %v", d)
		}
	})
}

// A 429 of one request stops the others of the tenant, not those of another tenant or of the Teams services.
func TestThrottleStopsTheTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, step{"GET /users/u1", refusal(429, "TooManyRequests", "x", "Retry-After", "300")})
		budget := graph.NewBudget()
		client := func(tenant string) *graph.Client {
			c, err := graph.New(graph.Config{Tenant: tenant, Tokens: &fixed{tokens: []string{"t1"}}, Budget: budget,
				Transport: a, UserAgent: "Tandem/test"})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		if _, err := graph.GetUser("u1").Do(t.Context(), client(tenantID)); !fault.Is(err, fault.Limited) {
			t.Fatal(err)
		}

		a.any = func(r *http.Request) answer {
			if r.URL.Path == "/v1.0/admin/teams/userConfigurations/"+userID {
				return answer{status: 200, body: configuration()}
			}
			return answer{status: 200, body: object{"id": "u2"}}
		}
		for name, c := range map[string]struct {
			call func() error
			want time.Duration
		}{
			"another tenant": {func() error {
				_, err := graph.GetUser("u2").Do(t.Context(),
					client(spID))
				return err
			}, 0},
			"Teams": {func() error {
				_, err := graph.GetUserConfiguration(userID).Do(t.Context(), client(tenantID))
				return err
			}, 0},
		} {
			begin := time.Now()
			if err := c.call(); err != nil || time.Since(begin) != c.want {
				t.Errorf("%s: %v after %v; want %v", name, err, time.Since(begin), c.want)
			}
		}
		begin := time.Now()
		_, err := graph.GetUser("u2").Do(t.Context(), client(tenantID))
		if f := fault.As(err); f.Kind != fault.Limited || f.RetryAfter != 5*time.Minute || time.Since(begin) != 0 {
			t.Errorf("the same tenant: %v, retry after %v; want 5 minutes, at once", err, f.RetryAfter)
		}
		time.Sleep(4 * time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		begin = time.Now()
		if _, err = graph.DeleteUser("u2").Do(ctx, client(tenantID)); !fault.Is(err, fault.Limited) ||
			time.Since(begin) != 0 {
			t.Errorf("with 30 s left: %v after %v; want it refused at once", err, time.Since(begin))
		}
		cancel()
		if _, err := graph.DeleteUser("u2").Do(ctx, client(tenantID)); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v; want its error, because nothing was sent", err)
		}

		_, err = graph.GetUser("u2").Do(t.Context(), client(tenantID))
		if err != nil || time.Since(begin) != time.Minute {
			t.Errorf("a minute before the end: %v after %v; want it to wait", err, time.Since(begin))
		}
	})
}
