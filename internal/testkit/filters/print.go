package filters

import (
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/provisioning/filter"
)

// Print writes e in the form that [filter.Parse] parses to the same tree. Print(nil) is empty.
func Print(e filter.Expr) string {
	switch e := e.(type) {
	case nil:
		return ""
	case *filter.Or:
		return Print(e.Left) + " or " + group(e.Right, isOr(e.Right)) // operators associate to the left
	case *filter.And:
		return group(e.Left, isOr(e.Left)) + " and " + group(e.Right, isOr(e.Right) || isAnd(e.Right))
	case *filter.Not:
		switch e.X.(type) {
		case *filter.Not, *filter.Prefix:
			return "not " + Print(e.X)
		}
		return "not " + group(e.X, true)
	case *filter.Compare:
		op := " eq "
		if e.Negated {
			op = " ne "
		}
		if e.Value.Type == filter.Bool {
			return e.Field.Path + op + strconv.FormatBool(e.Value.Bool)
		}
		return e.Field.Path + op + quote(e.Value.Str)
	case *filter.Prefix:
		return "startswith(" + e.Field.Path + "," + quote(e.Prefix) + ")"
	}
	panic("filters: unknown expression")
}

func isOr(e filter.Expr) bool  { _, is := e.(*filter.Or); return is }
func isAnd(e filter.Expr) bool { _, is := e.(*filter.And); return is }

func group(e filter.Expr, parentheses bool) string {
	if parentheses {
		return "(" + Print(e) + ")"
	}
	return Print(e)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
