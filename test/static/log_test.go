//go:build deep

package static

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/client"
)

// TestLogReaderUnderLoad places 100 calls a second while standard error is a pipe that nothing reads, and whose reader
// is closed halfway. Meanwhile requests to the API and SIP from an unknown source cause log lines. No call may fail,
// health and the API must answer, dropped lines must be counted, and SIGTERM must end the process in time.
// TANDEM_STATIC_FOR is how long calls are placed.
func TestLogReaderUnderLoad(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() // already closed unless the test failed
	s := newSite(t, "")
	s.stderr = writer
	s.start(t)
	_ = writer.Close() // the program has its own copy
	s.provision(t)

	total := loadFor(t)
	each := 25 * int(total.Seconds())
	limit := total + 90*time.Second
	ctx, cancel := context.WithTimeout(t.Context(), limit+30*time.Second)
	defer cancel()
	var fromCore, fromTeams []call
	for i := range perKind {
		for _, first := range []int64{firstDR, firstOC, firstZoom} {
			n := nth(first, i)
			fromCore = append(fromCore, call{outside, n, s.trunks["core"].bind, usual(n)})
		}
		fromTeams = append(fromTeams, call{nth(firstDR, i), outside, label + ".1r1." + baseDomain, ""})
	}
	var takers []*sipp
	for _, x := range []string{"direct-routing", "operator-connect", "zoom", "core"} {
		takers = append(takers, s.take(ctx, t, x, each, limit))
	}
	callers := []*sipp{
		s.place(ctx, t, "core", fromCore, 3*each, 75, 2*time.Second, limit),
		s.place(ctx, t, "direct-routing", fromTeams, each, 25, 2*time.Second, limit),
	}

	// Make the log grow: each request causes a line, and a packet from an unknown source may.
	chatting, hush := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var asked int
	wg.Go(func() {
		stranger, err := net.Dial("udp", s.trunks["core"].bind)
		if err != nil {
			t.Error(err)
			return
		}
		defer stranger.Close()
		pace := time.NewTicker(2 * time.Millisecond) // the calls need the processors
		defer pace.Stop()
		for ; ; asked++ {
			rctx, done := context.WithTimeout(chatting, 20*time.Second)
			_, err := s.local.Account(rctx, fmt.Sprintf("an-account-with-a-long-name-that-is-not-there-%d", asked))
			done()
			if chatting.Err() != nil {
				return
			}
			if !client.IsNotFound(err) {
				t.Errorf("request %d: %v; want 404", asked, err)
				return
			}
			if a, err := s.readyz(chatting, ""); asked%100 == 0 && chatting.Err() == nil &&
				(err != nil || a.status != 200) {
				t.Errorf("/readyz after %d requests: %v %v", asked, a, err)
			}
			_, _ = stranger.Write([]byte("OPTIONS sip:x SIP/2.0\r\n\r\n")) // it gets no response
			select {
			case <-pace.C:
			case <-chatting.Done():
				return
			}
		}
	})
	pause(t, total/2)
	stuck := s.metric(t, "tandem_log_dropped_total")
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	sent := finish(t, callers...)
	hush()
	wg.Wait()
	took := finish(t, takers...)
	dropped := s.metric(t, "tandem_log_dropped_total")
	t.Logf("%d calls placed (%d correct, %d failed), %d accepted correctly; %d requests; lines dropped: %v with a "+
		"stuck reader, %v at the end", 4*each, sent.ok, sent.failed, took.ok, asked, stuck, dropped)
	if sent.ok != 4*each || took.ok != 4*each {
		t.Errorf("%d placed and %d accepted calls were correct, want %d each", sent.ok, took.ok, 4*each)
	}
	if dropped == 0 || dropped < stuck {
		t.Errorf("%v lines dropped", dropped)
	}
	s.checkRecords(t, 4*each)
	s.stop(t)
}
