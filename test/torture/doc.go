// Package torture holds SIP messages that are hard to parse, or wrong in one particular way, each with the verdict that
// package calls/sip must give and the clause that it follows from. The cases cover the properties listed in RFC 4475
// and RFC 5118, in messages of our own, and some that were seen in networks since.
//
// The tests run the table against our parser and validator. With build tag deep they also pass every message to sipgo's
// parser and to a Kamailio process, and compare the results with docs/sip-torture.md, which -update rewrites:
//
//	go test -tags deep ./test/torture -run Peers -update
package torture
