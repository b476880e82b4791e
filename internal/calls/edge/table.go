package edge

import (
	"hash/maphash"
	"sync"
)

// table maps our tags to calls and sides. Its parts have locks of their own, so that calls do not wait for each other.
type table struct {
	seed  maphash.Seed
	parts [tableParts]tablePart
}

const tableParts = 64

type tablePart struct {
	mu sync.Mutex // guards m
	m  map[string]entry
	_  [40]byte // keeps each part on a cache line of its own
}

// entry is one leg of a call.
type entry struct {
	c    *call
	near bool
}

func (t *table) init() {
	t.seed = maphash.MakeSeed()
	for i := range t.parts {
		t.parts[i].m = map[string]entry{}
	}
}

func (t *table) part(tag string) *tablePart {
	return &t.parts[maphash.String(t.seed, tag)%tableParts]
}

func (t *table) put(tag string, c *call, near bool) {
	p := t.part(tag)
	p.mu.Lock()
	p.m[tag] = entry{c, near}
	p.mu.Unlock()
}

func (t *table) get(tag string) (entry, bool) {
	p := t.part(tag)
	p.mu.Lock()
	e, ok := p.m[tag]
	p.mu.Unlock()
	return e, ok
}

func (t *table) remove(tag string) {
	p := t.part(tag)
	p.mu.Lock()
	delete(p.m, tag)
	p.mu.Unlock()
}

// all returns every call.
func (t *table) all() []*call {
	var out []*call
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.Lock()
		for _, e := range p.m {
			if e.near {
				out = append(out, e.c)
			}
		}
		p.mu.Unlock()
	}
	return out
}
