package domain_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/domain"
)

func TestCount(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0 users", 1: "1 user", 2: "2 users"} {
		if got := domain.Count(n, "user"); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}
