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
	values [][]byte
	audit  []string
	left   int // effects until the process dies; negative: it never does
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), left: -1}
	w.add(open(t, w.dir), 5)
	return w
}

func (w *world) place(i int) Place { return Place{"t", fmt.Sprint(i), "c"} }

// add seals n more values.
func (w *world) add(k *Keyring, n int) {
	w.t.Helper()
	for range n {
		i := len(w.values)
		sealed, err := k.Seal(w.place(i), []byte(fmt.Sprint(i)))
		if err != nil {
			w.t.Fatal(err)
		}
		w.values = append(w.values, sealed)
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
	k := open(w.t, w.dir)
	return &Rotation{
		Keyring: k,
		SealAgain: func(context.Context) (sealed, unreadable int, err error) {
			for i, v := range w.values {
				plain, err := k.Open(w.place(i), v)
				if err != nil {
					unreadable++
					continue
				}
				again, err := k.Seal(w.place(i), plain)
				if err == nil {
					err = w.effect()
				}
				if err != nil {
					return sealed, unreadable, err
				}
				w.values[i] = again
				sealed++
			}
			return sealed, unreadable, nil
		},
		Audit: func(_ context.Context, action, _ string, _ int, _ any) error {
			err := w.effect()
			if err == nil {
				w.audit = append(w.audit, action)
			}
			return err
		},
	}
}

// rotate asks for a rotation as the management API does.
func rotate(t *testing.T, r *Rotation, distributed bool) (api.Keyring, error) {
	t.Helper()
	answer, err := r.RotateKeyring(t.Context(),
		api.RotateKeyringRequestObject{Body: &api.KeyringRotation{Distributed: distributed}})
	if err != nil {
		return api.Keyring{}, err
	}
	return api.Keyring(answer.(api.RotateKeyring200JSONResponse)), nil
}

// readable checks that the keyring on disk opens every value.
func (w *world) readable() {
	w.t.Helper()
	k := open(w.t, w.dir)
	for i, sealed := range w.values {
		if plain, err := k.Open(w.place(i), sealed); err != nil || string(plain) != fmt.Sprint(i) {
			w.t.Fatalf("value %d: %q, %v", i, plain, err)
		}
	}
}

// TestRotationContinuesAfterDeathAtAnyPoint ends the process before each effect of a rotation. Every value stays
// readable, and running the command again completes it.
func TestRotationContinuesAfterDeathAtAnyPoint(t *testing.T) {
	for left := 0; ; left++ {
		w := newWorld(t)
		first, _ := open(t, w.dir).ids()
		before := slices.Clone(w.values)
		w.left = left
		k, err := rotate(t, w.rotation(), false)
		done := err == nil
		if !done {
			if !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			w.readable()
			w.left = -1
			if k, err = rotate(t, w.rotation(), false); err != nil {
				t.Fatal(err)
			}
		}
		w.readable()
		if k.Primary == int64(first) || k.Added != 0 || k.Sealed != 5 || k.Unreadable != 0 {
			t.Errorf("killed before effect %d, rotated again: %+v", left, k)
		}
		if slices.EqualFunc(before, w.values, bytes.Equal) {
			t.Errorf("killed before effect %d: nothing was sealed again", left)
		}
		if !slices.Contains(w.audit, "secret.rotate") {
			t.Errorf("killed before effect %d: the audit log has %v", left, w.audit)
		}
		if done {
			if left != 7 || fmt.Sprint(w.audit) != "[secret.add secret.rotate]" {
				t.Errorf("a rotation has %d effects, want two rows and five values; audit %v", left, w.audit)
			}
			return
		}
	}
}

// TestValuesOfAnotherKeyringAreCounted: they are no obstacle and stay as they are.
func TestValuesOfAnotherKeyringAreCounted(t *testing.T) {
	w := newWorld(t)
	w.add(open(t, t.TempDir()), 1)
	foreign := w.values[5]
	if k, err := rotate(t, w.rotation(), false); err != nil || k.Sealed != 5 || k.Unreadable != 1 {
		t.Errorf("rotate: %+v, %v", k, err)
	}
	if !bytes.Equal(foreign, w.values[5]) {
		t.Error("a value of another keyring changed")
	}
}

// TestRotationOfASharedKeyring follows the runbook with two nodes that have a copy of the keyring each: no step makes a
// node unable to open what the other seals.
func TestRotationOfASharedKeyring(t *testing.T) {
	w, other := newWorld(t), t.TempDir()
	a := w.rotation()
	a.Shared = true
	var b *Keyring
	distribute := func() { // and restart
		t.Helper()
		raw, err := os.ReadFile(w.dir + "/keyring.json")
		if err == nil {
			err = WriteFile(other+"/keyring.json", raw)
		}
		if err != nil {
			t.Fatal(err)
		}
		b = open(t, other)
	}
	each := func(when string) {
		t.Helper()
		for _, x := range [][2]*Keyring{{a.Keyring, b}, {b, a.Keyring}} {
			token, err := x[0].SealToken("page", []byte("cursor"))
			if err == nil {
				_, err = x[1].OpenToken("page", token)
			}
			if err != nil {
				t.Errorf("%s: %v", when, err)
			}
			if _, err = x[1].OpenToken("other", token); !errors.Is(err, ErrNotOpened) {
				t.Errorf("%s: a token opens for another purpose", when)
			}
		}
		for i, v := range w.values {
			if _, err := b.Open(w.place(i), v); err != nil {
				t.Errorf("%s: value %d on the other node: %v", when, i, err)
			}
		}
	}

	distribute()
	first, _ := a.Keyring.ids()
	var added int64
	for range 2 { // until the key is on every node, repeating the command changes nothing
		k, err := rotate(t, a, false)
		if err != nil || k.Primary != int64(first) || k.Added == 0 || added != 0 && k.Added != added {
			t.Fatalf("rotate: %+v, %v", k, err)
		}
		added = k.Added
	}
	each("key added on one node")
	distribute()
	each("key added on both")
	for range 2 { // the second time it only seals again
		if k, err := rotate(t, a, true); err != nil || k.Primary != added || k.Added != 0 || k.Sealed != 5 {
			t.Fatalf("rotate with the key on every node: %+v, %v", k, err)
		}
		each("one node seals with the new key")
	}
	distribute()
	each("both do")
	if fmt.Sprint(w.audit) != "[secret.add secret.rotate]" {
		t.Errorf("the audit log has %v", w.audit)
	}
}

// TestAReplacedKeyringIsNotOverwritten: the file may be another node's, with keys that this process does not know.
func TestAReplacedKeyringIsNotOverwritten(t *testing.T) {
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
	if _, err := rotate(t, r, false); !fault.HasCode(err, "KeyringChanged") {
		t.Errorf("over a file that was replaced: %v", err)
	}
	if err := WriteFile(w.dir+"/keyring.json", own); err != nil {
		t.Fatal(err)
	}
	if k, err := rotate(t, r, false); err != nil || k.Sealed != 5 {
		t.Errorf("with the own file: %+v, %v", k, err)
	}
}

// TestAKeyThatCouldNotBeWrittenIsNotUsed: a failing disk changes nothing, and the next attempt succeeds.
func TestAKeyThatCouldNotBeWrittenIsNotUsed(t *testing.T) {
	w := newWorld(t)
	r := w.rotation()
	before, _ := r.Keyring.ids()
	path := r.Keyring.path
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r.Keyring.path = fmt.Sprintf("/proc/self/fd/%d", f.Fd()) // Linux: readable, in a directory without room for files
	if _, err := rotate(t, r, false); err == nil {
		t.Error("a rotation that could not be written succeeded")
	}
	r.Keyring.path = path
	if primary, newest := r.Keyring.ids(); primary != before || newest != before {
		t.Errorf("keys %d and %d, before %d", primary, newest, before)
	}
	if k, err := rotate(t, r, false); err != nil || k.Primary == int64(before) {
		t.Errorf("the next attempt: %+v, %v", k, err)
	}
}

// TestAKeyringInTheEnvironmentIsNotChanged: a new key would be lost with the process.
func TestAKeyringInTheEnvironmentIsNotChanged(t *testing.T) {
	w := newWorld(t)
	r := w.rotation()
	raw := base64.StdEncoding.EncodeToString(r.Keyring.raw)
	var err error
	if r.Keyring, err = Open("", Config{KeyEnvironment: "K"}, func(string) string { return raw }); err != nil {
		t.Fatal(err)
	}
	if _, err := rotate(t, r, false); !fault.HasCode(err, "KeyringFixed") ||
		!strings.Contains(err.Error(), "environment variable K") || len(w.audit) > 0 {
		t.Errorf("rotate: %v, audit %v", err, w.audit)
	}
}
