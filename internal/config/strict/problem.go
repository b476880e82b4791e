// Package strict reads a YAML document into Go structs and reports every mistake at once, each with its line, column,
// path and a remedy. It guesses nothing: unknown keys, repeated keys, values of another type and durations without a
// unit are all mistakes.
//
// It also writes structs as YAML, optionally with the documentation of each field and with secrets masked, and sets
// single values by path. It does not define any setting: package config does.
//
// Settings are strings, booleans, integers and durations, and structs, lists and maps of those. Struct fields are named
// by their yaml tag; fields without one are not part of the document. A field tagged secret:"true" is masked when
// written. Durations are written with a unit ("5s").
package strict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake.
type Problem struct {
	Source string `json:"source"` // file name, or the option that set the value
	// Line counts from 1; 0 if the source has no lines or the mistake is about something absent.
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"` // from 1, in characters
	Path    string `json:"path,omitempty"`   // e.g. "calls.groups[0].bind"; empty for the whole document
	Message string `json:"message"`          // what is wrong and how to correct it
}

// String returns the problem in one line, in the form that editors can jump to.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Source)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems is a list of mistakes, as an error.
type Problems []Problem

// Error returns the problems, one per line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Sort puts the problems in the order of the document.
func (ps Problems) Sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// nearest returns the candidate most similar to s, or "" if none is similar.
func nearest(s string, candidates []string) string {
	best, dist := "", 1+len(s)/3
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d <= dist && (best == "" || d < dist) {
			best, dist = c, d
		}
	}
	return best
}

// distance returns the Levenshtein distance of a and b. Inputs longer than any key are not similar to one.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 1 << 16
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := prev
			if a[i-1] != b[j-1] {
				cost = 1 + min(prev, row[j], row[j-1])
			}
			prev, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
