package demo

import (
	"cmp"
	_ "embed"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/sim/lab"
)

// width is the maximum number of columns of the view.
const width = 80

// view prints the demonstration for a reader who has never seen Tandem.
type view struct {
	out   io.Writer
	dir   string
	group string // the last heading
}

func (v *view) line(format string, args ...any) { fmt.Fprintf(v.out, format+"\n", args...) }

// field prints a label and a text that is wrapped under itself.
func (v *view) field(label, value string) {
	v.lines(fmt.Sprintf("   %-11s", label), strings.Repeat(" ", 14), value)
}

// lines prints a text that is wrapped: its first line after first, the others after next.
func (v *view) lines(first, next, text string) {
	for _, l := range wrap(text, width-1-len(next)) {
		v.line("%s%s", first, l)
		first = next
	}
}

// wrap returns the lines of a text. Only words that are too long are split: header values have no spaces to break at.
func wrap(s string, width int) []string {
	lines := strings.Split(text.WrapSoft(s, width), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

//go:embed heading.txt
var headingText string

func (v *view) heading() { fmt.Fprint(v.out, headingText) }

func (v *view) started(p *Product) {
	v.line("1  Started")
	v.field("Tandem", fmt.Sprintf("process %d, data in %s", p.PID(), v.dir))
	v.field("neighbours", "3 core trunks, 5 Teams edges, 1 Zoom edge, 1 secondary name server, Microsoft's cloud: "+
		"simulators as strict as the published pages; certificates on both sides of every SIP connection")
	v.line("")
}

func (v *view) provisioned(n Provisioned, first api.Event) {
	v.line("2  Provisioned over HTTP, as a BSS does it")
	v.field("customers", fmt.Sprintf("northwind (Direct Routing), fabrikam (Operator Connect and Phone Mobile), "+
		"contoso (Zoom): %s, %s in %s", domain.Count(n.Customers, "account"), domain.Count(n.Numbers, "number"),
		domain.Count(n.Requests, "request")))
	v.field("events", fmt.Sprintf("%s %s by %s: the first that arrived, as tandem events shows it", first.Kind,
		first.Subject, first.Actor.ID))
	v.field("token", "from Tandem's own issuer: tandem token --role ProvisioningAPI.Admin")
	v.line("")
}

func (v *view) stage(s Stage) {
	const pad = "   "
	v.lines("3  ", pad, s.Title)
	for _, seen := range s.Seen {
		v.lines(pad+"| ", pad+"|   ", seen)
	}
	for _, p := range s.Problems {
		v.lines(pad, pad, "PROBLEM: "+p)
	}
	v.line("")
}

func (v *view) tenants() {
	v.line("")
	v.lines("5  ", "   ", fmt.Sprintf("Microsoft 365 tenants are onboarded: the operator's, and the customer adatum's "+
		"with %d users. Microsoft's services are simulated: what takes them minutes takes seconds here.",
		lab.CustomerUsers))
}

// begin, seen and end show a stage as it happens.
func (v *view) begin(s *Stage) {
	v.line("")
	v.lines(fmt.Sprintf("   %-10s ", s.Name), strings.Repeat(" ", 14), s.Title)
}

func (v *view) seen(line string) { v.lines("     | ", "     |   ", line) }

func (v *view) end(s *Stage) {
	for _, p := range s.Problems {
		v.lines("     ", "     ", "PROBLEM: "+p)
	}
	mark := "ok"
	if !s.Passed {
		mark = "FAIL; the stages after it need it and were left out"
	}
	v.line("     %.1f s  %s", s.Seconds, mark)
}

func (v *view) calls() {
	v.line("4  Calls. Below each: what to look at, then what the far side received (|).")
}

// row is the format of a table row: mark, caller, called, reached, final answer and duration of the whole call.
const row = "%-5s%-15s%-15s%-13s%-26s%5s"

func (v *view) call(r lab.Result) {
	if g := groupOf(r); g != v.group {
		v.group = g
		v.line("")
		v.line(" %s", g)
		v.line(" "+row, "", "caller", "called", "reached", "answer to the caller", "ms")
		v.line(" %s", strings.Repeat("-", width-1))
	}
	mark := "ok"
	if !r.Passed {
		mark = "FAIL"
	}
	answer := wrap(r.Expected, 25)
	if !strings.HasPrefix(r.Expected, fmt.Sprint(r.Status)) {
		answer = wrap(fmt.Sprintf("%d, expected %s", r.Status, r.Expected), 25)
	}
	v.line(" "+row, mark, r.From, r.To, cmp.Or(r.Arrived, "none"), answer[0], fmt.Sprint(r.Took.Milliseconds()))
	for _, l := range answer[1:] {
		v.line("%s", strings.TrimRight(fmt.Sprintf(" "+row, "", "", "", "", l, ""), " "))
	}
	title := r.Title
	if r.LookAt != "" {
		title += ": " + r.LookAt
	}
	const pad = "      "
	v.lines(pad, pad, title)
	for _, h := range telling(r) {
		v.lines(pad+"| ", pad+"|   ", h)
	}
	for _, p := range r.Problems {
		v.lines(pad, pad, "PROBLEM: "+p)
	}
}

// groupOf returns the heading of a call.
func groupOf(r lab.Result) string {
	if r.Status != 200 || strings.HasPrefix(r.Name, "failover") || r.Name == "forwarded" || r.Name == "referred" {
		return "Rules: screening, forwarding, failover, refusals"
	}
	if s, ok := services.All().Services().ByName(r.Service); ok {
		return s.Traits().Title
	}
	return r.Service
}

// telling returns the headers of a call that are worth showing.
func telling(r lab.Result) []string {
	var out []string
	pick := func(names ...string) {
		for _, n := range names {
			if v, ok := r.Headers[n]; ok {
				out = append(out, n+": "+v)
			}
		}
	}
	if r.Warning != "" {
		out = append(out, "to the caller: Warning: "+r.Warning)
	}
	if r.Direction == "to-service" {
		switch r.Service {
		case "zoomPhoneCloudPeering":
			pick("P-Asserted-Identity")
		case "teamsDirectRouting":
			pick("Contact")
		default:
			pick("X-MS-SBC")
		}
		for n, v := range r.Headers {
			if name, ok := strings.CutPrefix(n, "200 "); ok {
				out = append(out, "to the caller, on 200: "+name+": "+v)
			}
		}
		return out
	}
	pick("X-MS-Operator-Content", "X-MS-TenantID", "X-MS-FMC", "History-Info", "Referred-By", "Privacy")
	return out
}

func (v *view) summary(d Document) {
	v.line("")
	v.line("6  Result: %d calls and %d other stages, %d passed, %d failed", len(d.Calls), len(d.Stages), d.Passed,
		d.Failed)
	v.line("")
}

//go:embed hints.txt
var hintsText string

// hints prints what to try while everything is running.
func (v *view) hints(p *Product) {
	fmt.Fprintf(v.out, hintsText, p.Executable, p.Dir, p.Ready.Provisioning, client.APIVersion, p.Ready.Metrics,
		p.Config, p.LogFile)
}
