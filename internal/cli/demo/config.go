package demo

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/lab"
)

// Settings changes the demonstration's configuration for end-to-end tests. The zero value changes nothing.
type Settings struct {
	Database string // PostgreSQL connection string; SQLite in the data directory if empty
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

// WriteConfig writes to dir the configuration of a Tandem between the lab's neighbours, and its certificate. It returns
// the name of the configuration file.
func WriteConfig(dir string, l *lab.Lab, s Settings) (string, error) {
	cert, err := l.Authority.Issue(ca.ServerAndClient, l.Gateway.CertificateNames()...)
	if err != nil {
		return "", err
	}
	certFile, keyFile, err := ca.WriteFiles(dir, "edge", cert)
	if err != nil {
		return "", err
	}
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, l.Authority.PEM(), 0o644); err != nil {
		return "", err
	}
	name := filepath.Join(dir, "tandem.yaml")
	return name, os.WriteFile(name, []byte(Config(l, s, certFile, keyFile, roots)), 0o600)
}

// Config returns the text of the configuration file.
func Config(l *lab.Lab, s Settings, certFile, keyFile, roots string) string {
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	w("# Tandem between simulated neighbours, not for production; every address is a loopback address.")
	if !s.DefaultPorts {
		w("metrics: {listen: 127.0.0.1:0}")
		w("manage: {listen: 127.0.0.1:0}")
		w("provisioning: {listen: 127.0.0.1:0}")
	}
	w("shutdown: {drain: 2s, cut: 5s}")
	if s.Extra != "" {
		w("%s", strings.TrimRight(s.Extra, "\n"))
	}
	w("calls:")
	if s.Node != "" {
		w("  node: %s", s.Node)
	}
	timers := s.Timers
	if timers == "" {
		timers = "failoverAfter: 700ms # short, so that the call that fails over takes little time"
	}
	w("  timers:")
	for _, l := range strings.Split(strings.TrimSpace(timers), "\n") {
		w("    %s", strings.TrimSpace(l))
	}
	if s.Limits != "" {
		w("  limits:")
		for _, l := range strings.Split(strings.TrimSpace(s.Limits), "\n") {
			w("    %s", strings.TrimSpace(l))
		}
	}
	w("  routing:")
	w("    baseDomain: %s", l.Gateway.Base)
	w("    peerGroupToService: {core-fixed: teamsOperatorConnect, core-mobile: teamsPhoneMobile} # core-transit: none")
	w("    countries: [GB, US] # 112, 911 and 999 are emergency numbers: never screened, limited or refused")
	w("    emergencyDialStrings: [\"933\"] # the test number of the US")
	w("    serviceToPeerGroup:")
	for _, x := range []string{"teamsDirectRouting: core-fixed", "teamsOperatorConnect: core-fixed",
		"teamsPhoneMobile: core-mobile", "zoomPhoneCloudPeering: core-fixed"} {
		w("      %s", x)
	}
	w("  headers: {customSipHeader: %s}", l.World.CustomHeader)
	w("  groups:")
	g := l.Gateway
	for _, x := range []struct{ name, transport, bind, peer string }{
		{"core-fixed", "udp", g.CoreFixed, l.Cores["core-fixed"].Addr("udp")},
		{"core-mobile", "tcp", g.CoreMobile, l.Cores["core-mobile"].Addr("tcp")},
		{"core-transit", "udp", g.CoreTransit, l.Cores["core-transit"].Addr("udp")},
	} {
		w("    - name: %s", x.name)
		w("      transport: %s", x.transport)
		if x.transport == "udp" {
			w("      bind: {udp: %q, tcp: %q}", x.bind, x.bind)
		} else {
			w("      bind: {tcp: %q}", x.bind)
		}
		w("      allowedSources: [127.0.0.1/32]")
		w("      options: {every: 2s, timeout: 2s}")
		s.peers(w, x.name, map[string]string{x.name: x.peer})
	}
	names := g.CertificateNames()
	for _, x := range []struct {
		name, service, bind, advertised string
		peers                           map[string]string
	}{
		{"direct-routing", "teamsDirectRouting", g.DirectRouting, names[0], edges(l, "teams-")},
		{"operator-connect", "teamsOperatorConnect", g.OperatorConnect, names[2], edges(l, "oc-")},
		{"phone-mobile", "teamsPhoneMobile", g.Mobile, names[3], edges(l, "tpm-")},
		{"zoom", "zoomPhoneCloudPeering", g.Zoom, names[4], map[string]string{"zoom-1": l.Zoom["zoom-1"].Addr("tls")}},
	} {
		_, port, _ := net.SplitHostPort(x.bind)
		w("    - name: %s", x.name)
		w("      service: %s", x.service)
		w("      transport: tls")
		w("      bind: {tls: %q}", x.bind)
		w("      advertised: {tls: %q}", net.JoinHostPort(x.advertised, port))
		w("      allowedSources: [127.0.0.1/32]")
		w("      tls: {certificateFile: %q, keyFile: %q, rootsFile: %q}", certFile, keyFile, roots)
		w("      options: {every: 2s, timeout: 2s}")
		s.peers(w, x.name, x.peers)
	}
	return b.String()
}

// peers writes the peers of a group, in order of priority.
func (s Settings) peers(w func(string, ...any), group string, usual map[string]string) {
	w("      peers:")
	if p, ok := s.Peers[group]; ok {
		for i, a := range p {
			w("        - {name: %s-%d, address: %q, priority: %d}", group, i+1, a, i)
		}
		return
	}
	var names []string
	for n := range usual {
		names = append(names, n)
	}
	sort.Strings(names)
	for i, n := range names {
		w("        - {name: %s, address: %q, priority: %d}", n, usual[n], i)
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
