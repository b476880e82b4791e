package phonemobile_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg/legtest"
	"github.com/tandemgw/tandem/internal/services/phonemobile"
)

func TestMessages(t *testing.T) { legtest.Run(t, "testdata", phonemobile.New(legtest.Rules(t))) }
