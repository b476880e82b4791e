package flow_test

import (
	"errors"
	"flag"
	"log"
	"log/slog"
	"os"
	"strconv"
	"testing"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/flowtest"
)

var discard = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	err := errors.Join(flag.Set("rapid.checks", strconv.Itoa(interleavings)),
		flag.Set("rapid.steps", strconv.Itoa(steps)))
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(m.Run())
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]func(testing.TB) db.Config{
		db.SQLite: testkit.SQLiteConfig, db.Postgres: testkit.PostgresConfig,
	} {
		t.Run(name, func(t *testing.T) { flowtest.Exercise(t, config, pointStep) })
	}
}

func TestTwoNodes(t *testing.T) {
	t.Parallel()
	flowtest.ExerciseTwoNodes(t, testkit.PostgresConfig)
}
