package leg

import (
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Facts reads from an INVITE what routing may know of it. It never fails: what cannot be read is left empty, and the
// decision says what that means.
func Facts(m *sip.Message, peerGroup string) domain.CallFacts {
	return domain.CallFacts{PeerGroup: peerGroup}
}

// Relay appends to dst every header line of src that passes from one leg to the other, in order and byte for byte, and
// the body. See docs/sip-headers.md.
func (r *Rules) Relay(dst, src *sip.Message) {}
