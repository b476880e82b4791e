package front

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/web"
)

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string

	pages = template.Must(template.New("page").Parse(pageText))

	// contentPolicy is the Content-Security-Policy of every answer: the style of the front's own pages is in the page,
	// and permitted by its hash.
	contentPolicy = "default-src 'none'; style-src 'self' 'sha256-" + digest(pageStyle) + "'; img-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// page is what page.html shows.
type page struct {
	Style template.CSS
	Title string
	Class string // of the mark beside the title: "ok", "limited" or "error"
	Text  string
	Since time.Time // zero is not shown
	Now   time.Time // zero is not shown
}

// Stamp returns a time as the page shows it.
func (page) Stamp(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// Machine returns a time for the attribute datetime.
func (page) Machine(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (p page) render() []byte {
	p.Style = template.CSS(pageStyle)
	var b bytes.Buffer
	if err := pages.Execute(&b, p); err != nil {
		panic(fmt.Sprintf("front: render %q: %v", p.Title, err)) // a mistake in page.html
	}
	return b.Bytes()
}

// showStatus answers with the status page: that the service can be reached, and whether changes are possible.
func (f *front) showStatus(w http.ResponseWriter, _ *http.Request) {
	s := f.State()
	p := page{Title: "Operating normally", Class: "ok", Since: s.Since, Now: time.Now(),
		Text: "The service is reachable, and changes are accepted."}
	if s.Limited {
		p.Title, p.Class = "Limited", "limited"
		p.Text = "The service is reachable, but cannot accept changes at the moment. Try again later."
	}
	web.WriteHTML(w, http.StatusOK, p.render())
}

// errorPage returns an error as a page, with its message as a sentence.
func errorPage(status int, f *fault.Error) []byte {
	first, size := utf8.DecodeRuneInString(f.Message)
	text := string(unicode.ToUpper(first)) + f.Message[size:] + "."
	return page{Title: http.StatusText(status), Class: "error", Text: text}.render()
}
