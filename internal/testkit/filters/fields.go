package filters

import (
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/provisioning/filter"
)

// Fields returns every field of a table, ordered by path.
func Fields(t *filter.Table) []*filter.Field {
	l := make([]*filter.Field, 0, len(t.Fields))
	for _, f := range t.Fields {
		l = append(l, f)
	}
	slices.SortFunc(l, func(a, b *filter.Field) int { return strings.Compare(a.Path, b.Path) })
	return l
}
