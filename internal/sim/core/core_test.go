package core_test

import (
	"context"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/sim/core"
)

func TestCoreRefusesWhatIsNoNumber(t *testing.T) {
	a, err := core.New(core.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := core.New(core.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for to, want := range map[string]int{"+15550100": 200, "999": 200, "+44999": 200, "15550100": 484, "bob": 484} {
		c, err := a.Place(ctx, core.Call{Destination: b.Addr("udp"), From: "+15550199", To: to})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := c.Wait(ctx); err != nil || m.Status() != want {
			t.Errorf("call to %s: got %v, %v, want %d", to, m, err, want)
		}
	}
	if m, err := a.Ping(ctx, "udp", b.Addr("udp")); err != nil || m.Status() != 200 {
		t.Errorf("OPTIONS: got %v, %v, want 200", m, err)
	}
}
