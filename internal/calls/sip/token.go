package sip

import (
	"crypto/rand"
	"sync"
)

// BranchMagic is the magic cookie at the start of every RFC 3261 branch (§8.1.1.7).
const BranchMagic = "z9hG4bK"

// entropy is a block of random bytes from the operating system, consumed piece by
// piece so that one system call serves many identifiers.
type entropy struct {
	block [480]byte
	used  int
}

var pool = sync.Pool{New: func() any {
	e := new(entropy)
	e.used = len(e.block)
	return e
}}

const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

// appendRandom appends 20 characters of a 32-letter alphabet: 100 random bits.
func appendRandom(dst []byte) []byte {
	e := pool.Get().(*entropy)
	if e.used+20 > len(e.block) {
		_, _ = rand.Read(e.block[:]) // documented never to fail
		e.used = 0
	}
	for _, b := range e.block[e.used : e.used+20] {
		dst = append(dst, alphabet[b&31])
	}
	clear(e.block[e.used : e.used+20])
	e.used += 20
	pool.Put(e)
	return dst
}

// Token returns prefix followed by 100 random bits as letters and digits:
// unguessable and, for all practical purposes, unique (RFC 3261 §19.3 requires 32
// bits in a tag).
func Token(prefix string) string {
	var buf [64]byte
	return string(appendRandom(append(buf[:0], prefix...)))
}

// NewTag returns a From or To tag.
func NewTag() string { return Token("") }

// NewBranch returns a Via branch with the magic cookie.
func NewBranch() string { return Token(BranchMagic) }

// NewCallID returns a Call-ID.
func NewCallID() string { return Token("") }
