package microsoft_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

// refusal is a row of the table.
type refusal struct {
	Name, Code, Message, Suberror, Source, Situation string
	Status, AADSTS                                   int
	Request                                          *struct {
		Service, Method, Path, As string
		Headers, Form             map[string]string
		Body                      json.RawMessage
	}
}

// situations make the state before a refused request.
var situations = map[string]func(b *bed){
	"signed in": func(b *bed) { b.signIn() },
	"fresh consent": func(b *bed) {
		b.signIn()
		b.tenant.Set(func(s *microsoft.Settings) { s.ConsentRefusals = 1 })
		b.tenant.Consent(clientID, nil, nil)
	},
	"mfa": func(b *bed) {
		to, err := b.cloud.Walk(b.t.Context(), b.authorize(), b.tenant.Admin, map[string][]string{"otc": {""}})
		if err != nil {
			b.t.Fatal(err)
		}
		_, o := b.redeem(to.Query().Get("code"), nil)
		b.vars["refresh"], _ = o["refresh_token"].(string)
		b.tenant.Set(func(s *microsoft.Settings) { s.MFA = true })
	},
	"90 days later": func(b *bed) { b.signIn(); b.cloud.Advance(91 * 24 * time.Hour) },
	"sign-in frequency": func(b *bed) {
		b.signIn()
		b.tenant.Set(func(s *microsoft.Settings) { s.SignInFrequency = time.Hour })
		b.cloud.Advance(2 * time.Hour)
	},
	"password reset": func(b *bed) {
		b.token("user")
		b.signIn()
		b.tenant.Revoke(b.vars["user upn"])
		b.tenant.Revoke(b.tenant.Admin)
	},
	"user deleted": func(b *bed) {
		b.signInAs(b.vars["user upn"])
		b.tenant.Edit(func(s *microsoft.State) { s.DeleteUser(s.User(b.vars["user"])) })
	},
	"user disabled": func(b *bed) {
		b.token("user")
		b.signInAs(b.vars["user upn"])
		b.tenant.Edit(func(s *microsoft.State) { s.User(b.vars["user"]).Disabled = true })
	},
	"code": func(b *bed) { b.vars["code"] = b.code(b.tenant.Admin, graph) },
	"code, 11 minutes later": func(b *bed) {
		b.vars["code"] = b.code(b.tenant.Admin, graph)
		b.cloud.Advance(11 * time.Minute)
	},
	"code redeemed": func(b *bed) {
		b.vars["code"] = b.code(b.tenant.Admin, graph)
		b.redeem(b.vars["code"], nil)
	},
	"device code":                   func(b *bed) { b.deviceCode() },
	"device code, 16 minutes later": func(b *bed) { b.deviceCode(); b.cloud.Advance(16 * time.Minute) },
	"device declined":               func(b *bed) { b.enter(b.deviceCode(), "cancel") },
	"device blocked": func(b *bed) {
		b.tenant.Set(func(s *microsoft.Settings) { s.BlockDeviceCode = true })
		b.enter(b.deviceCode(), "accept")
	},
	"personal account": func(b *bed) {
		t := b.cloud.AddTenant(microsoft.Spec{Name: "personal", ID: microsoft.PersonalTenant})
		t.Edit(func(s *microsoft.State) { s.AddUser(&microsoft.User{UPN: b.vars["personal"]}) })
	},
	"two hours later": func(b *bed) { b.token("admin"); b.cloud.Advance(2 * time.Hour) },
	"page token expired": func(b *bed) {
		link, _ := b.graph("admin", "GET", "/users?$top=20", nil, 200)["@odata.nextLink"].(string)
		_, b.vars["page"], _ = strings.Cut(link, "skiptoken=")
		b.tenant.ExpirePages()
	},
	"delta token, 8 days later": func(b *bed) {
		b.deltaToken()
		b.cloud.Advance(8 * 24 * time.Hour)
		clear(b.tokens)
	},
	"delta token lost": func(b *bed) {
		b.deltaToken()
		b.tenant.Set(func(s *microsoft.Settings) { s.DeltaLostStatus = 400 })
		b.tenant.LoseDelta()
	},
	"many domains": func(b *bed) {
		b.tenant.Edit(func(s *microsoft.State) {
			for i := range 5000 {
				s.Domains = append(s.Domains, &microsoft.Domain{Name: fmt.Sprintf("d%d.example", i)})
			}
		})
	},
	"own domain": func(b *bed) { b.graph("admin", "POST", "/domains", object{"id": "new.example"}, 201) },
	"domain verified elsewhere": func(b *bed) {
		b.graph("admin", "POST", "/domains", object{"id": "new.example"}, 201)
		b.publish("new.example")
		b.other.Edit(func(s *microsoft.State) {
			s.Domains = append(s.Domains, &microsoft.Domain{Name: "new.example", Verified: true, Root: true})
		})
	},
	"user in a domain":       func(b *bed) { b.usersInDomain(1) },
	"1001 users in a domain": func(b *bed) { b.usersInDomain(1001) },
	"domain being deleted": func(b *bed) {
		b.usersInDomain(1)
		b.tenant.Set(func(s *microsoft.Settings) { s.ForceDeleteDelay = time.Hour })
		b.graph("admin", "POST", "/domains/new.example/forceDelete", object{"disableUserAccounts": true}, 204)
	},
	"user without usage location": func(b *bed) {
		b.tenant.Edit(func(s *microsoft.State) { s.User(b.vars["user"]).UsageLocation = "" })
	},
	"no seats": func(b *bed) {
		b.tenant.Edit(func(s *microsoft.State) { s.SKUs[0].Enabled, s.SKUs[0].Suspended = 0, 50 })
	},
	"licence taken from a holder": func(b *bed) {
		b.hold("online")
		b.tenant.Edit(func(s *microsoft.State) { s.Unlicense(s.User(b.vars["user"]), b.vars["sku"]) })
	},
	"number from on premises": func(b *bed) { b.hold("onPremises") },
	"rule on the gateway": func(b *bed) {
		b.teams("admin", "PUT", "/Skype.Policy/configurations/OnlinePSTNGateway/configuration/sbc.contoso.example",
			object{"Key": object{}, "InboundPstnNumberTranslationRules": []string{"Foreign-1"}}, 200)
	},
	"policy assigned": func(b *bed) {
		b.teams("admin", "PATCH", "/Skype.Policy/users/"+b.vars["user"]+"/policies/TenantDialPlan",
			object{"PolicyName": "Foreign-1"}, 200)
	},
}

func (b *bed) signIn() { b.signInAs(b.tenant.Admin) }

func (b *bed) signInAs(upn string) {
	b.t.Helper()
	_, o := b.redeem(b.code(upn, graph+" offline_access"), nil)
	b.vars["refresh"], _ = o["refresh_token"].(string)
	if b.vars["refresh"] == "" {
		b.t.Fatalf("no refresh token: %v", o)
	}
}

func (b *bed) authorize() string {
	return b.cloud.URL(microsoft.Login) + "/" + b.tenant.ID + "/oauth2/v2.0/authorize?client_id=" + clientID +
		"&redirect_uri=" + callback + "&response_type=code&scope=" + graph + "%20offline_access&state=s"
}

// deviceCode asks for a device code and returns the user code.
func (b *bed) deviceCode() string {
	b.t.Helper()
	_, o := b.form("/"+b.tenant.ID+"/oauth2/v2.0/devicecode", map[string]string{"client_id": microsoft.CommandLineApp,
		"scope": "User.Read offline_access"})
	b.vars["device"], _ = o["device_code"].(string)
	user, _ := o["user_code"].(string)
	if user == "" {
		b.t.Fatalf("device code: %v", o)
	}

	return user
}

func (b *bed) enter(code, action string) {
	b.t.Helper()
	if _, err := b.cloud.Walk(b.t.Context(), b.cloud.URL(microsoft.Login)+"/common/oauth2/deviceauth?code="+code,
		b.tenant.Admin, map[string][]string{"code": {code}, "action": {action}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) deltaToken() {
	b.t.Helper()
	o := b.graph("admin", "GET", "/users/delta?$deltatoken=latest", nil, 200)
	link, _ := o["@odata.deltaLink"].(string)
	_, b.vars["delta"], _ = strings.Cut(link, "deltatoken=")
}

func (b *bed) usersInDomain(n int) {
	b.tenant.Edit(func(s *microsoft.State) {
		s.Domains = append(s.Domains, &microsoft.Domain{Name: "new.example", Verified: true, Root: true})
		for i := range n {
			s.AddUser(&microsoft.User{UPN: "u" + strconv.Itoa(i) + "@new.example"})
		}
	})
}

// hold gives the user a number.
func (b *bed) hold(source string) {
	b.tenant.Edit(func(s *microsoft.State) {
		s.Numbers["+3221231212"] = &microsoft.Number{Number: "+3221231212", Target: b.vars["user"], Source: source,
			Uploaded: true}
	})
}

// TestRefusals plays each row of the table against a cloud of its own.
func TestRefusals(t *testing.T) {
	raw, err := os.ReadFile("data/refusals.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []refusal
	if err := json.Unmarshal(raw, &rows); err != nil {
		t.Fatal(err)
	}
	shared := newBed(t)
	before := string(shared.tenant.Dump())
	for _, row := range rows {
		if row.Source == "" {
			t.Errorf("%s has no source", row.Name)
		}
		if row.Situation == "never" {
			continue
		}
		t.Run(row.Name, func(t *testing.T) {
			b := shared // a refused request has no effect
			if row.Situation != "" {
				b = newBed(t)
			}
			b.t = t
			play(b, row)
		})
	}
	if after := string(shared.tenant.Dump()); after != before {
		t.Error("refused requests changed the tenant")
	}
}

func play(b *bed, row refusal) {
	t := b.t
	if status, ok := strings.CutPrefix(row.Situation, "fault "); ok {
		n, _ := strconv.Atoi(status)
		f := microsoft.Fault{Kind: microsoft.Refuse, Status: n, Path: "/me$"}
		if n > 1000 {
			f.Kind, f.Path = microsoft.AADSTS, "/token$"
			b.signIn()
		} else {
			b.token(row.Request.As)
		}
		b.cloud.Inject(f)
	} else if row.Situation != "" {
		situations[row.Situation](b)
	}

	q := row.Request
	text, _ := json.Marshal(q)
	filled := string(text)
	for name, v := range b.vars {
		filled = strings.ReplaceAll(filled, "{"+name+"}", v)
	}
	for _, how := range []string{"stranger", "audience", "subject", "old"} {
		if strings.Contains(filled, "{assertion "+how+"}") {
			filled = strings.ReplaceAll(filled, "{assertion "+how+"}", b.assertion(how))
		}
	}
	if err := json.Unmarshal([]byte(filled), q); err != nil {
		t.Fatal(err)
	}
	if q.Service == "login" {
		b.playLogin(row)
		return
	}
	header, as := map[string]string{}, q.As
	if q.Service == "teams" {
		header["X-MS-Forest"] = "sim1"
		if !strings.HasSuffix(as, " for teams") {
			as += " for teams"
		}
	}
	for name, v := range q.Headers {
		header[name] = v
	}
	res, o := b.do(b.cloud.URL(microsoft.Service(q.Service)), q.Method, q.Path, as, header, q.Body)
	e, _ := o["error"].(object)
	message, _ := e["message"].(string)
	if res.StatusCode != row.Status || e["code"] != row.Code || !matches(message, row.Message) {
		t.Errorf("%s %s = %d %v, want %d %s %q", q.Method, q.Path, res.StatusCode, o, row.Status, row.Code, row.Message)
	}
	if q.Service == "graph" && res.Header.Get("request-id") == "" {
		t.Error("no request-id")
	}
}

// matches compares a message with its template.
func matches(got, template string) bool {
	for _, part := range strings.FieldsFunc(strings.NewReplacer("%s", "\x00", "%d", "\x00", "%v", "\x00").
		Replace(template), func(r rune) bool { return r == 0 }) {
		if !strings.Contains(got, part) {
			return false
		}
	}
	return got != ""
}

func (b *bed) playLogin(row refusal) {
	q := row.Request
	want := "AADSTS" + strconv.Itoa(row.AADSTS) + ": "
	if strings.HasSuffix(q.Path, "/token") && q.Method == "POST" {
		status, o := b.form(q.Path, q.Form)
		codes, _ := o["error_codes"].([]any)
		suberror, _ := o["suberror"].(string)
		text, _ := o["error_description"].(string)
		if status != row.Status || o["error"] != row.Code || len(codes) != 1 || codes[0] != float64(row.AADSTS) ||
			suberror != row.Suberror || !strings.HasPrefix(text, want) || !matches(text, row.Message) {
			b.t.Errorf("%v = %d %v, want %+v", q.Form, status, o, row)
		}
		return
	}
	var text string
	if q.Method == "POST" {
		given := map[string][]string{}
		for name, v := range q.Form {
			given[name] = []string{v}
		}
		to, err := b.cloud.Walk(b.t.Context(), b.cloud.URL(microsoft.Login)+q.Path, "", given)
		switch {
		case err != nil:
			text = err.Error()
		case to == nil:
			b.t.Fatal("no redirect and no error")
		default:
			text = to.Query().Get("error_description")
			if to.Query().Get("error") != row.Code || to.Query().Get("state") != "s" {
				b.t.Errorf("redirected to %s, want error %s", to, row.Code)
			}
		}
	} else {
		res, o := b.do(b.cloud.URL(microsoft.Login), q.Method, q.Path, "", nil, nil)
		if text, _ = o["text"].(string); text == "" {
			text, _ = o["error_description"].(string)
		}
		if to, err := res.Location(); err == nil {
			text = to.Query().Get("error_description")
		} else if res.StatusCode != row.Status {
			b.t.Errorf("GET %s = %d %s, want %d", q.Path, res.StatusCode, text, row.Status)
		}
	}
	text = strings.NewReplacer("&#39;", "'", "&#34;", `"`).Replace(text)
	if !strings.Contains(text, want) || !matches(text, row.Message) {
		b.t.Errorf("%s %s answers %q, want %s%s", q.Method, q.Path, text, want, row.Message)
	}
}
