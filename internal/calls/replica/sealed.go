package replica

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Sealer encrypts the key of a file. The purpose binds the sealed data to its use: opening it with another purpose
// fails. The keyring of package secret is a Sealer.
type Sealer interface {
	Seal(purpose string, plain []byte) ([]byte, error)
	Open(purpose string, sealed []byte) ([]byte, error)
}

// A sealed file consists of a head and chunks. The head is
//
//	magic   8 bytes, kind and version of the file
//	length  4 bytes, of what follows
//	key     2 bytes of length, then the file's AES-256 key sealed by the Sealer
//	info    description of the file, in the clear
//
// and each chunk
//
//	length  4 bytes, of the sealed part; the top bit marks the last chunk
//	sealed  AES-256-GCM; nonce = number of the chunk, associated data = head and length
//
// so that a changed, moved, removed or added byte is detected, and so is a missing end. All integers are little-endian.
const (
	chunkBytes = 1 << 20  // maximum plain text of a chunk in a snapshot
	maxChunk   = 16 << 20 // maximum plain text of a chunk in any file; a larger length is damage
	maxHead    = 64 << 10
	magicBytes = 8
	lastChunk  = 1 << 31
	gcmTag     = 16
)

// errDamaged is returned for every file that cannot be read back as it was written.
var errDamaged = errors.New("the file is damaged or of another kind")

// errTorn is returned for a file that ends too early, as a journal usually does after a crash.
var errTorn = fmt.Errorf("%w: it ends inside a chunk", errDamaged)

// sealedWriter writes a sealed file. It buffers; see flush.
type sealedWriter struct {
	w     *bufio.Writer
	aead  cipher.AEAD
	head  []byte
	chunk uint64
	buf   []byte
	bytes int64 // written
}

func newSealedWriter(w io.Writer, magic, purpose string, info []byte, s Sealer) (*sealedWriter, error) {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	sealedKey, err := s.Seal(purpose, key)
	if err != nil {
		return nil, fmt.Errorf("seal the key of a %s: %w", purpose, err)
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	n := 2 + len(sealedKey) + len(info)
	if len(sealedKey) > 1<<16-1 || n > maxHead {
		return nil, fmt.Errorf("the head of a %s would have %d bytes; at most %d fit", purpose, n, maxHead)
	}
	head := append([]byte(nil), magic...)
	head = binary.LittleEndian.AppendUint32(head, uint32(n))
	head = binary.LittleEndian.AppendUint16(head, uint16(len(sealedKey)))
	head = append(append(head, sealedKey...), info...)
	sw := &sealedWriter{w: bufio.NewWriterSize(w, 64<<10), aead: aead, head: head}
	_, err = sw.w.Write(head)
	sw.bytes = int64(len(head))
	return sw, err
}

// write seals one chunk; last marks the end of the file's contents.
func (s *sealedWriter) write(plain []byte, last bool) error {
	length := uint32(len(plain) + gcmTag)
	if last {
		length |= lastChunk
	}
	s.buf = binary.LittleEndian.AppendUint32(s.buf[:0], length)
	s.buf = s.aead.Seal(s.buf, nonce(s.chunk), plain, associated(s.head, length))
	s.chunk++
	s.bytes += int64(len(s.buf))
	_, err := s.w.Write(s.buf)
	return err
}

func (s *sealedWriter) flush() error { return s.w.Flush() }

// sealedReader reads a sealed file.
type sealedReader struct {
	r     *bufio.Reader
	magic string
	aead  cipher.AEAD
	head  []byte
	info  []byte
	chunk uint64
	done  bool
}

// newSealedReader reads the head, which must begin with one of the magics. It returns errDamaged for every problem
// except errors of r itself.
func newSealedReader(r io.Reader, purpose string, s Sealer, magics ...string) (*sealedReader, error) {
	sr := &sealedReader{r: bufio.NewReaderSize(r, 256<<10)}
	fixed := make([]byte, magicBytes+4)
	if err := sr.full(fixed); err != nil {
		return nil, err
	}
	if sr.magic = string(fixed[:magicBytes]); !slices.Contains(magics, sr.magic) {
		return nil, fmt.Errorf("%w: not a %s of this version", errDamaged, purpose)
	}
	n := binary.LittleEndian.Uint32(fixed[magicBytes:])
	if n < 2 || n > maxHead {
		return nil, fmt.Errorf("%w: head of %d bytes", errDamaged, n)
	}
	rest := make([]byte, n)
	if err := sr.full(rest); err != nil {
		return nil, err
	}
	k := int(binary.LittleEndian.Uint16(rest))
	if k > len(rest)-2 {
		return nil, fmt.Errorf("%w: key of %d bytes", errDamaged, k)
	}
	key, err := s.Open(purpose, rest[2:2+k])
	if err != nil {
		return nil, fmt.Errorf("%w: its key cannot be opened: %w", errDamaged, err)
	}
	if sr.aead, err = newAEAD(key); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	sr.head, sr.info = append(fixed, rest...), rest[2+k:]
	return sr, nil
}

// next returns the next chunk's plain text, which stays valid. It returns io.EOF only after the last chunk, and errTorn
// if the file ends before it.
func (s *sealedReader) next() ([]byte, error) {
	if s.done {
		if _, err := s.r.ReadByte(); err != io.EOF {
			return nil, fmt.Errorf("%w: data after its end", errDamaged)
		}
		return nil, io.EOF
	}
	var l [4]byte
	if err := s.full(l[:]); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(l[:])
	n := length &^ lastChunk
	if n < gcmTag || n > maxChunk+gcmTag {
		return nil, fmt.Errorf("%w: chunk of %d bytes", errDamaged, n)
	}
	sealed := make([]byte, n)
	if err := s.full(sealed); err != nil {
		return nil, err
	}
	plain, err := s.aead.Open(sealed[:0], nonce(s.chunk), sealed, associated(s.head, length))
	if err != nil {
		return nil, fmt.Errorf("%w: chunk %d cannot be opened", errDamaged, s.chunk)
	}
	s.chunk++
	s.done = length&lastChunk != 0
	return plain, nil
}

func (s *sealedReader) full(b []byte) error {
	_, err := io.ReadFull(s.r, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errTorn
	}
	return err
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// nonce returns the nonce of a chunk. Each file has its own key, so no chunk number is used twice with a key.
func nonce(chunk uint64) []byte {
	return binary.LittleEndian.AppendUint64(make([]byte, 4, 12), chunk)
}

func associated(head []byte, length uint32) []byte {
	return binary.LittleEndian.AppendUint32(head[:len(head):len(head)], length)
}
