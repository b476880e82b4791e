package db_test

import (
	"log/slog"
	"os"
	"strings"
)

var discard = slog.New(slog.DiscardHandler)

func pid() int { return os.Getpid() }

// replaceDatabase and replaceRole change one part of a test cluster's connection string.
func replaceDatabase(url, name string) string {
	_, host, _ := strings.Cut(url, "?")
	return "postgres://postgres@/" + name + "?" + host
}

func replaceRole(url string) string {
	return strings.Replace(url, "postgres://postgres@", "postgres://no_such_role@", 1)
}
