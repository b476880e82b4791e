package db

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// RestoreFile replaces c.File with a copy of backup, an SQLite database file. c.File is locked meanwhile. Before the
// replacement the copy is brought to the current schemas, checked, and passed to prepare. The replaced file is kept
// next to it, under the name returned, which is empty if there was none. If there is an error or a crash it stays in
// place; repeat the call.
func RestoreFile(ctx context.Context, c Config, backup string, log *slog.Logger, prepare func(*DB) error,
	schemas ...Schema) (kept string, err error) {
	path := c.File
	l, err := lock(path+".lock", "database file "+path)
	if err != nil {
		return "", err
	}
	defer l.Close()
	c.File += ".restoring"
	for _, end := range []string{"", "-wal", "-shm", ".lock"} {
		_ = os.Remove(c.File + end) // left over from an interrupted attempt
		defer os.Remove(c.File + end)
	}
	// If the files were copied after a crash, the newest changes are in the write-ahead log.
	for _, end := range []string{"", "-wal"} {
		if err := copyFile(backup+end, c.File+end); err != nil && (end == "" || !errors.Is(err, fs.ErrNotExist)) {
			return "", err
		}
	}
	d, err := Open(ctx, c, log, nil, schemas...)
	if err != nil {
		return "", err
	}
	err = d.View(ctx, func(ctx context.Context, tx *Tx) error {
		var said string
		_, err := tx.QueryRow(ctx, "PRAGMA integrity_check(1)", nil, &said)
		if err == nil && said != "ok" {
			err = fault.New(fault.Invalid, "InvalidBackup", "the file is damaged (%s); use another backup",
				strings.ReplaceAll(said, "\n", "; "))
		}
		return err
	})
	if err == nil {
		err = prepare(d)
	}
	err = errors.Join(err, d.Close())
	if st, serr := os.Stat(c.File + "-wal"); err == nil && serr == nil && st.Size() > 0 {
		err = errors.New("the copy of the backup could not be closed cleanly; is another process reading it?")
	}
	if err != nil {
		return "", err
	}

	kept = path + ".replaced-" + time.Now().UTC().Format("20060102T150405Z")
	if err = os.Link(path, kept); errors.Is(err, fs.ErrNotExist) {
		kept = ""
	} else if err != nil {
		return "", fmt.Errorf("keep the replaced database: %w", err)
	} else if err = os.Link(path+"-wal", kept+"-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("keep the replaced database: %w", err)
	}
	// SQLite would apply the log of the old database to the new one.
	for _, end := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return kept, err
		}
	}
	if err := errors.Join(syncDir(path), os.Rename(c.File, path)); err != nil {
		return kept, err
	}
	return kept, syncDir(path)
}

// copyFile copies a file to a new file that only its owner can read, and waits for the disk.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// syncDir waits until the directory of a file is on the disk.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
