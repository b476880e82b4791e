package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestTextNeverPrints(t *testing.T) {
	const value = "hunter2-hunter2"
	s := New(value)
	type wrapper struct {
		Secret Text `json:"secret"`
	}
	var printed []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		printed = append(printed, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, wrapper{s}),
			fmt.Sprintf(verb, []Text{s}))
	}
	j, err := json.Marshal(wrapper{s})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "wrapped", wrapper{s})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "wrapped", wrapper{s})
	printed = append(printed, string(j), log.String(), fmt.Errorf("with %w and %v", errors.New("x"), s).Error())
	for _, p := range printed {
		if strings.Contains(p, "hunter2") || strings.Contains(p, fmt.Sprintf("%x", value)) {
			t.Errorf("the secret shows in %q", p)
		}
	}
	if s.Reveal() != value {
		t.Error("Reveal is wrong")
	}
}

func open(t *testing.T, dir string) *Keyring {
	t.Helper()
	k, err := Open(dir, Default(), os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealedValuesOpenAtTheirPlaceOnly(t *testing.T) {
	k := open(t, t.TempDir())
	at := Place{"issuer_keys", "k1", "private"}
	sealed, err := k.Seal(at, []byte("private key"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("private key")) {
		t.Fatal("the sealed value holds the plain text")
	}
	if got, err := k.Open(at, sealed); err != nil || string(got) != "private key" {
		t.Fatalf("Open = %q, %v", got, err)
	}
	for _, other := range []Place{{"issuer_keys", "k2", "private"}, {"issuer_keys", "k1", "public"},
		{"clients", "k1", "private"}, {`issuer_keys"/"k1`, "private", ""}, {}} {
		if _, err := k.Open(other, sealed); !errors.Is(err, ErrNotOpened) {
			t.Errorf("Open at %v = %v, want ErrNotOpened", other, err)
		}
	}
	for i := range sealed {
		broken := bytes.Clone(sealed)
		broken[i] ^= 1
		if _, err := k.Open(at, broken); !errors.Is(err, ErrNotOpened) {
			t.Fatalf("a value with byte %d changed opens", i)
		}
	}
	for n := range sealed {
		if _, err := k.Open(at, sealed[:n]); !errors.Is(err, ErrNotOpened) {
			t.Fatalf("a value cut to %d bytes opens", n)
		}
	}
	if _, err := open(t, t.TempDir()).Open(at, sealed); !errors.Is(err, ErrNotOpened) {
		t.Error("another node's keyring opens the value")
	}
}

func TestKeyringFileMustBePrivate(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	st, err := os.Stat(k.path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("keyring file: %v, mode %v; want 0600", err, st.Mode())
	}
	if err := os.Chmod(k.path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Default(), os.Getenv); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("Open of a file others can read = %v, want the remedy", err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "keyring.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Default(), os.Getenv); err == nil || !strings.Contains(err.Error(), "not a keyring file") {
		t.Errorf("Open of a broken file = %v", err)
	}
	if _, err := Open(dir, Config{KeyEnvironment: "K"}, func(string) string { return "" }); err == nil ||
		!strings.Contains(err.Error(), "K is empty") {
		t.Errorf("Open with an empty variable = %v", err)
	}
	if _, err := Open(dir, Config{KeyEnvironment: "K"}, func(string) string { return "s3cr3t!" }); err == nil ||
		strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("Open with a bad variable = %v; must fail without quoting it", err)
	}
	if errs := (&Config{}).Validate(); len(errs) != 1 {
		t.Errorf("Validate of an empty configuration = %v, want one problem", errs)
	}
}

func TestTwoProcessesStartingAtOnceShareOneKeyring(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	ids := make([]uint32, 8)
	for i := range ids {
		wg.Go(func() {
			if k, err := Open(dir, Default(), os.Getenv); err != nil {
				t.Error(err)
			} else {
				ids[i], _ = k.ids()
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("primary keys differ: %v", ids)
		}
	}
	if l, err := os.ReadDir(dir); err != nil || len(l) != 1 {
		t.Errorf("files left: %v, %v; want the keyring only", l, err)
	}
}
