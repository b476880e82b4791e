package operatorconnect_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/calls/leg/legtest"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
)

func TestMessages(t *testing.T) { legtest.Run(t, "testdata", operatorconnect.New(legtest.Rules(t))) }
