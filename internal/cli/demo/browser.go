package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"

	"github.com/tandemgw/tandem/internal/sim/lab"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

// Browser walks the pages of the public front. It finds the front as the rest of the world does: Tandem's own name
// server has its address.
type Browser struct {
	http  *http.Client
	front string // URL
	login string // beginning of the addresses of Microsoft's login
	page  string // the present one
}

var (
	pageTitle = regexp.MustCompile(`<title>([^<]*)</title>`)
	pageToken = regexp.MustCompile(`name="csrf" value="([^"]+)"`)
	pageLink  = regexp.MustCompile(`class="button" href="([^"]+)"`)
)

// NewBrowser returns a browser that shows no page yet.
func NewBrowser(l *lab.Lab) (*Browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Resolver: resolver(l.Gateway.DNS)}
	return &Browser{front: frontURL(l.Gateway), login: l.Microsoft.URL(microsoft.Login) + "/",
		http: &http.Client{Jar: jar, Transport: &http.Transport{DialContext: dialer.DialContext,
			TLSClientConfig: &tls.Config{RootCAs: l.Authority.Pool(), MinVersion: tls.VersionTLS12}}}}, nil
}

// resolver returns one that asks a single name server.
func resolver(at string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at)
	}}
}

// found returns what the present page has of a pattern.
func (b *Browser) found(pattern *regexp.Regexp) string {
	m := pattern.FindStringSubmatch(b.page)
	if m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

// Title returns the title of the present page.
func (b *Browser) Title() string { return b.found(pageTitle) }

// Open opens a page.
func (b *Browser) Open(ctx context.Context, address string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	return b.do(r)
}

func (b *Browser) do(r *http.Request) error {
	res, err := b.http.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	page, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if b.page = string(page); res.StatusCode != http.StatusOK {
		return fmt.Errorf("the page %q has status %d", b.Title(), res.StatusCode)
	}
	return nil
}

// Trip presses the button that posts to path, and goes to Microsoft and back until the page is one of the front.
func (b *Browser) Trip(ctx context.Context, path, login string,
	walk func(ctx context.Context, address, login string) (string, error)) error {
	form := url.Values{"csrf": {b.found(pageToken)}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.front+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if err := b.do(r); err != nil {
		return err
	}
	if !strings.HasPrefix(b.found(pageLink), b.login) {
		return errors.New("the page does not lead to Microsoft's login: " + b.Title())
	}
	for strings.HasPrefix(b.found(pageLink), b.login) {
		back, err := walk(ctx, b.found(pageLink), login)
		if err != nil {
			return err
		}
		if err := b.Open(ctx, back); err != nil {
			return err
		}
	}
	return nil
}
