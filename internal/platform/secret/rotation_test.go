package secret

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

var errKilled = errors.New("killed")

// world is what survives the death of a process: a directory with the keyring, and sealed values.
type world struct {
	t      *testing.T
	dir    string
	values map[string][]byte
	audit  []string
	left   int // effects until the process dies; negative: it never does
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), values: map[string][]byte{}, left: -1}
	w.add(open(t, w.dir), 5)
	return w
}

func (w *world) place(name string) Place { return Place{"t", name, "c"} }

// add seals n more values.
func (w *world) add(k *Keyring, n int) {
	w.t.Helper()
	for range n {
		name := fmt.Sprint(len(w.values))
		var err error
		if w.values[name], err = k.Seal(w.place(name), []byte(name)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// effect is called before anything outside the process changes.
func (w *world) effect() error {
	if w.left == 0 {
		return errKilled
	}
	w.left--
	return nil
}

// rotation starts a process.
func (w *world) rotation() *Rotation {
	return &Rotation{
		Keyring: open(w.t, w.dir),
		Holders: []Holder{{Name: "values", Local: true, Each: func(_ context.Context, see See) error {
			for name, sealed := range w.values {
				again, err := see(w.place(name), sealed)
				if err != nil {
					return err
				}
				if bytes.Equal(again, sealed) {
					continue
				}
				if err := w.effect(); err != nil {
					return err
				}
				w.values[name] = again
			}
			return nil
		}}},
		Audit: func(_ context.Context, action, _ string, _ int, _ any) error {
			err := w.effect()
			if err == nil {
				w.audit = append(w.audit, action)
			}
			return err
		},
	}
}

// readable checks that the keyring on disk opens every value.
func (w *world) readable() {
	w.t.Helper()
	k := open(w.t, w.dir)
	for name, sealed := range w.values {
		if plain, err := k.Open(w.place(name), sealed); err != nil || string(plain) != name {
			w.t.Fatalf("value %s: %q, %v", name, plain, err)
		}
	}
}

func held(k api.Keyring) string {
	v := k.Values[0]
	return fmt.Sprintf("%d keys added, %d older; values: %d primary, %d older, %d unreadable", len(k.Added),
		len(k.Older), v.Primary, v.Older, v.Unreadable)
}

// TestRotationContinuesAfterDeathAtAnyPoint ends the process before each effect of a rotation and of removing the old
// key. Every value stays readable, and running the commands again completes them.
func TestRotationContinuesAfterDeathAtAnyPoint(t *testing.T) {
	for left := 0; ; left++ {
		w := newWorld(t)
		first := open(t, w.dir).state().Primary
		w.left = left
		_, err := w.rotation().Rotate(t.Context(), false)
		if err == nil {
			_, err = w.rotation().Prune(t.Context())
		}
		done := err == nil
		if !done && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		w.left = -1
		w.readable()
		s, err := w.rotation().Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Primary == first || older(s) > 0 {
			if s, err = w.rotation().Rotate(t.Context(), false); err != nil {
				t.Fatal(err)
			}
		}
		w.readable()
		if s.Primary == first || older(s) > 0 || s.Values[0].Primary != 5 {
			t.Errorf("killed before effect %d, rotated again: %s", left, held(s))
		}
		if s, err = w.rotation().Prune(t.Context()); err != nil || len(s.Older)+len(s.Added) > 0 {
			t.Errorf("killed before effect %d, pruned: %s, %v", left, held(s), err)
		}
		w.readable()
		if n := len(w.audit); n < 2 || w.audit[n-2] != "secret.rotate" || w.audit[n-1] != "secret.prune" {
			t.Errorf("killed before effect %d: the audit log has %v", left, w.audit)
		}
		if done {
			if left < 8 { // two rows, five values, one row
				t.Errorf("a rotation has %d effects", left)
			}
			return
		}
	}
}

// TestOldKeysStayWhileTheyAreNeeded: a value that another process sealed with the old key keeps that key.
func TestOldKeysStayWhileTheyAreNeeded(t *testing.T) {
	w := newWorld(t)
	old := open(t, w.dir)
	r := w.rotation()
	if s, err := r.Rotate(t.Context(), false); err != nil || held(s) != "0 keys added, 1 older; "+
		"values: 5 primary, 0 older, 0 unreadable" {
		t.Fatalf("Rotate: %s, %v", held(s), err)
	}
	w.add(old, 1)
	if s, err := r.Prune(t.Context()); !fault.HasCode(err, "KeysInUse") || len(s.Older) != 1 || s.Values[0].Older != 1 {
		t.Fatalf("Prune with a value in use: %s, %v", held(s), err)
	}
	// Rotating completes what is left; it adds no further key.
	before := r.Keyring.state().Primary
	if s, err := r.Rotate(t.Context(), false); err != nil || s.Primary != before || older(s) > 0 {
		t.Errorf("Rotate again: %s, %v", held(s), err)
	}
	unreadable, err := open(t, t.TempDir()).Seal(w.place("5"), []byte("5"))
	if err != nil {
		t.Fatal(err)
	}
	w.values["5"] = unreadable
	if s, err := r.Prune(t.Context()); err != nil || len(s.Older) > 0 || s.Values[0].Unreadable != 1 {
		t.Errorf("Prune with a value of another keyring: %s, %v", held(s), err)
	}
	if _, err := old.Open(w.place("0"), w.values["0"]); !errors.Is(err, ErrNotOpened) {
		t.Errorf("the removed key opens a value: %v", err)
	}
}

// TestRotationOfASharedKeyring follows the runbook with two nodes that have a copy of the keyring each: no step makes a
// node unable to open what the other seals.
func TestRotationOfASharedKeyring(t *testing.T) {
	a, b := newWorld(t), &world{t: t, dir: t.TempDir(), values: map[string][]byte{}, left: -1}
	copyKeyring := func() {
		t.Helper()
		raw, err := os.ReadFile(a.dir + "/keyring.json")
		if err == nil {
			err = WriteFile(b.dir+"/keyring.json", raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copyKeyring()
	ra, rb := a.rotation(), b.rotation()
	ra.Shared, rb.Shared = true, true
	b.add(rb.Keyring, 3)
	each := func(when string) {
		t.Helper()
		for _, x := range [][2]*Keyring{{ra.Keyring, rb.Keyring}, {rb.Keyring, ra.Keyring}} {
			token, err := x[0].SealToken("page", []byte("cursor"))
			if err == nil {
				_, err = x[1].OpenToken("page", token)
			}
			if err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	reload := func() {
		t.Helper()
		apply, err := rb.Reload(t.Context())
		if err == nil {
			err = apply(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	for range 2 { // until the key is on every node, repeating the command changes nothing
		if s, err := ra.Rotate(t.Context(), false); err != nil || len(s.Added) != 1 || len(s.Older) != 0 {
			t.Fatalf("Rotate: %s, %v", held(s), err)
		}
	}
	each("key added on one node")
	copyKeyring()
	reload()
	each("key added on both")
	if s, err := ra.Rotate(t.Context(), true); err != nil || len(s.Added) != 0 || len(s.Older) != 1 {
		t.Fatalf("Rotate with the key on every node: %s, %v", held(s), err)
	}
	each("one node seals with the new key")
	copyKeyring()
	reload()
	each("both do")
	if s, err := rb.Keys(t.Context()); err != nil || held(s) !=
		"0 keys added, 1 older; values: 3 primary, 0 older, 0 unreadable" {
		t.Errorf("a reload left %s, %v", held(s), err)
	}

	b.add(open(t, newWorld(t).dir), 1) // of another keyring: no obstacle
	old := slices.Clone(b.values["0"])
	if s, err := ra.Prune(t.Context()); err != nil || len(s.Older) != 0 {
		t.Fatalf("Prune: %s, %v", held(s), err)
	}
	each("old key removed on one node")
	copyKeyring()
	reload()
	each("on both")
	if !bytes.Equal(old, b.values["0"]) {
		t.Error("a value was sealed again without need")
	}
}

// TestReloadRefusesAKeyringThatOpensLess: nothing that is stored becomes unreadable by a wrong file.
func TestReloadRefusesAKeyringThatOpensLess(t *testing.T) {
	w := newWorld(t)
	r := w.rotation()
	other, err := os.ReadFile(newWorld(t).dir + "/keyring.json")
	if err != nil {
		t.Fatal(err)
	}
	own := bytes.Clone(r.Keyring.raw)
	if err := WriteFile(w.dir+"/keyring.json", other); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rotate(t.Context(), false); !fault.HasCode(err, "KeyringChanged") {
		t.Errorf("Rotate over a file that was replaced: %v", err)
	}
	if _, err := r.Reload(t.Context()); !fault.HasCode(err, "KeyringLacksKey") {
		t.Errorf("Reload of another keyring: %v", err)
	}
	if err := WriteFile(w.dir+"/keyring.json", own); err != nil {
		t.Fatal(err)
	}
	if s, err := r.Rotate(t.Context(), false); err != nil || s.Values[0].Primary != 5 {
		t.Errorf("Rotate: %s, %v", held(s), err)
	}
}

// TestAKeyThatCouldNotBeWrittenIsNotUsed: a failing disk changes nothing, and the next attempt succeeds.
func TestAKeyThatCouldNotBeWrittenIsNotUsed(t *testing.T) {
	w := newWorld(t)
	r := w.rotation()
	before := r.Keyring.state()
	path := r.Keyring.path
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r.Keyring.path = fmt.Sprintf("/proc/self/fd/%d", f.Fd()) // Linux: readable, in a directory without room for files
	if _, err := r.Rotate(t.Context(), false); err == nil {
		t.Error("a rotation that could not be written succeeded")
	}
	r.Keyring.path = path
	if k := r.Keyring.state(); k.Primary != before.Primary || len(k.Added) > 0 {
		t.Errorf("keys %+v, before %+v", k, before)
	}
	if s, err := r.Rotate(t.Context(), false); err != nil || s.Primary == before.Primary {
		t.Errorf("the next attempt: %s, %v", held(s), err)
	}
}

// TestAKeyringInTheEnvironmentIsNotChanged: a new key would be lost with the process.
func TestAKeyringInTheEnvironmentIsNotChanged(t *testing.T) {
	w := newWorld(t)
	r := w.rotation()
	raw := base64.StdEncoding.EncodeToString(r.Keyring.raw)
	fixed, err := Open("", Config{KeyEnvironment: "K"}, func(string) string { return raw })
	if err != nil {
		t.Fatal(err)
	}
	r.Keyring = fixed
	if _, err := r.Rotate(t.Context(), false); !fault.HasCode(err, "KeyringFixed") ||
		!strings.Contains(err.Error(), "environment variable K") || len(w.audit) > 0 {
		t.Errorf("Rotate: %v, audit %v", err, w.audit)
	}
	if apply, err := r.Reload(t.Context()); err != nil || apply(t.Context()) != nil {
		t.Errorf("Reload: %v", err)
	}
	// With the variable changed on every node, the command only seals again.
	if _, err := w.rotation().Rotate(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	w.add(fixed, 1)
	rotated, err := os.ReadFile(w.dir + "/keyring.json")
	if err != nil {
		t.Fatal(err)
	}
	raw = base64.StdEncoding.EncodeToString(rotated)
	if r.Keyring, err = Open("", Config{KeyEnvironment: "K"}, func(string) string { return raw }); err != nil {
		t.Fatal(err)
	}
	if s, err := r.Rotate(t.Context(), false); err != nil || s.Values[0].Primary != 6 {
		t.Errorf("Rotate with the new variable: %s, %v", held(s), err)
	}
}
