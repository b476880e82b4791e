package sip

import "cmp"

// Method is a request method. Methods are case-sensitive (RFC 3261 §7.1):
// "invite" is an unknown method, not INVITE.
type Method string

// The known methods, with the RFCs that define them.
const (
	INVITE    Method = "INVITE"    // RFC 3261
	ACK       Method = "ACK"       // RFC 3261
	BYE       Method = "BYE"       // RFC 3261
	CANCEL    Method = "CANCEL"    // RFC 3261
	OPTIONS   Method = "OPTIONS"   // RFC 3261
	REGISTER  Method = "REGISTER"  // RFC 3261
	PRACK     Method = "PRACK"     // RFC 3262
	UPDATE    Method = "UPDATE"    // RFC 3311
	INFO      Method = "INFO"      // RFC 6086
	SUBSCRIBE Method = "SUBSCRIBE" // RFC 6665
	NOTIFY    Method = "NOTIFY"    // RFC 6665
	REFER     Method = "REFER"     // RFC 3515
	MESSAGE   Method = "MESSAGE"   // RFC 3428
	PUBLISH   Method = "PUBLISH"   // RFC 3903
)

// Known reports whether the method is one of the constants of this package.
func (m Method) Known() bool { return knownMethod(string(m)) != "" }

// Version is the protocol version of every message made by this package.
const Version = "SIP/2.0"

// reasons holds the reason phrases of status codes, and under 1 to 6 those of the classes.
var reasons = map[int]string{
	1: "Session Progress", 2: "OK", 3: "Redirection", 4: "Client Error", 5: "Server Error", 6: "Global Failure",
	100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued",
	183: "Session Progress", 199: "Early Dialog Terminated",
	200: "OK", 202: "Accepted", 204: "No Notification",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily",
	305: "Use Proxy", 380: "Alternative Service",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
	404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
	407: "Proxy Authentication Required", 408: "Request Timeout", 409: "Conflict",
	410: "Gone", 412: "Conditional Request Failed", 413: "Request Entity Too Large",
	414: "Request-URI Too Long", 415: "Unsupported Media Type",
	416: "Unsupported URI Scheme", 417: "Unknown Resource-Priority",
	420: "Bad Extension", 421: "Extension Required", 422: "Session Interval Too Small",
	423: "Interval Too Brief", 424: "Bad Location Information",
	425: "Bad Alert Message", 428: "Use Identity Header",
	429: "Provide Referrer Identity", 430: "Flow Failed", 433: "Anonymity Disallowed",
	436: "Bad Identity Info", 437: "Unsupported Credential",
	438: "Invalid Identity Header", 439: "First Hop Lacks Outbound Support",
	440: "Max-Breadth Exceeded", 469: "Bad Info Package", 470: "Consent Needed",
	480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist",
	482: "Loop Detected", 483: "Too Many Hops", 484: "Address Incomplete",
	485: "Ambiguous", 486: "Busy Here", 487: "Request Terminated",
	488: "Not Acceptable Here", 489: "Bad Event", 491: "Request Pending",
	493: "Undecipherable", 494: "Security Agreement Required",
	500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway",
	503: "Service Unavailable", 504: "Server Time-out", 505: "Version Not Supported",
	513: "Message Too Large", 555: "Push Notification Service Not Supported",
	580: "Precondition Failure",
	600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere",
	606: "Not Acceptable", 607: "Unwanted", 608: "Rejected",
}

// ReasonPhrase returns the usual reason phrase of a status code (RFC 3261 §21 and
// the IANA registry), or the name of its class for unregistered codes.
func ReasonPhrase(status int) string {
	if r, ok := reasons[status]; ok {
		return r
	}
	return cmp.Or(reasons[status/100], "Unknown")
}
