// Package filter parses the Provisioning API's filter parameter: a small, typed subset of OData's filter expressions.
//
// The published contract names the parameter but not its grammar, so this is Tandem's choice (docs/provisioning-api.md
// describes it for callers):
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
// Keywords and field names are case-sensitive. "and" binds tighter than "or". "not" may only precede a parenthesis or
// startswith, because OData would read "not a eq b" as "(not a) eq b", which is never intended.
//
// A field that a resource does not have equals nothing: eq and startswith are false for it and ne is true. There is no
// third truth value, so "not" always means the opposite.
//
// [Parse] turns text into an [Expr] whose fields are known and whose literals have the right type. The store compiles
// an Expr to SQL; testkit/filters evaluates one on a domain value and is the oracle that the SQL is tested against. The
// package contains neither storage nor HTTP.
package filter
