package db

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// LockFile is the name of the file that LockDir locks.
const LockFile = "tandem.lock"

// Lock is a lock that one process holds on a file. The operating system releases it when the process ends, however it
// ends, so a lock never has to be removed by hand.
type Lock struct{ f *os.File }

// LockDir takes the lock of a data directory. If another process holds it the error names that process.
func LockDir(dir string) (*Lock, error) {
	return lock(filepath.Join(dir, LockFile), "data directory "+dir)
}

func lock(path, what string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", what, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", what, err)
		}
		holder := "another process"
		if b, err := io.ReadAll(io.LimitReader(f, 32)); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				holder = fmt.Sprintf("process %d", pid)
			}
		}
		return nil, fmt.Errorf("%s is in use by %s; stop it, or use another directory", what, holder)
	}
	// The process id is for the message above only; the lock itself is the kernel's.
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", what, err)
		}
	}
	return &Lock{f}, nil
}

// Close releases the lock. The file stays: removing it would let two processes lock two files of the same name.
func (l *Lock) Close() error {
	// Closing alone is not enough: a child process that another goroutine is starting holds a copy of the file until it
	// runs its program, and with it the lock.
	return errors.Join(syscall.Flock(int(l.f.Fd()), syscall.LOCK_UN), l.f.Close())
}

// room returns nil if the file system has room for another 64 KiB. It uses the lock's open file: opening and closing
// others needs descriptors that calls may need.
func (l *Lock) room() error {
	st, err := l.f.Stat()
	if err != nil {
		return err
	}
	_, err = l.f.WriteAt(make([]byte, 64<<10), st.Size())
	return errors.Join(err, l.f.Truncate(st.Size()))
}
