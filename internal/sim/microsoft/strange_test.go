package microsoft_test

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

// TestStrangeRequests repeats the requests of all operations with other bodies and query options. The simulator
// answers each: a panic would break the connection.
func TestStrangeRequests(t *testing.T) {
	b := newBed(t)
	everyOperation(b)
	voice := []object{{"Identity": "x", "NormalizationRules": []any{object{"Name": "n", "Pattern": "1"}}},
		{"Identity": "x", "NumberPattern": "1", "OnlinePstnUsages": []any{"Foreign-1"}, "Priority": 1},
		{"Key": object{}, "Usage": object{"Add": []any{"y"}}},
		{"Key": object{}, "SipSignalingPort": 5061, "InboundPstnNumberTranslationRules": []any{"Foreign-1"}},
		{"Identity": "y", "EmergencyNumbers": object{"Add": object{"EmergencyDialString": "112"}}}}
	b.mu.Lock()
	exchanges := b.exchanges
	b.mu.Unlock()
	for i, kind := range []string{"TenantDialPlan", "OnlineVoiceRoute", "OnlinePstnUsages/configuration/Global",
		"OnlinePSTNGateway/configuration/sbc.contoso.example", "TeamsEmergencyCallRoutingPolicy"} {
		raw, _ := json.Marshal(voice[i])
		r, _ := http.NewRequestWithContext(t.Context(), []string{"POST", "POST", "PUT", "PUT", "POST"}[i],
			b.cloud.URL(microsoft.Teams)+configurations+kind, nil)
		exchanges = append(exchanges, microsoft.Exchange{Service: microsoft.Teams, Request: r, Body: raw})
	}

	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		for _, e := range exchanges {
			if e.Service == microsoft.Login || e.Request.URL.Path == "/v1.0/$batch" {
				continue
			}
			var body any
			_ = json.Unmarshal(e.Body, &body) // nil without a body
			raw, _ := json.Marshal(strange(random, body))
			q := e.Request.URL.Query()
			for name := range q {
				if random.IntN(3) == 0 {
					q.Set(name, []string{"", "-1", "x", "'", "(", "a/any(b:c)", q.Get(name) + ")"}[random.IntN(7)])
				}
			}
			answered(b, e, q, string(raw))
		}
	}
}

func answered(b *bed, e microsoft.Exchange, q url.Values, body string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), e.Request.Method, b.cloud.URL(e.Service)+
		(&url.URL{Path: e.Request.URL.Path}).EscapedPath()+"?"+q.Encode(), strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	as := "admin"
	if e.Service == microsoft.Teams {
		as = "admin for teams"
	}
	r.Header.Set("Authorization", "Bearer "+b.token(as))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-MS-Forest", "sim1")
	res, err := b.client.Do(r)
	if err != nil {
		b.t.Fatalf("%s %s %s: %v", r.Method, r.URL, body, err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
}

// strange replaces some of the values by others.
func strange(random *rand.Rand, v any) any {
	if random.IntN(6) == 0 {
		return []any{nil, "", "x", 1.5, -1, true, []any{}, []any{nil}, []any{object{}}, object{}, object{"Add": nil},
			object{"Remove": "x"}}[random.IntN(12)]
	}
	switch x := v.(type) {
	case object:
		out := object{}
		for name, member := range x {
			out[name] = strange(random, member)
		}
		return out
	case []any:
		out := []any{}
		for _, item := range x {
			out = append(out, strange(random, item))
		}
		return out
	}

	return v
}
