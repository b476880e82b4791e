package phonemobile_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/services/phonemobile"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

func TestMessages(t *testing.T) { legtest.Run(t, "testdata", legtest.Profile(t, phonemobile.New)) }
