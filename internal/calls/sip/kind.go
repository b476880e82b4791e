package sip

// Kind identifies a known header field; all spellings and compact forms of a field
// have the same Kind. KindOther is the Kind of every other field, which is found by
// its name.
type Kind uint8

// The known header fields. The comment of canonical lists the defining documents.
const (
	KindOther Kind = iota
	KindVia
	KindFrom
	KindTo
	KindCallID
	KindCSeq
	KindContact
	KindMaxForwards
	KindRoute
	KindRecordRoute
	KindContentLength
	KindContentType
	KindContentEncoding
	KindContentDisposition
	KindContentLanguage
	KindContentID
	KindMIMEVersion
	KindAllow
	KindAllowEvents
	KindSupported
	KindRequire
	KindProxyRequire
	KindUnsupported
	KindAccept
	KindAcceptEncoding
	KindAcceptLanguage
	KindAcceptContact
	KindRejectContact
	KindRequestDisposition
	KindExpires
	KindMinExpires
	KindRetryAfter
	KindReason
	KindWarning
	KindSubject
	KindPAssertedIdentity
	KindPPreferredIdentity
	KindPAssertedService
	KindPServedUser
	KindPCalledPartyID
	KindPChargingVector
	KindPChargingFunctionAddresses
	KindPAccessNetworkInfo
	KindPVisitedNetworkID
	KindPEarlyMedia
	KindPath
	KindServiceRoute
	KindPrivacy
	KindHistoryInfo
	KindDiversion
	KindReferredBy
	KindReferTo
	KindReferSub
	KindReplaces
	KindTargetDialog
	KindJoin
	KindIdentity
	KindIdentityInfo
	KindGeolocation
	KindGeolocationRouting
	KindGeolocationError
	KindUserAgent
	KindServer
	KindOrganization
	KindSessionExpires
	KindMinSE
	KindSessionID
	KindRSeq
	KindRAck
	KindEvent
	KindSubscriptionState
	KindUserToUser
	KindAlertInfo
	KindCallInfo
	KindErrorInfo
	KindInReplyTo
	KindPriority
	KindResourcePriority
	KindReplyTo
	KindDate
	KindTimestamp
	KindAuthorization
	KindProxyAuthorization
	KindWWWAuthenticate
	KindProxyAuthenticate
	KindAuthenticationInfo
	KindSIPETag
	KindSIPIfMatch
	KindInfoPackage
	KindRecvInfo

	numKinds
)

// canonical holds the spelling used for lines made by this package: RFC 3261 §20
// and the extensions RFC 3262 (RSeq, RAck), 3265/6665, 3311, 3313, 3323, 3325, 3326, 3327,
// 3455/7315, 3515, 3608, 3841, 3891, 3892, 3903, 3911, 4028, 4412, 4488, 4538,
// 5009, 5502, 5806, 6050, 6086, 6442, 7044, 7433, 7989, 8224, 8262.
var canonical = [numKinds]string{
	KindVia:                        "Via",
	KindFrom:                       "From",
	KindTo:                         "To",
	KindCallID:                     "Call-ID",
	KindCSeq:                       "CSeq",
	KindContact:                    "Contact",
	KindMaxForwards:                "Max-Forwards",
	KindRoute:                      "Route",
	KindRecordRoute:                "Record-Route",
	KindContentLength:              "Content-Length",
	KindContentType:                "Content-Type",
	KindContentEncoding:            "Content-Encoding",
	KindContentDisposition:         "Content-Disposition",
	KindContentLanguage:            "Content-Language",
	KindContentID:                  "Content-ID",
	KindMIMEVersion:                "MIME-Version",
	KindAllow:                      "Allow",
	KindAllowEvents:                "Allow-Events",
	KindSupported:                  "Supported",
	KindRequire:                    "Require",
	KindProxyRequire:               "Proxy-Require",
	KindUnsupported:                "Unsupported",
	KindAccept:                     "Accept",
	KindAcceptEncoding:             "Accept-Encoding",
	KindAcceptLanguage:             "Accept-Language",
	KindAcceptContact:              "Accept-Contact",
	KindRejectContact:              "Reject-Contact",
	KindRequestDisposition:         "Request-Disposition",
	KindExpires:                    "Expires",
	KindMinExpires:                 "Min-Expires",
	KindRetryAfter:                 "Retry-After",
	KindReason:                     "Reason",
	KindWarning:                    "Warning",
	KindSubject:                    "Subject",
	KindPAssertedIdentity:          "P-Asserted-Identity",
	KindPPreferredIdentity:         "P-Preferred-Identity",
	KindPAssertedService:           "P-Asserted-Service",
	KindPServedUser:                "P-Served-User",
	KindPCalledPartyID:             "P-Called-Party-ID",
	KindPChargingVector:            "P-Charging-Vector",
	KindPChargingFunctionAddresses: "P-Charging-Function-Addresses",
	KindPAccessNetworkInfo:         "P-Access-Network-Info",
	KindPVisitedNetworkID:          "P-Visited-Network-ID",
	KindPEarlyMedia:                "P-Early-Media",
	KindPath:                       "Path",
	KindServiceRoute:               "Service-Route",
	KindPrivacy:                    "Privacy",
	KindHistoryInfo:                "History-Info",
	KindDiversion:                  "Diversion",
	KindReferredBy:                 "Referred-By",
	KindReferTo:                    "Refer-To",
	KindReferSub:                   "Refer-Sub",
	KindReplaces:                   "Replaces",
	KindTargetDialog:               "Target-Dialog",
	KindJoin:                       "Join",
	KindIdentity:                   "Identity",
	KindIdentityInfo:               "Identity-Info",
	KindGeolocation:                "Geolocation",
	KindGeolocationRouting:         "Geolocation-Routing",
	KindGeolocationError:           "Geolocation-Error",
	KindUserAgent:                  "User-Agent",
	KindServer:                     "Server",
	KindOrganization:               "Organization",
	KindSessionExpires:             "Session-Expires",
	KindMinSE:                      "Min-SE",
	KindSessionID:                  "Session-ID",
	KindRSeq:                       "RSeq",
	KindRAck:                       "RAck",
	KindEvent:                      "Event",
	KindSubscriptionState:          "Subscription-State",
	KindUserToUser:                 "User-to-User",
	KindAlertInfo:                  "Alert-Info",
	KindCallInfo:                   "Call-Info",
	KindErrorInfo:                  "Error-Info",
	KindInReplyTo:                  "In-Reply-To",
	KindPriority:                   "Priority",
	KindResourcePriority:           "Resource-Priority",
	KindReplyTo:                    "Reply-To",
	KindDate:                       "Date",
	KindTimestamp:                  "Timestamp",
	KindAuthorization:              "Authorization",
	KindProxyAuthorization:         "Proxy-Authorization",
	KindWWWAuthenticate:            "WWW-Authenticate",
	KindProxyAuthenticate:          "Proxy-Authenticate",
	KindAuthenticationInfo:         "Authentication-Info",
	KindSIPETag:                    "SIP-ETag",
	KindSIPIfMatch:                 "SIP-If-Match",
	KindInfoPackage:                "Info-Package",
	KindRecvInfo:                   "Recv-Info",
}

// compact maps a lower-case letter (minus 'a') to the field it abbreviates:
// RFC 3261 §7.3.3 and the IANA registry of header field compact forms.
var compact = [26]Kind{
	0:         KindAcceptContact, // 'a'
	'b' - 'a': KindReferredBy,
	'c' - 'a': KindContentType,
	'd' - 'a': KindRequestDisposition,
	'e' - 'a': KindContentEncoding,
	'f' - 'a': KindFrom,
	'i' - 'a': KindCallID,
	'j' - 'a': KindRejectContact,
	'k' - 'a': KindSupported,
	'l' - 'a': KindContentLength,
	'm' - 'a': KindContact,
	'n' - 'a': KindIdentityInfo,
	'o' - 'a': KindEvent,
	'r' - 'a': KindReferTo,
	's' - 'a': KindSubject,
	't' - 'a': KindTo,
	'u' - 'a': KindAllowEvents,
	'v' - 'a': KindVia,
	'x' - 'a': KindSessionExpires,
	'y' - 'a': KindIdentity,
}

const longestKnown = 32

// byShape lists the known fields by name length and first letter (its low five
// bits), so that a name is compared with at most a few candidates.
var byShape = buildShapes()

func buildShapes() (t [longestKnown][32][]Kind) {
	for k := KindOther + 1; k < numKinds; k++ {
		n := canonical[k]
		t[len(n)][n[0]&31] = append(t[len(n)][n[0]&31], k)
	}
	return t
}

// KindOf returns the known header field that a name denotes. Names are
// case-insensitive and may be compact forms (RFC 3261 §7.3.1, §7.3.3).
func KindOf(name string) Kind {
	if len(name) == 1 {
		if c := name[0] | 0x20; c >= 'a' && c <= 'z' {
			return compact[c-'a']
		}
		return KindOther
	}
	if len(name) == 0 || len(name) >= longestKnown {
		return KindOther
	}
	shape := byShape[len(name)][name[0]&31]
	for _, k := range shape { // nearly always in canonical spelling
		if canonical[k] == name {
			return k
		}
	}
	for _, k := range shape {
		if equalFold(canonical[k], name) {
			return k
		}
	}
	return KindOther
}

// String returns the field's canonical spelling, "other" for KindOther.
func (k Kind) String() string {
	if k == KindOther || k >= numKinds {
		return "other"
	}
	return canonical[k]
}

// equalFold reports whether two ASCII texts are equal, ignoring case.
// strings.EqualFold would also equate a few letters outside ASCII (the Kelvin sign
// with k).
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}
