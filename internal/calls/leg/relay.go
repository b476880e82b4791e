package leg

import (
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// stopped lists the header lines that do not pass from one leg to the other, with the reason. Every other line, known
// or not, passes in its place and byte for byte. docs/sip-headers.md documents the same; a test compares the two.
var stopped = [256]bool{
	// Each leg is a dialog of its own, and the edge writes these for it.
	sip.KindVia: true, sip.KindRoute: true, sip.KindRecordRoute: true, sip.KindPath: true, sip.KindServiceRoute: true,
	sip.KindMaxForwards: true, sip.KindCallID: true, sip.KindCSeq: true, sip.KindFrom: true, sip.KindTo: true,
	sip.KindContact: true, sip.KindContentLength: true, sip.KindTimestamp: true,
	// They name a dialog of the leg that they arrived on; the other leg does not know it.
	sip.KindReplaces: true, sip.KindJoin: true, sip.KindTargetDialog: true, sip.KindInReplyTo: true,
	// We state what we support: the profile writes Allow.
	sip.KindAllow: true, sip.KindProxyRequire: true,
	// Credentials are for one neighbour only; passing them on would disclose them (RFC 3261 §22).
	sip.KindAuthorization: true, sip.KindProxyAuthorization: true, sip.KindWWWAuthenticate: true,
	sip.KindProxyAuthenticate: true, sip.KindAuthenticationInfo: true,
}

// addressed lists the header lines that hold addresses: a "#" in their URIs is sent as %23.
var addressed = [256]bool{sip.KindPAssertedIdentity: true, sip.KindPPreferredIdentity: true, sip.KindPServedUser: true,
	sip.KindPCalledPartyID: true, sip.KindHistoryInfo: true, sip.KindDiversion: true, sip.KindReferredBy: true,
	sip.KindReferTo: true, sip.KindReplyTo: true}

// Relay appends to dst every header line of src that passes from one leg to the other, in order and byte for byte, and
// the unchanged body, including the PIDF-LO of a multipart body. It makes three changes: it escapes "#" in a SIP or tel
// URI, raises a session interval below MinSession to it (RFC 4028 §4, §5), and removes from Supported what we do not
// implement. The operator's custom header and X-MS-SBC never pass: only we write them.
func (r *Rules) Relay(dst, src *sip.Message) {
	for i := range src.Len() {
		h := src.At(i)
		if stopped[h.Kind()] || h.Kind() == sip.KindOther && r.ours(h.Name()) {
			continue
		}
		value, left := h.Value(), true
		switch h.Kind() {
		case sip.KindSupported:
			value, left = supported(value)
		case sip.KindSessionExpires, sip.KindMinSE:
			value = atLeastMinSession(value)
		}
		if !left {
			continue
		}
		if addressed[h.Kind()] || h.Kind() == sip.KindOther && fold(h.Name(), HeaderRPID) {
			value = sip.EscapeHash(value)
		}
		if value != h.Value() {
			h = h.WithValue(value)
		}
		dst.Append(h)
	}
	if body := src.Body(); body != "" {
		dst.SetBody("", body)
	}
}

// supported removes from a Supported value the option tags that we would have to implement ourselves and do not: an
// INVITE whose Replaces, Join or Target-Dialog names one of our dialogs. left is false if it removed every tag.
func supported(value string) (rest string, left bool) {
	var keep []string
	dropped := false
	for tag := range strings.SplitSeq(value, ",") {
		tag = strings.TrimSpace(tag)
		switch strings.ToLower(tag) {
		case "replaces", "join", "tdialog":
			dropped = true
		default:
			keep = append(keep, tag)
		}
	}
	if !dropped {
		return value, true
	}
	return strings.Join(keep, ", "), len(keep) > 0
}

// ours reports whether only we may write a header line of that name.
func (r *Rules) ours(name string) bool {
	return fold(name, r.custom) || fold(name, HeaderSBC)
}
