package node

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/zone"
)

func TestLoggerRedactsByDefault(t *testing.T) {
	t.Parallel()
	number := domain.E164("+442079460123")
	for _, c := range []struct {
		numbers, format string
		hidden          bool
	}{{"redacted", "text", true}, {"redacted", "json", true}, {"full", "text", false}, {"full", "json", false}} {
		var b strings.Builder
		log := newLogger(&b, config.Log{Level: "info", Format: c.format, Numbers: c.numbers})
		log.With("by", number).Info("call to +442079460123", "to", number, "uri", "sip:+442079460123@x",
			"error", errors.New("no +442079460123"), "dialled", domain.Dialled("020-7946-0123"),
			"text", domain.Text("not 020-7946-0123"), "names", []string{"acme-02079460123"})
		_, attrs, _ := strings.Cut(b.String(), "level") // after the time, which may contain any digits
		if got := strings.Contains(attrs, "0123"); got == c.hidden {
			t.Errorf("numbers=%s format=%s: %s", c.numbers, c.format, b.String())
		}
		if n := strings.Count(attrs, "0123"); !c.hidden && n != 8 {
			t.Errorf("full log shows %d of 8 numbers: %s", n, b.String())
		}
	}
}

// TestIdentifiersStayWhole: a Call-ID must be found in a trace, a file on disk, a serial at a name server.
func TestIdentifiersStayWhole(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	log := newLogger(&b, config.Log{Level: "info", Format: "json", Numbers: "redacted"})
	log.Info("x", "call_id", "15551239987@192.0.2.1", "file", "/var/lib/tandem/calls/calls-20261128T120000.jsonl",
		"serial", zone.Serial(1795941150), "level2", slog.LevelWarn, "reason", "15551239987@192.0.2.1")
	for _, want := range []string{`"call_id":"15551239987@192.0.2.1"`, "calls-20261128T120000", `"serial":"1795941150"`,
		`"level2":"WARN"`,
		`"reason":"1555123…@192.0.2.1"`, `"level":"INFO"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s is not in %s", want, &b)
		}
	}
	b.Reset()
	log.Info("x", "call_id", "+15551239987@192.0.2.1")
	if _, attrs, ok := strings.Cut(b.String(), `"level"`); !ok || strings.Contains(attrs, "9987") { // after the time
		t.Errorf("a number is in %s", &b)
	}
}

// TestLevelsOfParts: each part of the process has its own level, also after a change.
func TestLevelsOfParts(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	log := newLogger(&b, config.Log{Level: "warn", Levels: map[string]string{"edge": "debug"}, Format: "text"})
	edge, index := log.With("part", "edge").With("x", 1), log.With("part", "index")
	say := func() string {
		b.Reset()
		for _, l := range []*slog.Logger{log, edge, index} {
			l.Debug("d")
			l.Info("i")
			l.Warn("w")
		}
		var got []string
		for line := range strings.Lines(b.String()) {
			_, rest, _ := strings.Cut(line, "msg=")
			got = append(got, strings.TrimSpace(rest))
		}
		return strings.Join(got, ", ")
	}
	if got, want := say(), "w, d part=edge x=1, i part=edge x=1, w part=edge x=1, w part=index"; got != want {
		t.Errorf("logged %s, want %s", got, want)
	}
	log.Handler().(leveled).set(config.Log{Level: "info", Levels: map[string]string{"index": "error", "edge": "warn"}})
	if got, want := say(), "i, w, w part=edge x=1"; got != want {
		t.Errorf("logged %s after the change, want %s", got, want)
	}
}

// TestEveryPartHasALevel: log.levels accepts the names that the log uses.
func TestEveryPartHasALevel(t *testing.T) {
	t.Parallel()
	var parts []string
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range regexp.MustCompile(`With\("part", "([a-z]+)"\)`).FindAllStringSubmatch(string(text), -1) {
			parts = append(parts, m[1])
		}
	}
	slices.Sort(parts)
	if got, want := slices.Compact(parts), config.LogParts(); !slices.Equal(got, want) {
		t.Errorf("parts in the log: %v; in log.levels: %v", got, want)
	}
}
