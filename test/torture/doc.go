// Package torture holds SIP messages that are hard to read, or wrong in one
// particular way, each with the verdict that package calls/sip must give and the
// clause it follows from. The cases exercise the properties listed in RFC 4475 and
// RFC 5118, in messages of our own, and some that networks added since.
//
// The tests run the table against our parser and validator. With build tag deep
// they also put every message to sipgo's parser and to a Kamailio process, and
// compare with docs/sip-torture.md, which -update rewrites:
//
//	go test -tags deep ./test/torture -run Peers -update
package torture
