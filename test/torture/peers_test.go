//go:build deep && linux

package torture

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

var update = flag.Bool("update", false, "rewrite docs/sip-torture.md from this run")

const document = "../../docs/sip-torture.md"

// TestPeers passes every case to Tandem, sipgo's parser and Kamailio and compares the table with the document.
func TestPeers(t *testing.T) {
	k := startKamailio(t)
	var b strings.Builder
	b.WriteString(preamble(k.version))
	for _, s := range sections() {
		fmt.Fprintf(&b, "\n## %s\n\n| Case | Property | Tandem | Rule | sipgo | Kamailio |\n", s.title)
		b.WriteString("|---|---|---|---|---|---|\n")
		for _, c := range s.cases {
			name := c.name
			if c.ref != "" {
				name += "<br>(" + c.ref + ")"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", name, c.about, ourVerdict(&c), c.clause,
				sipgoVerdict(&c), k.verdict(t, &c))
		}
	}
	if *update {
		if err := os.WriteFile(document, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Errorf("%s differs from this run; check the difference, then run with -update:\n%s", document,
			diff(string(have), b.String()))
	}
}

// preamble returns the page up to the first table of cases. In its source, ~ stands for a backquote.
func preamble(version string) string {
	return strings.ReplaceAll(fmt.Sprintf(`# SIP torture cases

How Tandem answers messages that are malformed or hard to parse, compared with two open-source stacks. The messages are
in ~test/torture/cases_test.go~: our own wording and values, written to have the property that the named case of
RFC 4475 or RFC 5118 tests. This page is written by

    go test -tags deep ./test/torture -run Peers -update

The same command without ~-update~ fails if a verdict has changed.

- **Tandem**: parser and validator of ~internal/calls/sip~. A number is the status of the response, followed by its
  reason; *discard* is silence, for messages that must not be answered (responses, ACK, requests without Via, other
  protocols). Default limits, unless the case says otherwise.
- **sipgo** v1.7.2: its parser only, which rejects a message with an error; its server then sends no response.
- **Kamailio** (%s): a real process on a loopback port. Its configuration checks Max-Forwards, runs the default
  checks of the ~sanity~ module and those of Via and Proxy-Require, and answers 200 to messages that pass. *silence*
  means that no response arrived before the response to the next, valid request. A response counts as accepted when it
  reaches the script.

"Accept" is not always right, nor a rejection always wrong: the RFCs leave several cases to the receiver. The rule
column names the rule that Tandem follows.

## What is checked, and what passes unchanged

Tandem checks the fields that it acts on, in this order, and answers with the first problem found. The reason phrase of
a 400 says what is wrong; the ~Warning: 399~ of every rejection says it too, with the clause.

| Checked | Response |
|---|---|
| start line: method, one space, URI, one space, ~SIP/2.0~; Request-URI length | 400, 505 for another version, 414 |
| lines: CRLF ends, a colon, a token as name; an empty line at the end; number of lines and their size | 400, 513 |
| body: length as in Content-Length (longer datagrams are truncated, streams need the line); size | 400, 513 |
| Request-URI: sip, sips or tel, well-formed, no headers part | 416 for another scheme, 400 |
| Via, From, To, Call-ID, CSeq: present, well-formed, CSeq with the request's method; no second From, To, Call-ID, `+
		`CSeq, Max-Forwards, Content-Length, Content-Type, Expires, Session-Expires, Min-SE, Event, Refer-To, `+
		`Replaces, RAck, RSeq | 400 |
| control characters outside a quoted pair, in any field | 400 |
| Max-Forwards 0 to 255; Contact well-formed, and a SIP URI in an INVITE; Route and Record-Route; Content-Type, `+
		`which must be present with a body | 400 |
| Require and Proxy-Require (not in ACK and CANCEL) | 420 with Unsupported |
| Max-Forwards exhausted, if the request is to be forwarded | 483 |

Everything else (Date, Expires values, Authorization, Accept, P-Asserted-Identity, Identity, unknown fields …) is left
to the far side and passes byte for byte. Sizes, all configurable: start line and headers 10 KB, body 128 KB, 200 lines,
Request-URI, Contact URI and user parts 256 bytes, From host 255, header name 32, media type 64,
Supported/Require/Proxy-Require 256, option tag 32. In a response only the fields that identify its transaction are
checked; an invalid one is discarded and logged.
`, version), "~", "`")
}

func ourVerdict(c *testCase) string {
	m, p := read(c)
	switch {
	case p == nil:
		return "accept"
	case p.Answer(m, "t", "") == nil:
		return "discard"
	}
	return fmt.Sprintf("**%d** %s", p.Status, cell(p.Text))
}

func sipgoVerdict(c *testCase) (verdict string) {
	defer func() {
		if r := recover(); r != nil {
			verdict = "panic: " + cell(fmt.Sprint(r))
		}
	}()
	if _, err := sipgo.NewParser().ParseSIP([]byte(c.wire)); err != nil {
		return "error: " + cell(err.Error())
	}
	return "accept"
}

// cell returns a text that fits into a table cell.
func cell(s string) string {
	if i := strings.Index(s, "transmission beginning"); i >= 0 {
		s = "not a SIP message" // the text repeats the message
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	s = strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(s)
	if len(s) > 90 {
		s = s[:90] + "…"
	}
	return s
}

func diff(have, want string) string {
	old := map[string]bool{}
	for l := range strings.Lines(have) {
		old[l] = true
	}
	var b strings.Builder
	for l := range strings.Lines(want) {
		if !old[l] {
			b.WriteString("now: " + l)
		}
	}
	return b.String()
}

// kamailio is a running Kamailio and the socket to it.
type kamailio struct {
	version string
	conn    *net.UDPConn
	logs    chan string
	seq     int
}

const kamailioConfig = `#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=1
disable_tcp=yes
auto_aliases=no
server_signature=no
force_rport=yes
listen=udp:%s
mpath="%s"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "sanity.so"

request_route {
  xlog("L_NOTICE", "torture-request $ci\n");
  if (!mf_process_maxfwd_header("70")) { sl_send_reply("483", "Too Many Hops"); exit; }
  if (!sanity_check("18431", "15")) { exit; }
  sl_send_reply("200", "OK");
  exit;
}
reply_route {
  xlog("L_NOTICE", "torture-response $ci\n");
  drop;
}
`

// startKamailio runs Kamailio on a free loopback port until the test ends.
func startKamailio(t *testing.T) *kamailio {
	bin, err := exec.LookPath("kamailio")
	if err != nil {
		for _, p := range []string{"/usr/sbin/kamailio", "/usr/local/sbin/kamailio"} {
			if _, e := os.Stat(p); e == nil {
				bin, err = p, nil
			}
		}
	}
	if err != nil {
		if os.Getenv("TANDEM_REQUIRE_KAMAILIO") != "" {
			t.Fatal("kamailio is not installed (apt-get install kamailio)")
		}
		t.Skip("kamailio is not installed (apt-get install kamailio)")
	}
	modules, _ := filepath.Glob("/usr/lib/*/kamailio/modules")
	if len(modules) == 0 {
		t.Fatal("kamailio's modules were not found under /usr/lib")
	}
	out, _ := exec.Command(bin, "-v").Output()
	k := &kamailio{logs: make(chan string, 10000)}
	if f := strings.Fields(string(out)); len(f) > 2 {
		k.version = f[2]
	}
	k.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.conn.Close() }) // no data can be lost
	free, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := free.LocalAddr().(*net.UDPAddr)
	_ = free.Close() // Kamailio takes it next
	dir := t.TempDir()
	cfg := filepath.Join(dir, "kamailio.cfg")
	if err := os.WriteFile(cfg, fmt.Appendf(nil, kamailioConfig, addr, modules[0]+"/"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, "-DD", "-E", "-f", cfg, "-Y", dir, "-w", dir, "-m", "16", "-M", "4")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // also when the test is killed
	cmd.WaitDelay = 5 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(k.logs)
		sc := bufio.NewScanner(stderr)
		sc.Buffer(make([]byte, 1<<20), 1<<20)
		for sc.Scan() {
			k.logs <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-read
		_ = cmd.Wait() // terminated by our signal
	})
	k.conn = redial(t, k.conn, addr)
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err := k.exchange("", 250*time.Millisecond); err == nil {
			return k
		}
		if time.Now().After(deadline) {
			t.Fatalf("kamailio does not answer; its log:\n%s", strings.Join(k.drain(), "\n"))
		}
	}
}

// redial connects the socket to its peer: unconnected sockets do not report refusals. It may run before the peer
// listens.
func redial(t *testing.T, c *net.UDPConn, to *net.UDPAddr) *net.UDPConn {
	local := c.LocalAddr().(*net.UDPAddr)
	_ = c.Close() // reopened at once
	n, err := net.DialUDP("udp4", local, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() }) // no data can be lost
	return n
}

func (k *kamailio) drain() (lines []string) {
	for {
		select {
		case l, ok := <-k.logs:
			if !ok {
				return lines
			}
			lines = append(lines, l)
		default:
			return lines
		}
	}
}

// exchange sends a message followed by a valid request. It returns the responses that arrive before that to the valid
// request: a single worker handles both in order.
func (k *kamailio) exchange(wire string, wait time.Duration) (answers []*sip.Message, err error) {
	k.seq++
	id := fmt.Sprintf("probe%d@127.0.0.1", k.seq)
	probe := end(base(optionsStart, id, noBody), "")
	if wire != "" {
		if _, err := io.WriteString(k.conn, wire); err != nil {
			return nil, err
		}
	}
	if _, err := io.WriteString(k.conn, probe); err != nil {
		return nil, err
	}
	buf := make([]byte, 65536)
	for deadline := time.Now().Add(wait); ; {
		_ = k.conn.SetReadDeadline(deadline) // cannot fail on an open socket
		n, err := k.conn.Read(buf)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(deadline) {
				return answers, errors.New("no response to the valid request")
			}
			continue // refused: not listening yet
		}
		m, _ := sip.Parse(string(buf[:n]), nil)
		if m.CallID() == id {
			return answers, nil
		}
		if !strings.HasPrefix(m.CallID(), "probe") {
			answers = append(answers, m)
		}
	}
}

func (k *kamailio) verdict(t *testing.T, c *testCase) string {
	k.drain()
	answers, err := k.exchange(c.wire, time.Minute)
	if err != nil {
		t.Fatalf("%s: %v; kamailio's log:\n%s", c.name, err, strings.Join(k.drain(), "\n"))
	}
	// The probe's own line is the last relevant one.
	id := fmt.Sprintf("torture-request probe%d@", k.seq)
	request, response := false, false
	timeout := time.After(time.Minute)
	for done := false; !done; {
		select {
		case l, ok := <-k.logs:
			if !ok {
				t.Fatalf("%s: kamailio exited", c.name)
			}
			done = strings.Contains(l, id)
			request = request || !done && strings.Contains(l, "torture-request ")
			response = response || strings.Contains(l, "torture-response ")
		case <-timeout:
			t.Fatalf("%s: no log line for the valid request", c.name)
		}
	}
	switch {
	case len(answers) > 0 && answers[0].Status() == 200:
		return "accept"
	case len(answers) > 0:
		return fmt.Sprintf("**%d** %s", answers[0].Status(), cell(answers[0].Reason()))
	case response:
		return "accept"
	case request:
		return "silence (after the script saw it)"
	}
	return "silence"
}
