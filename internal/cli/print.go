package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/mattn/go-isatty"
)

// tableWidth is the maximum width of tables on a terminal.
const tableWidth = 80

// printJSON writes v as one indented document.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// show prints v as text, or as JSON if the user asked for that or text is nil.
func show[T any](t *target, v T, text func(io.Writer, T) error) error {
	if t.output == "json" || text == nil {
		return printJSON(t.p.Stdout, v)
	}
	return text(t.p.Stdout, v)
}

// grid is rows under a heading.
type grid struct {
	head []string
	rows [][]string
}

func (g *grid) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	g.rows = append(g.rows, row)
}

// write draws a table on a terminal; elsewhere it writes columns separated by spaces. Scripts should not parse them but
// use --output json.
func (g *grid) write(w io.Writer) error {
	if terminal(w) {
		t := table.NewWriter()
		t.SetStyle(table.StyleRounded)
		t.Style().Format.Header = text.FormatDefault
		t.AppendHeader(cells(g.head))
		for _, r := range g.rows {
			t.AppendRow(cells(r))
		}
		t.SetColumnConfigs(g.widths())
		_, err := fmt.Fprintln(w, t.Render())
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ToUpper(strings.Join(g.head, "\t")))
	for _, r := range g.rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	return tw.Flush()
}

// widths returns column widths with which the table fits: it narrows the widest column first.
func (g *grid) widths() []table.ColumnConfig {
	width := make([]int, len(g.head))
	total := 1
	for i := range g.head {
		width[i] = len([]rune(g.head[i]))
		for _, r := range g.rows {
			width[i] = max(width[i], len([]rune(r[i])))
		}
		total += width[i] + 3
	}
	for total > tableWidth {
		widest := 0
		for i := range width {
			if width[i] > width[widest] {
				widest = i
			}
		}
		if width[widest] <= 10 {
			break
		}
		cut := min(total-tableWidth, width[widest]-10)
		width[widest] -= cut
		total -= cut
	}
	configs := make([]table.ColumnConfig, len(width))
	for i := range configs {
		configs[i] = table.ColumnConfig{Number: i + 1, WidthMax: width[i], WidthMaxEnforcer: text.WrapSoft}
	}
	return configs
}

func cells(row []string) table.Row {
	out := make(table.Row, len(row))
	for i, c := range row {
		out[i] = c
	}
	return out
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
