package db_test

import (
	"log/slog"
	"os"
)

var discard = slog.New(slog.DiscardHandler)

func pid() int { return os.Getpid() }
