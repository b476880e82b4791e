package demo

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/lab"
)

// Settings changes the demonstration's configuration for end-to-end tests. The zero value changes nothing.
type Settings struct {
	// Extra holds further top-level keys of the configuration file.
	Extra string
	// Timers holds the YAML lines of calls.timers, without indentation; a quick failover if empty.
	Timers string
	// Limits holds the YAML lines of calls.limits, without indentation.
	Limits string
	// Node is the node's name; "n1" if empty.
	Node string
	// Peers replaces the peers of groups, by group name: addresses, in order of priority.
	Peers map[string][]string
	// DefaultPorts leaves the HTTP listeners at their default addresses instead of free ones.
	DefaultPorts bool
}

//go:embed config.tmpl
var configText string

var configTemplate = template.Must(template.New("").Funcs(template.FuncMap{
	"indent": func(lines string) string { return strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n    ") },
}).Parse(configText))

// configData is what the template of the configuration file needs.
type configData struct {
	Settings
	Lab                     *lab.Lab
	Certificate, Key, Roots string // files
	Groups                  []group
}

// group is a peer group. A group of the core has a transport, any other a service and TLS.
type group struct {
	Name, Transport, Service string
	Bind, Advertised         string
	Peers                    map[string]string // addresses by name; usual ones, in order of priority by name
}

type peer struct{ Name, Address string }

// Order returns the peers of a group in order of priority.
func (d *configData) Order(g group) (peers []peer) {
	for i, address := range d.Settings.Peers[g.Name] {
		peers = append(peers, peer{fmt.Sprintf("%s-%d", g.Name, i+1), address})
	}
	if peers != nil {
		return peers
	}
	for _, name := range slices.Sorted(maps.Keys(g.Peers)) {
		peers = append(peers, peer{name, g.Peers[name]})
	}
	return peers
}

// WriteConfig writes to dir the configuration of a Tandem between the lab's neighbours, and its certificate. It returns
// the name of the configuration file.
func WriteConfig(dir string, l *lab.Lab, s Settings) (string, error) {
	d := &configData{Settings: s, Lab: l, Roots: filepath.Join(dir, "roots.pem"), Groups: groups(l)}
	cert, err := l.Authority.Issue(ca.ServerAndClient, l.Gateway.CertificateNames()...)
	if err != nil {
		return "", err
	}
	if d.Certificate, d.Key, err = ca.WriteFiles(dir, "edge", cert); err != nil {
		return "", err
	}
	if err := os.WriteFile(d.Roots, l.Authority.PEM(), 0o644); err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := configTemplate.Execute(&b, d); err != nil {
		return "", err
	}
	name := filepath.Join(dir, "tandem.yaml")
	return name, os.WriteFile(name, b.Bytes(), 0o600)
}

// groups returns the peer groups of a Tandem between the lab's neighbours.
func groups(l *lab.Lab) []group {
	core := func(name, transport, bind string) group {
		return group{Name: name, Transport: transport, Bind: bind,
			Peers: map[string]string{name: l.Cores[name].Addr(transport)}}
	}
	service := func(name, service, bind, advertised string, peers map[string]string) group {
		_, port, _ := net.SplitHostPort(bind)
		return group{Name: name, Service: service, Bind: bind, Advertised: net.JoinHostPort(advertised, port),
			Peers: peers}
	}
	g, names := l.Gateway, l.Gateway.CertificateNames()
	return []group{
		core("core-fixed", "udp", g.CoreFixed),
		core("core-mobile", "tcp", g.CoreMobile),
		core("core-transit", "udp", g.CoreTransit),
		service("direct-routing", "teamsDirectRouting", g.DirectRouting, names[0], edges(l, "teams-")),
		service("operator-connect", "teamsOperatorConnect", g.OperatorConnect, names[2], edges(l, "oc-")),
		service("phone-mobile", "teamsPhoneMobile", g.Mobile, names[3], edges(l, "tpm-")),
		service("zoom", "zoomPhoneCloudPeering", g.Zoom, names[4],
			map[string]string{"zoom-1": l.Zoom["zoom-1"].Addr("tls")}),
	}
}

// edges returns the addresses of the Teams edges whose names begin with prefix.
func edges(l *lab.Lab, prefix string) map[string]string {
	out := map[string]string{}
	for name, t := range l.Teams {
		if strings.HasPrefix(name, prefix) {
			out[name] = t.Addr("tls")
		}
	}
	return out
}
