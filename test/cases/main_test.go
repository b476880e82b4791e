// Package cases_test holds inputs that the program once answered wrongly, each with the right answer and its clause.
// The answers come from RFCs and our contracts, never from the code: the package starts the built program on its own
// loopback addresses and talks to it with a SIP sender and receiver that share nothing with internal/calls/sip.
//
// The numbers in test names are those of the cases. The given input is testdata/NN-….sip if one request is enough;
// variants of the same kind follow it.
package cases_test

import (
	"embed"
	"flag"
	"runtime"
	"testing"
	"time"

	"github.com/tandemgw/tandem/test/rig"
)

//go:embed testdata
var testdata embed.FS

// patience limits each wait for something that must happen. It is generous: it is used up only when a test fails.
const patience = 90 * time.Second

// TestMain runs more tests in parallel than there are processors: they wait most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if runtime.GOOS != "linux" {
		return // the tests bind addresses of 127.0.0.0/8 other than 127.0.0.1
	}
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	rig.Main(m)
}
