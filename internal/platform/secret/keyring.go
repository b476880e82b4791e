package secret

import (
	"bytes"
	"encoding/base64"
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
	raw      []byte       // content of the file as it was last read or written
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
		return fromEnvironment(cfg.KeyEnvironment, getenv)
	}
	path := cfg.KeyFile
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	raw, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = create(path); err == nil {
			raw, err = readPrivate(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return parse(raw, path)
}

// CheckEnvironment returns an error if the variable that holds the keyring, if there is one, holds none.
func (c *Config) CheckEnvironment(getenv func(string) string) (err error) {
	if c.KeyEnvironment != "" {
		_, err = fromEnvironment(c.KeyEnvironment, getenv)
	}
	return err
}

func fromEnvironment(name string, getenv func(string) string) (*Keyring, error) {
	text := getenv(name)
	if text == "" {
		return nil, fmt.Errorf("keyring: environment variable %s is empty; set it to the base64 of a keyring file",
			name)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		// The cause would quote the content.
		return nil, fmt.Errorf("keyring: environment variable %s is not base64", name)
	}
	k, err := parse(raw, "")
	if err == nil {
		k.env = name
	}
	return k, err
}

// create writes a keyring with one new key, unless the file exists already.
func create(path string) error {
	k, err := Ephemeral()
	if err != nil {
		return err
	}
	raw, err := encode(k.handle)
	if err != nil {
		return err
	}
	// Link, not rename: if two processes start at once, one keyring wins and both use it.
	return writeFile(path, raw, func(from, to string) error {
		if err := os.Link(from, to); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
}

// readPrivate reads a file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if err == nil && st.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("%s has mode %04o and can be read by other users; chmod 600 it, and rotate the keyring "+
			"if others had access", path, st.Mode().Perm())
	}
	return raw, err
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
	k := &Keyring{path: path, raw: raw}
	return k, k.use(h)
}

func encode(h *keyset.Handle) ([]byte, error) {
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&buf)); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return buf.Bytes(), nil
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

// add adds a new key that opens but does not seal yet, and returns its id.
func (k *Keyring) add() (id uint32, err error) {
	err = k.change(func(m *keyset.Manager) error {
		id, err = m.Add(aead.AES256GCMKeyTemplate())
		return err
	})
	return id, err
}

// promote makes the key with the given id the one that seals.
func (k *Keyring) promote(id uint32) error {
	return k.change(func(m *keyset.Manager) error { return m.SetPrimary(id) })
}

func (k *Keyring) change(f func(*keyset.Manager) error) error {
	if k.env != "" {
		// A new key would be lost with the process, and with it everything that it sealed.
		return fault.New(fault.Conflict, "KeyringFixed", "the keyring comes from the environment variable %s and "+
			"cannot be changed by a running program; follow the runbook, Rotate the keyring", k.env)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	raw, err := readPrivate(k.path)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	if !bytes.Equal(raw, k.raw) {
		return fault.New(fault.Conflict, "KeyringChanged", "%s was changed by another program; restart this "+
			"node, then try again", k.path)
	}
	m := keyset.NewManagerFromHandle(k.handle)
	if err := f(m); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	h, err := m.Handle()
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	if raw, err = encode(h); err != nil {
		return err
	}
	if err := WriteFile(k.path, raw); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	k.raw = raw
	return k.use(h)
}

// ids returns the ids of the key that seals and of the key that was added last.
func (k *Keyring) ids() (primary, newest uint32) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	info := k.handle.KeysetInfo()
	keys := info.GetKeyInfo() // in the order in which they were added
	return info.GetPrimaryKeyId(), keys[len(keys)-1].GetKeyId()
}
