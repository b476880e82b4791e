package graph

import (
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/wire"
)

// Codes of faults that are not Graph's own.
const (
	// CodeUnknown: a change was sent and its answer is lost. Read the object back before repeating it.
	CodeUnknown = wire.CodeUnknown
	// CodePageExpired: the link to the next page is no longer valid, and never will be: begin with the first page.
	CodePageExpired = "PageExpired"
	// CodeDeltaReset: the link to the changes is no longer valid: read everything, then follow the new link.
	CodeDeltaReset = "DeltaReset"
	// CodeForeignLink: a link leads to another host, where the token must not go.
	CodeForeignLink = "ForeignLink"
	// CodeUnreadable: the answer is not what the contract says.
	CodeUnreadable = wire.CodeUnreadable
)

// Error is the cause of the faults of this package: a refused request, or one without an answer.
type Error = wire.Error

// broken turns the error of a page into the typed error that its link needs.
func broken(err error) error {
	f := fault.As(err)
	switch {
	case strings.EqualFold(f.Code, "Directory_ExpiredPageToken"):
		return fault.New(fault.Gone, CodePageExpired, "the link to the next page expired; begin with the first page").
			Because(err)
	case f.Kind == fault.Gone || strings.EqualFold(f.Code, "syncStateNotFound") ||
		strings.EqualFold(f.Code, "syncStateInvalid") || strings.EqualFold(f.Code, "resyncRequired"):
		return fault.New(fault.Gone, CodeDeltaReset, "Microsoft Graph no longer knows the state of this "+
			"synchronisation; read all users").Because(err)
	}
	return err
}
