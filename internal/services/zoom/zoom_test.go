package zoom_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg/legtest"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

func TestMessages(t *testing.T) { legtest.Run(t, "testdata", zoom.New(legtest.Rules(t))) }
