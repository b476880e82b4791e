package pace

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Start(t)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := c.Now(); got != time.Second {
			t.Errorf("Now() = %v after a second, want %v", got, time.Second)
		}
	})
}
