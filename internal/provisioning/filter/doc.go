// Package filter reads the Provisioning API's filter parameter: a small, typed subset of OData's filter expressions.
//
// The published contract names the parameter and says nothing of its grammar, so this is Tandem's choice (it is in
// docs/provisioning-api.md for callers):
//
//	expr    = term { "or" term }
//	term    = factor { "and" factor }
//	factor  = "not" group | group | compare
//	group   = "(" expr ")" | prefix | "not" group
//	compare = field ( "eq" | "ne" ) literal
//	prefix  = "startswith" "(" field "," string ")"
//	literal = "true" | "false" | string
//	string  = "'" any character, a quote written twice "'"
//	field   = a path of the listed resource, e.g. serviceDetails/teamsDirectRouting/enabled
//
// Keywords and field names are case-sensitive. "and" binds tighter than "or". "not" takes a parenthesis or startswith
// only, because OData would read "not a eq b" as "(not a) eq b", which nobody means.
//
// A field that a resource does not have equals nothing: eq and startswith are false for it and ne is true. There is no
// third truth value, so "not" always means the opposite.
//
// [Parse] turns text into an [Expr] whose fields are known and whose literals have the right type; the store compiles an
// Expr to SQL; testkit/filters evaluates one on a domain value: it is the oracle the SQL is tested against. The package
// does not know storage and holds no HTTP.
package filter
