package secret

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config says where the keyring is.
type Config struct {
	// KeyFile is the file that holds the node's key-encryption keys. Path, relative to the data directory; default
	// "keyring.json". It is created with mode 0600 on the first start. Whoever has it can read every stored secret;
	// without it no stored secret can be read again: back it up separately from the database.
	KeyFile string `yaml:"keyFile"`
	// KeyEnvironment names an environment variable that holds the keyring, base64 of the file's content, in place of
	// the file. Default none. Nodes that share a PostgreSQL database must have the same keyring.
	KeyEnvironment string `yaml:"keyEnvironment"`
}

// Default returns the configuration used where nothing is configured.
func Default() Config { return Config{KeyFile: "keyring.json"} }

// Validate returns every problem found.
func (c *Config) Validate() []error {
	if c.KeyFile == "" && c.KeyEnvironment == "" {
		return []error{fault.New(fault.Invalid, "InvalidConfiguration",
			"no file for the keyring; set keyFile, e.g. to keyring.json").At("keyFile")}
	}
	return nil
}

// Place is where a sealed value is stored. It is authenticated with the value, not stored in it.
type Place struct{ Table, Row, Column string }

func (p Place) associatedData() []byte { return fmt.Appendf(nil, "%q/%q/%q", p.Table, p.Row, p.Column) }

// Keyring seals and opens values. It is safe for concurrent use.
type Keyring struct {
	path string // empty if the keyring is not kept in a file
	env  string // the variable that holds it; if set, the keyring cannot be changed here

	mu       sync.RWMutex // guards what follows
	handle   *keyset.Handle
	direct   tink.AEAD // the keyset itself, for short-lived tokens
	envelope tink.AEAD // a data key per value, for what is stored
}

// ErrNotOpened is wrapped by errors of [Keyring.Open] and [Keyring.OpenToken]: the value was changed, belongs to
// another place, or was sealed with a key that is not in the keyring.
var ErrNotOpened = errors.New("sealed value does not open: it was changed, belongs to another place, " +
	"or was sealed with a key that is not in this keyring")

// Open reads the keyring that cfg names. dir is the data directory; getenv is os.Getenv or a replacement. A missing
// file is created, with one new key; a missing or unreadable variable is an error.
func Open(dir string, cfg Config, getenv func(string) string) (*Keyring, error) {
	if cfg.KeyEnvironment != "" {
		text := getenv(cfg.KeyEnvironment)
		if text == "" {
			return nil, fmt.Errorf("keyring: environment variable %s is empty; set it to the base64 of a keyring file",
				cfg.KeyEnvironment)
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			// The cause would quote the content.
			return nil, fmt.Errorf("keyring: environment variable %s is not base64", cfg.KeyEnvironment)
		}
		k, err := parse(raw, "")
		if err == nil {
			k.env = cfg.KeyEnvironment
		}
		return k, err
	}
	path := cfg.KeyFile
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	raw, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		k, err := Ephemeral()
		if err != nil {
			return nil, err
		}
		k.path = path
		// Link, not rename: if two processes start at once, one keyring wins and both use it.
		if err := k.save(k.handle, true); err != nil {
			return nil, err
		}
		if raw, err = readPrivate(path); err != nil {
			return nil, fmt.Errorf("keyring: %w", err)
		}
		return parse(raw, path)
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return parse(raw, path)
}

// readPrivate reads a file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o and can be read by other users; chmod 600 it, and rotate the keyring "+
			"if others had access", path, st.Mode().Perm())
	}
	return os.ReadFile(path)
}

// Ephemeral returns a keyring with one new key that lives in memory only.
func Ephemeral() (*Keyring, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("keyring: create a key: %w", err)
	}
	k := &Keyring{}
	return k, k.use(h)
}

func parse(raw []byte, path string) (*Keyring, error) {
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, errors.New("keyring: not a keyring file (a Tink keyset in JSON); restore it from the backup")
	}
	k := &Keyring{path: path}
	return k, k.use(h)
}

func (k *Keyring) use(h *keyset.Handle) error {
	direct, err := aead.New(h)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	k.handle, k.direct = h, direct
	k.envelope = aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), direct)
	return nil
}

// save writes h to the keyring's file atomically. With create an existing file is left unchanged.
func (k *Keyring) save(h *keyset.Handle, create bool) error {
	if k.path == "" {
		return nil
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&buf)); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	put := os.Rename
	if create {
		put = func(from, to string) error {
			defer os.Remove(from) // the second name; it does no harm if it stays
			if err := os.Link(from, to); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			return nil
		}
	}
	if err := writeFile(k.path, buf.Bytes(), put); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	return nil
}

// WriteFile writes data to path with mode 0600, durably and atomically: readers see the old content or the new.
func WriteFile(path string, data []byte) error { return writeFile(path, data, os.Rename) }

func writeFile(path string, data []byte, put func(from, to string) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after a rename, as intended
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := put(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync() // makes the new name durable
}

// formatEnvelope is the first byte of a sealed value: what follows is Tink's envelope (length and ciphertext of the
// data key, ciphertext of the value).
const formatEnvelope = 1

// Seal encrypts plain for storing at place.
func (k *Keyring) Seal(place Place, plain []byte) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c, err := k.envelope.Encrypt(plain, place.associatedData())
	if err != nil {
		return nil, fmt.Errorf("seal a value of %s.%s: %w", place.Table, place.Column, err)
	}
	return append([]byte{formatEnvelope}, c...), nil
}

// Open decrypts what Seal made for the same place. Errors wrap [ErrNotOpened].
func (k *Keyring) Open(place Place, sealed []byte) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if len(sealed) > 0 && sealed[0] == formatEnvelope {
		if plain, err := k.envelope.Decrypt(sealed[1:], place.associatedData()); err == nil {
			return plain, nil
		}
	}
	return nil, fmt.Errorf("open a value of %s.%s: %w", place.Table, place.Column, ErrNotOpened)
}

// SealToken encrypts plain with the keyring itself, without a data key: for short texts that callers carry and hand
// back, such as page cursors. The purpose is authenticated: a token opens for the same purpose only.
func (k *Keyring) SealToken(purpose string, plain []byte) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.direct.Encrypt(plain, []byte("token/"+purpose))
}

// OpenToken decrypts what SealToken made. Errors wrap [ErrNotOpened].
func (k *Keyring) OpenToken(purpose string, token []byte) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	plain, err := k.direct.Decrypt(token, []byte("token/"+purpose))
	if err != nil {
		return nil, fmt.Errorf("open a token: %w", ErrNotOpened)
	}
	return plain, nil
}

// AddKey adds a new key that opens but does not seal yet, and returns its id. Where nodes share a keyring, add the key
// on every node before any node calls [Keyring.Promote].
func (k *Keyring) AddKey() (uint32, error) {
	var id uint32
	err := k.change(func(m *keyset.Manager) (err error) {
		id, err = m.Add(aead.AES256GCMKeyTemplate())
		return err
	})
	return id, err
}

// Promote makes the key with the given id the one that seals.
func (k *Keyring) Promote(id uint32) error {
	return k.change(func(m *keyset.Manager) error { return m.SetPrimary(id) })
}

// Rotate adds a key and promotes it: new values are sealed with the new key, values sealed before still open.
func (k *Keyring) Rotate() error {
	return k.change(func(m *keyset.Manager) error {
		id, err := m.Add(aead.AES256GCMKeyTemplate())
		if err != nil {
			return err
		}
		return m.SetPrimary(id)
	})
}

// Retire removes a key that no longer seals. Reseal everything first: what that key sealed never opens again.
func (k *Keyring) Retire(id uint32) error {
	return k.change(func(m *keyset.Manager) error { return m.Delete(id) })
}

func (k *Keyring) change(f func(*keyset.Manager) error) error {
	if k.env != "" {
		// A new key would be lost with the process, and with it everything that it sealed.
		return fmt.Errorf("keyring: it comes from the environment variable %s and cannot be changed here; "+
			"change a keyring file and set the variable to its base64", k.env)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	m := keyset.NewManagerFromHandle(k.handle)
	if err := f(m); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	h, err := m.Handle()
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	if err := k.save(h, false); err != nil {
		return err
	}
	return k.use(h)
}

// Primary returns the id of the key that seals.
func (k *Keyring) Primary() uint32 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.handle.KeysetInfo().GetPrimaryKeyId()
}

// Reseal returns the value sealed with the primary key, and whether that differs from sealed. Use it to go through
// stored values after a rotation.
func (k *Keyring) Reseal(place Place, sealed []byte) ([]byte, bool, error) {
	plain, err := k.Open(place, sealed)
	if err != nil {
		return nil, false, err
	}
	// Tink: 4 bytes length of the encrypted data key, then its ciphertext: a byte 1 and the id of the key that made it.
	const header = 1 + 4 + 1
	if len(sealed) >= header+4 && sealed[header-1] == 1 && binary.BigEndian.Uint32(sealed[header:]) == k.Primary() {
		return sealed, false, nil
	}
	s, err := k.Seal(place, plain)
	return s, err == nil, err
}
