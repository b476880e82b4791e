package operatorconnect_test

import (
	"testing"

	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/testkit/legtest"
)

func TestMessages(t *testing.T) { legtest.Run(t, "testdata", legtest.Profile(t, operatorconnect.New)) }
