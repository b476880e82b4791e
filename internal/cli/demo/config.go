package demo

import (
	"bytes"
	_ "embed"
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

//go:embed config.tmpl
var configText string

var configTemplate = template.Must(template.New("").Parse(configText))

// configData is what the template of the configuration file needs.
type configData struct {
	Lab                     *lab.Lab
	FreePorts               bool   // free ports for the HTTP listeners instead of the default ones
	Certificate, Key, Roots string // files
	Secret                  string // file with the secret of zone transfers
	AppID, AppSecret        string // of the application, and the file with its secret
	FrontURL                string
	Port                    string // on which the core reaches the edge
	Groups                  []group
}

// group is a peer group. A group of the core has a transport, any other a service and TLS.
type group struct {
	Name, Transport, Service string
	Bind, Advertised         string
	Peers                    []peer // in order of priority
}

type peer struct{ Name, Address string }

// WriteConfig writes to dir the configuration of a Tandem between the lab's neighbours, and its certificate. It returns
// the name of the configuration file. With freePorts the HTTP listeners use free ports instead of the default ones.
func WriteConfig(dir string, l *lab.Lab, freePorts bool) (string, error) {
	d := &configData{Lab: l, FreePorts: freePorts, Roots: filepath.Join(dir, "roots.pem"),
		Secret: filepath.Join(dir, "transfer.secret"), Groups: groups(l), AppID: appID,
		AppSecret: filepath.Join(dir, "app.secret"), FrontURL: frontURL(l.Gateway)}
	_, d.Port, _ = net.SplitHostPort(l.Gateway.CoreFixed)
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
	if err := os.WriteFile(d.Secret, []byte(l.Secondary.Secret()), 0o600); err != nil {
		return "", err
	}
	if err := os.WriteFile(d.AppSecret, []byte(appSecret), 0o600); err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := configTemplate.Execute(&b, d); err != nil {
		return "", err
	}
	name := filepath.Join(dir, "tandem.yaml")
	return name, os.WriteFile(name, b.Bytes(), 0o600)
}

// The application of the operator, which onboards tenants, and its secret.
const (
	appID     = "3b0e0f6c-6d0b-4f5e-9a55-6a1b2c3d4e5f"
	appSecret = "an application of the demonstration"
)

// frontURL returns the URL of the public front.
func frontURL(g lab.Gateway) string {
	_, port, _ := net.SplitHostPort(g.Front)
	return "https://" + net.JoinHostPort(g.FrontName(), port)
}

// groups returns the peer groups of a Tandem between the lab's neighbours.
func groups(l *lab.Lab) []group {
	core := func(name, transport, bind string) group {
		return group{Name: name, Transport: transport, Bind: bind,
			Peers: []peer{{name, l.Cores[name].Addr(transport)}}}
	}
	service := func(name, service, bind, advertised string, peers []peer) group {
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
			[]peer{{"zoom-1", l.Zoom["zoom-1"].Addr("tls")}}),
	}
}

// edges returns the Teams edges whose names begin with prefix, in the order of their names.
func edges(l *lab.Lab, prefix string) (peers []peer) {
	for _, name := range slices.Sorted(maps.Keys(l.Teams)) {
		if strings.HasPrefix(name, prefix) {
			peers = append(peers, peer{name, l.Teams[name].Addr("tls")})
		}
	}
	return peers
}
