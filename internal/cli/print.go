package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/mattn/go-isatty"
)

// screenWidth is the width of a terminal in columns. Help and tables fit it; only a word that is longer does not.
const screenWidth = 80

// printJSON writes v as one indented document.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// nothing is the result of a command that prints nothing.
type nothing struct{}

// show prints v as text, or as JSON if the user asked for that or text is nil.
func show[T any](t *target, v T, text func(*page, T)) error {
	if _, ok := any(v).(nothing); ok {
		return nil
	}
	if t.output == "json" || text == nil {
		return printJSON(t.p.Stdout, v)
	}
	p := newPage(t.p.Stdout)
	text(p, v)
	_, err := io.WriteString(t.p.Stdout, p.String())
	return err
}

// page collects the text that a command prints. On a terminal it wraps lines between words. Elsewhere it does not, so
// that each row of a table is one line; scripts should not parse them but use --output json.
type page struct {
	strings.Builder
	width int // in columns; 0 for no limit
}

// newPage returns a page to be written to w.
func newPage(w io.Writer) *page {
	if f, ok := w.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		return &page{width: screenWidth}
	}
	return &page{}
}

// line adds a line of text.
func (p *page) line(format string, args ...any) { p.field("", format, args...) }

// field adds a label and a text. The further lines of the text stand below its first.
func (p *page) field(label, format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		for _, l := range p.wrap(line, p.width-len(label)) {
			p.WriteString(strings.TrimRight(label+l, " ") + "\n")
			label = strings.Repeat(" ", len(label))
		}
	}
}

// wrap returns the lines of s, which have at most width columns unless a word is longer. Without a limit it is one, and
// so is JSON, such as a line of the log.
func (p *page) wrap(s string, width int) []string {
	if p.width == 0 || json.Valid([]byte(s)) {
		return []string{s}
	}
	return strings.Split(text.WrapSoft(s, max(width, longestWord(s))), "\n")
}

func longestWord(s string) int {
	longest := 0
	for w := range strings.FieldsSeq(s) {
		longest = max(longest, len([]rune(w)))
	}
	return longest
}

// grid is the rows of a table under a heading.
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

// table adds a table. If its columns do not fit the page, each row becomes a record of one line per column.
func (p *page) table(g *grid) {
	widths, ok := g.fit(p.width)
	if !ok {
		p.records(g)
		return
	}
	const gap = 2
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, gap, ' ', 0)
	fmt.Fprintln(tw, strings.ToUpper(strings.Join(g.head, "\t")))
	for _, r := range g.rows {
		cells := make([][]string, len(r))
		height := 1
		for i, c := range r {
			cells[i] = p.wrap(c, widths[i])
			height = max(height, len(cells[i]))
		}
		for n := range height {
			line := make([]string, len(cells))
			for i, c := range cells {
				if n < len(c) {
					line[i] = strings.TrimRight(c[n], " ")
				}
			}
			fmt.Fprintln(tw, strings.Join(line, "\t"))
		}
	}
	_ = tw.Flush() // a builder takes everything
	for line := range strings.Lines(b.String()) {
		p.WriteString(strings.TrimRight(line, " \n") + "\n") // empty cells at the end
	}
}

// fit returns column widths with which the table has at most the given width. It narrows the widest column only, to the
// longest word or 20 columns at least. It returns false if the table does not fit.
func (g *grid) fit(width int) ([]int, bool) {
	const gap, leastText = 2, 20
	widths, total, widest := make([]int, len(g.head)), -gap, 0
	for i, h := range g.head {
		widths[i] = len([]rune(h))
		for _, r := range g.rows {
			widths[i] = max(widths[i], len([]rune(r[i])))
		}
		if widths[i] > widths[widest] {
			widest = i
		}
		total += widths[i] + gap
	}
	if width == 0 || total <= width {
		return widths, true
	}
	widths[widest] -= total - width
	for _, r := range g.rows {
		if longestWord(r[widest]) > widths[widest] {
			return nil, false
		}
	}
	return widths, widths[widest] >= leastText
}

// records adds each row as a record: a line for each column that is not empty.
func (p *page) records(g *grid) {
	label := 0
	for _, h := range g.head {
		label = max(label, len(h))
	}
	for i, r := range g.rows {
		if i > 0 {
			p.line("")
		}
		for n, c := range r {
			if c != "" {
				p.field(fmt.Sprintf("%-*s  ", label, g.head[n]), "%s", c)
			}
		}
	}
}

// stamp returns a time as commands print it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func either[T any](b bool, yes, no T) T {
	if b {
		return yes
	}
	return no
}
