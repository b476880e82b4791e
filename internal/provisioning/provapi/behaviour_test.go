package provapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/zoom"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/filters"
)

func TestConditionalRequests(t *testing.T) {
	onEngines(t, func(b *bed) {
		b.seed()
		zoom := account("acme", "zoomPhoneCloudPeering")
		past, future := "Thu, 05 Jan 2023 10:00:00 GMT", time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z")
		b.do("PUT", "/accounts/acme", zoom, header{"If-Match": "*"}).fails(412, "ConditionNotMet") // there is none yet
		b.do("PUT", "/accounts/acme", zoom, header{"If-Match": `"1"`}).fails(412, "ConditionNotMet")
		b.do("PUT", "/accounts/acme", zoom, header{"If-None-Match": "*"}).want(201)
		b.do("PUT", "/accounts/acme", zoom, header{"If-None-Match": "*"}).fails(412, "ConditionNotMet")
		b.do("PUT", "/accounts/acme/numbers/+14255550142", number("acme", "+14255550142", "zoomPhoneCloudPeering"),
			header{"If-None-Match": "*"}).want(201)
		changes := map[string]string{
			"/accounts/acme": strings.Replace(zoom, `"name":"acme"`,
				`"name":"acme","correlationId":"%d"`, 1),
			"/accounts/acme/numbers/+14255550142": strings.Replace(number("acme", "+14255550142",
				"zoomPhoneCloudPeering"), `}}}`, `}},"configuration":{"customSipHeader":"h%d"}}`, 1),
			"/teamsRequestsForInformation/" + tenant: `{"customerRelationship":{"comment":"c%d"}}`,
		}
		for path, body := range changes {
			method := "PUT"
			if strings.HasPrefix(path, "/teams") {
				method = "PATCH"
			}
			n := 0
			change := func(h header) *exchange {
				n++
				return b.do(method, path, fmt.Sprintf(body, n), h)
			}
			tag := b.do("GET", path, "").want(200).header.Get("ETag")
			// Reads.
			for _, tc := range []struct {
				h    header
				want int
			}{
				{header{"If-None-Match": tag}, 304},
				{header{"If-None-Match": "W/" + tag}, 304}, // weak comparison
				{header{"If-None-Match": `"x", ` + tag}, 304},
				{header{"If-None-Match": "*"}, 304},
				{header{"If-None-Match": `"x"`}, 200},
				{header{"If-Match": tag}, 200},
				{header{"If-Match": `"x",` + tag}, 200},
				{header{"If-Match": `"x"`}, 412},
				{header{"If-Match": "W/" + tag}, 412}, // strong comparison
				{header{"If-Modified-Since": future}, 304},
				{header{"If-Modified-Since": past}, 200},
				{header{"If-Unmodified-Since": past}, 412},
				{header{"If-Unmodified-Since": future}, 200},
				// the tag goes first (RFC 9110 §13.2.2)
				{header{"If-None-Match": `"x"`, "If-Modified-Since": future}, 200},
				{header{"If-Match": tag, "If-Unmodified-Since": past}, 200},
			} {
				e := b.do("GET", path, "", tc.h)
				if e.status != tc.want {
					b.t.Errorf("GET %s with %v answered %d, want %d", path, tc.h, e.status, tc.want)
				}
				if e.status == 304 && (len(e.body) > 0 || e.header.Get("ETag") != tag) {
					b.t.Errorf("GET %s: 304 has body %q and ETag %q, want none and %q", path, e.body,
						e.header.Get("ETag"), tag)
				}
			}
			// Writes.
			change(header{"If-Match": `"1"`}).fails(412, "ConditionNotMet")
			change(header{"If-None-Match": "*"}).fails(412, "ConditionNotMet")
			change(header{"If-None-Match": tag}).fails(412, "ConditionNotMet")
			change(header{"If-Unmodified-Since": past}).fails(412, "ConditionNotMet")
			change(header{"If-Modified-Since": future}).fails(412, "ConditionNotMet")
			if now := b.do("GET", path, "").header.Get("ETag"); now != tag {
				b.t.Errorf("%s: a change that was refused gave ETag %s, was %s", path, now, tag)
			}
			fresh := change(header{"If-Match": tag}).want(200).header.Get("ETag")
			if fresh == tag || fresh == "" {
				b.t.Errorf("%s: ETag %q after a change, was %q", path, fresh, tag)
			}
			change(header{"If-Match": tag}).fails(412, "ConditionNotMet") // lost update prevented
			change(header{"If-Unmodified-Since": future}).want(200)
			change(header{"If-Modified-Since": past}).want(200)
			change(nil).want(200) // without a condition a PUT overwrites
		}
		b.do("DELETE", "/accounts/acme/numbers/+14255550142", "", header{"If-Match": `"1"`}).fails(412,
			"ConditionNotMet")
		tag := b.do("GET", "/accounts/acme/numbers/+14255550142", "").header.Get("ETag")
		b.do("DELETE", "/accounts/acme/numbers/+14255550142", "", header{"If-Match": tag}).want(204)
		b.do("DELETE", "/accounts/acme", "", header{"If-Match": `"1"`}).fails(412, "ConditionNotMet")
		b.do("DELETE", "/accounts/acme", "", header{"If-Match": "*"}).want(204)
	})
}

// TestRepeatability: a repetition gets the first answer, byte for byte, whatever happened in between, also from another
// node; the request is executed once.
func TestRepeatability(t *testing.T) {
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		b := newBed(t, d, options{})
		other := newBed(t, d, options{keyring: b.keyring})
		b.seed()
		id := 0
		once := func() header {
			id++
			return header{"Repeatability-Request-ID": fmt.Sprintf("0c2f-%d", id),
				"Repeatability-First-Sent": time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}
		}
		same := func(method, path, body string, status int, between func()) {
			b.t.Helper()
			h := once()
			first := b.do(method, path, body, h).want(status)
			if first.header.Get("Repeatability-Result") != "accepted" {
				t.Errorf("%s %s: Repeatability-Result %q, want accepted", method, path,
					first.header.Get("Repeatability-Result"))
			}
			if between != nil {
				between()
			}
			for _, node := range []*bed{b, other} {
				again := node.do(method, path, body, h,
					header{"x-ms-client-request-id": "11111111-2222-3333-4444-555555555555"}).want(status)
				if string(again.body) != string(first.body) || again.header.Get("ETag") != first.header.Get("ETag") ||
					again.header.Get("Content-Type") != first.header.Get("Content-Type") ||
					again.header.Get("Repeatability-Result") != "accepted" {
					t.Errorf("%s %s: the repetition answered %v %s\nfirst time       %v %s", method, path, again.header,
						again.body, first.header, first.body)
				}
				if again.header.Get("x-ms-client-request-id") != "11111111-2222-3333-4444-555555555555" {
					t.Errorf("%s %s: the repetition does not echo its own x-ms-client-request-id", method, path)
				}
			}
		}
		zoom := account("acme", "zoomPhoneCloudPeering")
		num := "/accounts/acme/numbers/+14255550142"
		same("PUT", "/accounts/acme", zoom, 201, func() {
			b.do("PUT", "/accounts/acme",
				strings.Replace(zoom, `{"name"`, `{"correlationId":"later","name"`, 1)).want(200)
		})
		if c := b.do("GET", "/accounts/acme", "").object()["correlationId"]; c != "later" {
			t.Errorf("the repetition was executed again: correlationId is %v, want later", c)
		}
		same("PUT", num, number("acme", "+14255550142", "zoomPhoneCloudPeering"), 201, nil)
		same("PUT", num, number("acme", "+14255550142", "zoomPhoneCloudPeering"), 200, nil)
		same("POST", "/accounts/acme:createOrUpdateNumbers",
			batchOf(number("acme", "+14255550143", "zoomPhoneCloudPeering")), 200,
			func() { b.do("DELETE", "/accounts/acme/numbers/+14255550143", "").want(204) })
		b.do("GET", "/accounts/acme/numbers/+14255550143", "").fails(404, "NumberNotFound") // not created again
		same("DELETE", num, "", 204, nil)
		b.do("DELETE", num, "", once()).fails(404, "NumberNotFound") // another id: it does not exist
		same("POST", "/accounts/acme:deleteNumbers", batchOf(`{"telephoneNumber":"+14255550143"}`), 204, nil)
		same("POST", "/accounts/acme:getTeamsCapabilityPlans", "", 200, nil)
		same("POST", "/accounts/acme:getTeamsAvailableCapabilities",
			batchOf(`{"telephoneNumber":"+14255550142"}`), 200, nil)
		same("PATCH", "/teamsRequestsForInformation/"+tenant,
			`{"customerRelationship":{"status":"AgreementSigned"}}`, 200, nil)
		same("DELETE", "/accounts/acme", "", 204, nil)

		// The same id for another request.
		gone := once()
		b.do("PUT", "/accounts/acme", zoom).want(201)
		b.do("DELETE", "/accounts/acme", "", gone).want(204)
		h := once()
		b.do("PUT", "/accounts/acme", zoom, h).want(201)
		// the same body in another order
		b.do("PUT", "/accounts/acme",
			`{ "serviceDetails": {"zoomPhoneCloudPeering":{"enabled":true,"syncEnabled":false}, "teamsTenantId":"`+
				tenant+`"}, "name": "acme" }`,
			h).want(201)
		for _, x := range []*exchange{
			b.do("PUT", "/accounts/acme", account("acme", "teamsOperatorConnect"), h),
			b.do("PUT", "/accounts/acme2", strings.Replace(zoom, "acme", "acme2", 1), h),
			b.do("DELETE", "/accounts/acme", "", h),
			b.do("PUT", "/accounts/acme", zoom, h, header{"If-Match": "*"}),
			b.do("DELETE", "/accounts/acme?deleteNumbers=true", "", gone),
			b.do("PUT", "/accounts/acme", zoom, h,
				header{"Repeatability-First-Sent": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}),
		} {
			x.fails(400, "RepeatabilityMismatch")
			if x.header.Get("Repeatability-Result") != "rejected" {
				t.Errorf("Repeatability-Result %q, want rejected", x.header.Get("Repeatability-Result"))
			}
		}
		// Another client's id is another request.
		b.do("DELETE", "/accounts/acme", "", h,
			header{"Authorization": "Bearer " + b.clientToken("ProvisioningAPI.Delete")}).want(204)
		// A request that failed is not remembered: once the reason is gone, it is executed.
		h = once()
		one := number("acme", "+14255550142", "zoomPhoneCloudPeering")
		b.do("PUT", num, one, h).fails(404, "AccountNotFound")
		b.do("PUT", "/accounts/acme", zoom).want(201)
		b.do("PUT", num, one, h).want(201)
	})
}

// TestRepeatedAtOnce: of many copies of one request that arrive together one is executed, and all get its answer.
func TestRepeatedAtOnce(t *testing.T) {
	onEngines(t, func(b *bed) {
		h := header{"Repeatability-Request-ID": "together",
			"Repeatability-First-Sent": time.Now().UTC().Format(time.RFC3339)}
		var mu sync.Mutex
		answers := map[string]int{}
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				e := b.do("PUT", "/accounts/acme", account("acme"), h)
				mu.Lock()
				defer mu.Unlock()
				answers[fmt.Sprint(e.status, e.header.Get("ETag"), string(e.body))]++
			})
		}
		wg.Wait()
		if len(answers) != 1 {
			b.t.Errorf("12 copies of one request got %d different answers: %v", len(answers), answers)
		}
		for a := range answers {
			if !strings.HasPrefix(a, "201") {
				b.t.Errorf("the answer is %s, want 201", a)
			}
		}
	})
}

// TestWhatIsPutIsWhatIsGot: every member that can be written comes back with its value. Each boolean is tried both
// ways, so that none can have its neighbour's value.
func TestWhatIsPutIsWhatIsGot(t *testing.T) {
	onEngines(t, func(b *bed) {
		same := func(path, body string, status int) {
			b.t.Helper()
			put := b.do("PUT", path, body).want(status)
			got := b.do("GET", path, "").want(200)
			if string(put.body) != string(got.body) {
				b.t.Errorf("PUT %s answered %s\nGET answers %s", path, put.body, got.body)
			}
			var want, have any
			if err := errors.Join(json.Unmarshal([]byte(body), &want), json.Unmarshal(dropReadOnly(b.t, got.body),
				&have)); err != nil {
				b.t.Fatal(err)
			}
			if diff := cmp.Diff(want, have); diff != "" {
				b.t.Errorf("%s is not what was put (-put +got):\n%s", path, diff)
			}
		}
		for i, bools := range [][2]bool{{true, false}, {false, true}} {
			x, y := bools[0], bools[1]
			same(fmt.Sprintf("/accounts/acme%d", i),
				fmt.Sprintf(`{"name":"acme%d","correlationId":"<crm> & \"4711\"","serviceDetails":{
				"teamsTenantId":"`+tenant+`",
				"teamsDirectRouting":{"enabled":%v,"syncEnabled":%v,
					"configuration":{"callScreening":%[2]v,"subdomain":"Sub%[1]d",
						"subdomainTokens":{"region1Token":"MS=ms1","region2Token":"MS=ms2"}}},
				"teamsOperatorConnect":{"enabled":%[2]v,"syncEnabled":%[3]v},
				"teamsPhoneMobile":{"enabled":%[3]v,"syncEnabled":%[2]v},
				"zoomPhoneCloudPeering":{"enabled":%[2]v,"syncEnabled":%[3]v},
				"azureOperatorCallProtection":{"enabled":%[3]v}}}`, i, x, y), 201)
		}
		same("/accounts/bare", `{"name":"bare"}`, 201)
		same("/accounts/empty", `{"name":"empty","serviceDetails":{}}`, 201)
		b.do("PUT", "/accounts/acme", account("acme", "teamsOperatorConnect", "teamsPhoneMobile",
			"zoomPhoneCloudPeering")).want(201)
		for i, s := range []string{"teamsOperatorConnect", "teamsPhoneMobile"} {
			for j, assigned := range []string{"assigned", "unassigned"} {
				n := fmt.Sprintf("+1425555%d%d00", i, j)
				same("/accounts/acme/numbers/"+n, `{"telephoneNumber":"`+n+`","accountName":"acme","serviceDetails":{"`+
					s+`":{"enabled":true,"assignmentStatus":"`+assigned+`","configuration":{
					"usage":"CallingUserAssignment","choosableCapabilities":["InboundCalling","OutboundCalling"],
					"additionalUsages":["ConferenceAssignment"],"civicAddressId":"c1","locationId":"l1",
					"allowTenantAddressUpdate":true,"displayedCountryCode":"US"}},
					"zoomPhoneCloudPeering":{"enabled":false}}}`, 201)
			}
		}
		same("/accounts/acme/numbers/+14255559000",
			`{"telephoneNumber":"+14255559000","accountName":"acme",
			"serviceDetails":{"zoomPhoneCloudPeering":{"enabled":true}},
			"configuration":{"customSipHeader":"a_B-9"}}`, 201)
		same("/accounts/acme/numbers/+14255559000",
			`{"telephoneNumber":"+14255559000","accountName":"acme","serviceDetails":{},"configuration":{}}`, 200)
		same("/accounts/acme/numbers/+14255559000",
			`{"telephoneNumber":"+14255559000","accountName":"acme","serviceDetails":{"teamsOperatorConnect":{
			"enabled":true,"configuration":{"usage":"x","choosableCapabilities":[]}}}}`, 200)
	})
}

// TestPages: for any listing parameters, following the links of the pages yields the whole list, in order, cut as
// asked.
func TestPages(t *testing.T) {
	onEngines(t, func(b *bed) {
		var all []domain.Number
		for _, acc := range []string{"a", "B", "c_1"} {
			b.do("PUT", "/accounts/"+acc, account(acc, "zoomPhoneCloudPeering", "teamsDirectRouting")).want(201)
			var items []string
			for i := range 23 {
				s := zoom.Service
				if i%3 == 0 {
					s = directrouting.Service
				}
				n := domain.Number{TelephoneNumber: domain.E164(fmt.Sprintf("+%d425555%02d%d", 1+i%4, i, len(all)%7)),
					AccountName: acc, Services: map[domain.Service]domain.NumberService{s: {Enabled: true}}}
				all = append(all, n)
				items = append(items, number(acc, string(n.TelephoneNumber), s.String()))
			}
			b.do("POST", "/accounts/"+acc+":createOrUpdateNumbers", batchOf(items...)).want(200)
		}
		slices.SortFunc(all, func(x, y domain.Number) int {
			return strings.Compare(string(x.TelephoneNumber), string(y.TelephoneNumber))
		})
		texts := []string{"", "serviceDetails/zoomPhoneCloudPeering/enabled eq true",
			"accountName eq 'a' or startswith(telephoneNumber,'+3')",
			"not (accountName ne 'c_1')", "serviceDetails/teamsDirectRouting/enabled ne true and accountName eq 'B'",
			"accountName eq 'nobody'"}
		rapid.Check(b.t.(*testing.T), func(rt *rapid.T) {
			path := rapid.SampledFrom([]string{"/numbers", "/accounts/a/numbers", "/accounts/c_1/numbers"}).Draw(rt,
				"path")
			text := rapid.SampledFrom(texts).Draw(rt, "filter")
			var want []string
			e, _ := filter.Parse(filter.Numbers(services.All().Services()), text) // "" gives nil, which matches all
			for i := range all {
				if (path == "/numbers" || strings.Contains(path, "/"+all[i].AccountName+"/")) &&
					filters.Match(e, filters.OfNumber(&all[i])) {
					want = append(want, string(all[i].TelephoneNumber))
				}
			}
			total := len(want)
			q := url.Values{}
			if text != "" {
				q.Set("filter", text)
			}
			if rapid.Bool().Draw(rt, "has skip") {
				n := rapid.IntRange(0, 30).Draw(rt, "skip")
				q.Set("skip", fmt.Sprint(n))
				want = want[min(n, len(want)):]
			}
			if rapid.Bool().Draw(rt, "has top") {
				n := rapid.IntRange(0, 30).Draw(rt, "top")
				q.Set("top", fmt.Sprint(n))
				want = want[:min(n, len(want))]
			}
			size := 200
			if rapid.Bool().Draw(rt, "has size") {
				size = rapid.IntRange(1, 40).Draw(rt, "size")
				q.Set("maxpagesize", fmt.Sprint(size))
			}
			count := rapid.Bool().Draw(rt, "count")
			if count {
				q.Set("countRecords", "true")
			}
			got := []string{}
			link := path + "?" + version + "&" + q.Encode()
			for pages := 0; link != ""; pages++ {
				e := b.raw("GET", link, "").want(200)
				keys := e.keys("telephoneNumber")
				if len(keys) > size || len(keys) == 0 && pages > 0 {
					rt.Fatalf("page %d of %s has %d items", pages, link, len(keys))
				}
				if c := e.header.Get("x-ms-record-count"); count && c != fmt.Sprint(total) || !count && c != "" {
					rt.Fatalf("x-ms-record-count is %q, want %d if %v", c, total, count)
				}
				got = append(got, keys...)
				if link = e.next(); len(got) > len(want) {
					break
				}
			}
			if !slices.Equal(got, append([]string{}, want...)) {
				rt.Fatalf("pages of %s?%s\n%v\nwant\n%v", path, q.Encode(), got, want)
			}
		})
	})
}

// TestPagesWhileTheListChanges: an item that exists all the time appears exactly once, whatever is created and deleted
// meanwhile.
func TestPagesWhileTheListChanges(t *testing.T) {
	onEngines(t, func(b *bed) {
		for i := range 20 {
			name := fmt.Sprintf("acc%02d", i)
			b.do("PUT", "/accounts/"+name, `{"name":"`+name+`"}`).want(201)
		}
		var got []string
		link := "/accounts?" + version + "&maxpagesize=3"
		for i := 0; link != ""; i++ {
			e := b.raw("GET", link, "").want(200)
			got = append(got, e.keys("name")...)
			last := got[len(got)-1]
			b.do("DELETE", "/accounts/"+last, "").want(204) // the item that the link continues after
			b.do("PUT", "/accounts/aaa"+fmt.Sprint(i), fmt.Sprintf(`{"name":"aaa%d"}`, i)).want(201)
			link = e.next()
		}
		if len(got) != 20 || !slices.IsSorted(got) {
			b.t.Errorf("the pages hold %v", got)
		}
	})
}

func TestContinuationsAreSealed(t *testing.T) {
	b := onSQLite(t, options{})
	for i := range 5 {
		b.do("PUT", fmt.Sprintf("/accounts/a%d", i), account(fmt.Sprintf("a%d", i), "zoomPhoneCloudPeering")).want(201)
	}
	for i := range 5 {
		n := fmt.Sprintf("+1425555014%d", i)
		b.do("PUT", "/accounts/a0/numbers/"+n, number("a0", n, "zoomPhoneCloudPeering")).want(201)
	}
	link := b.do("GET", "/accounts?maxpagesize=2", "").want(200).next()
	b.raw("GET", link, "").want(200)
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	token := u.Query().Get("continuation")
	for i := range token {
		changed := []byte(token)
		changed[i] ^= 1
		e := b.do("GET", "/accounts?continuation="+url.QueryEscape(string(changed)), "")
		if e.status == 200 && i == len(token)-1 {
			continue // the last character's spare bits
		}
		e.fails(400, "InvalidContinuation")
	}
	b.do("GET", "/numbers?continuation="+token, "").fails(400, "InvalidContinuation") // another listing's
	b.raw("GET", link+"&maxpagesize=500", "").fails(400, "InvalidContinuation")
	b.raw("GET", strings.Replace(link, "2024-02-29-preview", "2023-10-01", 1), "").fails(400,
		"UnsupportedApiVersionValue")
	numbers, err := url.Parse(b.do("GET", "/accounts/a0/numbers?maxpagesize=2", "").want(200).next())
	if err != nil {
		t.Fatal(err)
	}
	// another account's
	b.do("GET", "/accounts/a1/numbers?continuation="+numbers.Query().Get("continuation"), "").fails(400,
		"InvalidContinuation")
	// A page size beyond the maximum counts as the maximum.
	b.do("GET", "/accounts?maxpagesize=100000", "").want(200)
}
