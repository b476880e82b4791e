package process

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/client"
)

// readLog reads the log until each of the fragments has appeared in a line, and returns those lines.
func (s *server) readLog(t *testing.T, fragments ...string) []string {
	t.Helper()
	if err := s.log.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	found := make([]string, len(fragments))
	for left := len(fragments); left > 0; {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			t.Fatalf("read the log: %v; found %q of %q", err, found, fragments)
		}
		for i, f := range fragments {
			if found[i] == "" && strings.Contains(line, f) {
				found[i] = line
				left--
			}
		}
	}
	return found
}

// withoutIdentifiers returns a line of the log without the Call-ID, which is logged whole, and without the attributes
// that may contain any digits by chance.
func withoutIdentifiers(t *testing.T, line string) string {
	t.Helper()
	var attrs map[string]any
	if err := json.Unmarshal([]byte(line), &attrs); err != nil {
		t.Fatalf("%v in the log line %s", err, line)
	}
	for _, name := range []string{"call_id", "time", "took", "request", "clientRequest"} {
		delete(attrs, name)
	}
	return fmt.Sprint(attrs)
}

// TestNumbersInTheLog logs a request for an account named after a number, and a call, whose line carries the Call-ID.
// Numbers are redacted in every line unless log.numbers is full.
func TestNumbersInTheLog(t *testing.T) {
	t.Parallel()
	for _, numbers := range []string{"redacted", "full"} {
		t.Run(numbers, func(t *testing.T) {
			t.Parallel()
			s := start(t, "--set", "log.numbers="+numbers, "--set", "log.format=json")
			if _, err := s.local.Account(t.Context(), "tel-15551239987"); !client.IsNotFound(err) {
				t.Fatal(err)
			}
			c, err := net.Dial("udp", s.ready.SIP.UDP)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// 484: a national number is not a complete address here.
			if _, err := fmt.Fprintf(c, "INVITE sip:02079469987@%[1]s SIP/2.0\r\n"+
				"Via: SIP/2.0/UDP %[2]s;branch=z9hG4bK1;rport\r\nMax-Forwards: 70\r\n"+
				"From: <sip:+15551239987@%[2]s>;tag=1\r\nTo: <sip:02079469987@%[1]s>\r\n"+
				"Call-ID: 02079469987@pbx.example\r\nCSeq: 1 INVITE\r\n"+
				"Contact: <sip:%[2]s>\r\nContent-Length: 0\r\n\r\n", c.RemoteAddr(), c.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			lines := s.readLog(t, "provisioning request", "call refused")
			if !strings.Contains(lines[0], `"source":"socket"`) {
				t.Errorf("the line of a request over the socket is: %s", lines[0])
			}
			const id = `"call_id":"02079469987@pbx.example"`
			if !strings.Contains(lines[1], id) {
				t.Errorf("a call's line has no Call-ID: %s", lines[1])
			}
			for i, want := range []int{1, 1} {
				got := strings.Count(withoutIdentifiers(t, lines[i]), "9987")
				if numbers == "redacted" && got > 0 || numbers == "full" && got < want {
					t.Errorf("log.numbers is %s: %s", numbers, lines[i])
				}
			}
			s.end(t)
		})
	}
}
