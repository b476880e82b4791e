//go:build !unix

package db

import "errors"

// LockFile is the name of the file that LockDir locks.
const LockFile = "tandem.lock"

// Lock is a lock that one process holds on a file.
type Lock struct{}

// LockDir takes the lock of a data directory.
func LockDir(dir string) (*Lock, error) { return lock(dir, "data directory "+dir) }

func lock(path, what string) (*Lock, error) {
	return nil, errors.New("lock " + what + ": file locks are supported on Unix systems only")
}

// Close releases the lock.
func (l *Lock) Close() error { return nil }

func (l *Lock) room() error { return nil }
