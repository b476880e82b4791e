package zone

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Place says which version of the zone a copy holds, and where it comes from.
type Place struct {
	Origin string      `json:"origin"`
	Cursor feed.Cursor `json:"cursor"` // of the feed entry that made the version
}

// entry is what one frame of a file holds.
type entry struct {
	Place
	Version
}

// Files keeps a zone on disk, so that a server starts without the database. The directory holds two files:
//
//	zone      a version with all records, and the versions that followed
//	zone.old  the same from before zone was written
//
// Each version is a frame: length (4 bytes), CRC-32C (4 bytes), JSON. Append returns when its version is on disk. A
// file that was cut anywhere yields the last version that is whole; one without a whole first version is not used.
//
// Only one goroutine at a time may use a Files.
type Files struct {
	dir  string
	f    *os.File
	size int // records changed by the versions in f, without the first one
}

const (
	fileName = "zone"
	oldExt   = ".old"
	newExt   = ".new"
	// maxFrame is the size of the largest frame that is read: 4 million records.
	maxFrame = 512 << 20
	// rewriteLeast is how many changed records a file may have before it is written again.
	rewriteLeast = 4 * keepLeast
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Open reads the newest whole version on disk into z, with the versions that led to it, and returns its place. The zone
// stays empty, and the place is zero, if there is none of that origin. warn reports a file that cannot be read.
func Open(dir string, z *Zone, warn func(file string, err error)) (*Files, Place, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, Place{}, fmt.Errorf("directory of the zone: %w", err)
	}
	f := &Files{dir: dir}
	for _, name := range []string{fileName, fileName + oldExt} {
		place, err := load(filepath.Join(dir, name), z)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			warn(filepath.Join(dir, name), err)
		}
		if z.Serial() != 0 {
			return f, place, nil
		}
	}

	return f, Place{}, nil
}

// load applies the versions of a file to an empty zone.
func load(path string, z *Zone) (Place, error) {
	f, err := os.Open(path)
	if err != nil {
		return Place{}, err
	}
	defer f.Close()

	var place Place
	for r := bufio.NewReaderSize(f, 1<<20); ; {
		e, err := read(r)
		if err == io.EOF {
			return place, nil
		}
		if err == nil && e.Origin != z.origin {
			return Place{}, fmt.Errorf("it holds the zone %s; this server has %s", e.Origin, z.origin)
		}
		if err == nil {
			err = z.Apply(&e.Version)
		}
		if err != nil {
			return place, fmt.Errorf("after serial %d: %w", z.Serial(), err)
		}
		place = e.Place
	}
}

// read reads a frame. The error is io.EOF at the end of the file only.
func read(r io.Reader) (*entry, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = errors.New("a version is incomplete")
		}
		return nil, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxFrame {
		return nil, fmt.Errorf("a version of %d bytes is too large", size)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err != nil {
		return nil, err
	}
	if len(body) < int(size) {
		return nil, errors.New("a version is incomplete")
	}
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, errors.New("a version is damaged: its checksum does not match")
	}

	e := new(entry)
	if err := json.Unmarshal(body, e); err != nil {
		return nil, fmt.Errorf("a version cannot be read: %w", err)
	}

	return e, nil
}

func frame(e *entry) ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(body) > maxFrame {
		return nil, fmt.Errorf("zone: a version of %d bytes is too large for the disk", len(body))
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 8+len(body)), uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))

	return append(b, body...), nil
}

// Append stores the version that z is about to have, and its cursor. Call it before z.Apply, so that no serial is
// handed out that the disk does not have. If it fails, the file is written again by the next call.
func (f *Files) Append(z *Zone, at feed.Cursor, v *Version) error {
	if f.f == nil || f.size > max(rewriteLeast, z.Size()) {
		if err := f.rewrite(z); err != nil {
			return fmt.Errorf("write the zone to disk: %w", err)
		}
	}
	if err := f.append(&entry{Place{z.origin, at}, *v}); err != nil {
		f.Close()
		return fmt.Errorf("write the zone to disk: %w", err)
	}
	f.size += len(v.Removed) + len(v.Added)

	return nil
}

func (f *Files) append(e *entry) error {
	b, err := frame(e)
	if err != nil {
		return err
	}
	if _, err := f.f.Write(b); err != nil {
		return err
	}

	return f.f.Sync()
}

// rewrite writes the versions that z keeps to a new file. Their cursors are not known: a server that starts from one of
// them compares everything with the database.
func (f *Files) rewrite(z *Zone) (err error) {
	f.Close()
	path := filepath.Join(f.dir, fileName)
	if f.f, err = os.OpenFile(path+newExt, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = os.Remove(path + newExt) // the disk may be full
		}
	}()

	versions := z.versions()
	f.size = 0
	for i := range versions {
		b, err := frame(&entry{Place{Origin: z.origin}, versions[i]})
		if err != nil {
			return err
		}
		if _, err := f.f.Write(b); err != nil {
			return err
		}
		if i > 0 {
			f.size += len(versions[i].Removed) + len(versions[i].Added)
		}
	}
	if err := f.f.Sync(); err != nil {
		return err
	}

	err = os.Rename(path, path+oldExt)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(path+newExt, path); err != nil {
		return err
	}

	return syncDir(f.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()

	return d.Sync()
}

// Close closes the file. The next Append writes it again.
func (f *Files) Close() {
	if f.f != nil {
		_ = f.f.Close() // synced by every Append
		f.f = nil
	}
}
