//go:build deep

package replica

import "testing"

func TestMillionAccountsWithFourSetsOfServices(t *testing.T) { manyAccounts(t, 1_000_000) }
