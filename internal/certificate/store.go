package certificate

import (
	"context"

	"github.com/tandemgw/tandem/internal/platform/flow"
)

// Store is the storage that all nodes share. It encrypts the values. It is safe for concurrent use.
type Store interface {
	// Load returns the value stored under name, or an error of kind fault.NotFound, with the code CodeSealed if there
	// is a value that the keyring does not open.
	Load(ctx context.Context, name string) ([]byte, error)
	// Save stores value under name, or returns flow.ErrLost and stores nothing if another worker has taken over the
	// run. audit may be nil.
	Save(ctx context.Context, run *flow.Run, name string, value []byte, audit *Audit) error
	// Request stores value under name, outside a run, and makes the work of [Manager.Kind] run.
	Request(ctx context.Context, name string, value []byte, audit Audit) error
	// Wake makes the work run, also if it is parked.
	Wake(ctx context.Context) error
}

// CodeSealed is the code of an error about a stored value that cannot be decrypted.
const CodeSealed = "ValueSealed"

// Audit is an audit row about the actor in a context. It holds no secret.
type Audit struct {
	Action, Target string
	Summary        any
}

// Cache is a node's own copy of the certificates, encrypted, on its disk.
type Cache interface {
	// Load returns what was saved last, or an error of kind fault.NotFound.
	Load() ([]byte, error)
	// Save replaces the content durably.
	Save(value []byte) error
}

// Challenger publishes the values of challenges in the DNS. Names are absolute, in lower case, without the final dot,
// such as _acme-challenge.r1.example.com.
type Challenger interface {
	// Path returns the name of a challenge and, one after the other, the names to which CNAMEs lead from it: its values
	// belong at the last one (RFC 8555, section 8.4). A CNAME that a wildcard makes is followed only where no value can
	// be put at the name itself.
	Path(ctx context.Context, name string) ([]string, error)
	// Add adds a value to the TXT records at the end of a path; other values stay. One that is there already is no
	// error.
	Add(ctx context.Context, path []string, value string) error
	// Remove removes this value and no other, at the end of the path with which it was added, wherever CNAMEs lead now.
	// One that is not there is no error.
	Remove(ctx context.Context, path []string, value string) error
}

// Checker asks name servers whether they answer a value.
type Checker interface {
	// Check asks every name server listed for the zone of the path's first name, itself and not through a resolver, for
	// the TXT records there, and those of the zone of the last name, if that is another. It returns one answer for each
	// server and name, within some seconds.
	Check(ctx context.Context, path []string, value string) ([]Answer, error)
}

// Answer is what one name server says about a value.
type Answer struct {
	Server string // name and address, for people
	Has    bool   // it answers the value, among others or not, or the CNAME on the path to it
	// NoAnswer is why the server gave no answer about the name: a timeout, a refused connection, REFUSED, SERVFAIL. An
	// answer without the value, NXDOMAIN included, is an answer.
	NoAnswer error
}
