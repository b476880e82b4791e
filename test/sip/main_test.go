// Package sip_test drives the real program, as a child process, with real SIP peers: sipgo agents over TLS, TCP and
// UDP, SIPp over UDP and TCP, Kamailio over TLS. docs/verification.md lists what it verifies.
package sip_test

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/tandemgw/tandem/test/rig"
)

// TestMain runs more tests in parallel than there are processors: they wait for timers most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	rig.Main(m)
}

// need skips the test if a program is missing, or fails it if the variable TANDEM_REQUIRE_<name> is set.
func need(t *testing.T, variable, program string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv(variable) != "" {
		t.Fatalf("%s is missing: %v; `make setup` installs it", program, err)
	}
	t.Skipf("%s is missing: %v; `make setup` installs it", program, err)
}

// patience bounds each wait for something that must happen; only failing tests use it up.
const patience = 90 * time.Second

// within returns a context that bounds the waiting of a test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
