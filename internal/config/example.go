package config

import (
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/tandemgw/tandem/internal/calls/edge"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/config/strict"
	"github.com/tandemgw/tandem/internal/services"
)

// sample returns the configuration of the example: the defaults and, where a default would show nothing, a small
// deployment with a core of two peers and two services.
func sample() Config {
	c := Default("/var/lib/tandem")
	c.Calls.Routing.BaseDomain = "gw.example.com"
	c.Calls.Routing.EmergencyDialStrings, c.Calls.Routing.Countries = []string{"933"}, []string{"GB", "US"}
	c.Calls.Routing.PeerGroupToService = map[string]string{"core": "teamsOperatorConnect"}
	certificate := edge.TLS{CertificateFile: "/etc/tandem/edge.pem", KeyFile: "/etc/tandem/edge.key",
		RootsFile: "/etc/tandem/roots.pem"}
	options := edge.Options{Every: 30 * time.Second, Timeout: 4 * time.Second, DownAfter: 2, UpAfter: 2}
	c.Calls.Edge.Groups = []edge.Group{
		{Name: "core", Transport: "udp", Bind: edge.Addresses{UDP: "192.0.2.10:5060", TCP: "192.0.2.10:5060"},
			Insecure: true, AllowedSources: []string{"198.51.100.0/24"}, Options: options,
			Numbers: route.Numbers{Prefixes: []route.Prefix{{Prefix: "00", Replace: "+"},
				{Prefix: "0", Digits: 11, Replace: "+44"}}},
			Peers: []edge.Peer{{Name: "core-a", Address: "198.51.100.1:5060", Priority: 0, Weight: 1},
				{Name: "core-b", Address: "198.51.100.2:5060", Priority: 1, Weight: 1}}},
		{Name: "direct-routing", Service: "teamsDirectRouting", Transport: "tls",
			Bind:       edge.Addresses{TLS: "192.0.2.11:5061"},
			Advertised: edge.Addresses{TLS: "sbc.gw.example.com"}, TLS: certificate, Options: options,
			AllowedSources: []string{"52.112.0.0/14", "52.122.0.0/15"},
			Peers: []edge.Peer{{Name: "sip", Address: "sip.pstnhub.microsoft.com:5061", Weight: 1},
				{Name: "sip2", Address: "sip2.pstnhub.microsoft.com:5061", Priority: 1, Weight: 1},
				{Name: "sip3", Address: "sip3.pstnhub.microsoft.com:5061", Priority: 2, Weight: 1}}},
		{Name: "operator-connect", Service: "teamsOperatorConnect", Transport: "tls",
			Bind:       edge.Addresses{TLS: "192.0.2.12:5061"},
			Advertised: edge.Addresses{TLS: "oc.gw.example.com"}, TLS: certificate, Options: options,
			AllowedSources: []string{"203.0.113.0/24"},
			Peers:          []edge.Peer{{Name: "oc", Address: "oc.example.net", Weight: 1}}},
	}
	c.Calls.Edge.Validate(services.All().Services()) // sets the defaults of list items
	return c
}

// FieldDoc returns the documentation of a field, wrapped for a YAML comment.
func FieldDoc(t reflect.Type, field string) string {
	pkg := strings.TrimPrefix(t.PkgPath(), "github.com/tandemgw/tandem/internal/")
	doc := fieldDocs[pkg+"."+t.Name()+"."+field]
	// Doc comments begin with the Go name; the file has the key.
	if rest, ok := strings.CutPrefix(doc, field+" "); ok {
		if f, ok := t.FieldByName(field); ok {
			key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			doc = key + " " + rest
		}
	}
	return text.WrapSoft(doc, 104)
}

// WriteExample writes a complete, valid configuration file with the documentation of every field.
func WriteExample(w io.Writer) error {
	if _, err := io.WriteString(w, exampleHead); err != nil {
		return err
	}
	c := sample()
	return strict.Encode(w, &c, strict.Options{Doc: FieldDoc})
}

const exampleHead = `# Tandem's configuration: every field with its default, except the peer groups and the settings
# that belong to them, which show a small deployment with a core of two peers, Direct Routing and Operator Connect.
# Leave out the fields that you do not change. Check a file with: tandem config check --config FILE

`

// WriteShown writes the effective configuration with secrets masked.
func (l *Loaded) WriteShown(w io.Writer) error {
	return strict.Encode(w, &l.Config, strict.Options{Mask: true})
}

// Tree returns the effective configuration with secrets masked, for printing as JSON.
func (l *Loaded) Tree() (any, error) { return strict.Tree(&l.Config) }
