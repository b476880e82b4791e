package node

import (
	"context"
	"crypto/x509"
	"net"
	"strconv"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/zone/check"
)

// answersName returns what is wrong with the DNS of a name at which a tenant's calls arrive: with its own records or,
// while it is not published, with the delegation of the base domain.
func (n *node) answersName(ctx context.Context, name string) error {
	if !n.cfg.Zone.Enabled() {
		return fault.New(fault.Unavailable, "NoZone", "zone.nameServers is not set, so that Tandem does not know whom "+
			"to ask")
	}
	inspector := n.inspector()
	r, err := inspector.Check(ctx, name)
	if fault.Is(err, fault.NotFound) {
		r, err = inspector.Check(ctx, "")
	}
	if err != nil || len(r.Findings) == 0 {
		return err
	}
	return zoneFault(r.Findings)
}

// zoneFault returns what is wrong with a zone. That this node does not find the parent zone's name servers says nothing
// about the zone: it is a remark if it is all.
func zoneFault(all []check.Finding) error {
	for _, f := range all {
		if f.Server.Addr.IsValid() || f.Problem != check.Unreachable {
			return fault.New(fault.Conflict, "Zone", "%s: %s (findings: %d)", f.Server.Name, f.Text, len(all))
		}
	}
	return fault.New(fault.Unavailable, "ParentUnknown", "%s", all[0].Text)
}

// coversName returns an error unless a certificate of the deployment, or of this node, is valid for a name.
func (n *node) coversName(ctx context.Context, name string) error {
	answer, err := certificateOperations{n}.ListCertificates(ctx, api.ListCertificatesRequestObject{})
	if err != nil {
		return err
	}
	list, _ := answer.(api.ListCertificates200JSONResponse)
	for _, c := range list.Certificates {
		leaf := x509.Certificate{DNSNames: c.Names}
		if c.NotAfter.After(time.Now()) && leaf.VerifyHostname(name) == nil {
			return nil
		}
	}
	if n.calls == nil && n.certificates == nil {
		return fault.New(fault.Unavailable, "NotOnThisNode", "this node has no certificates of the SIP listeners; ask "+
			"one with the role edge")
	}
	return fault.New(fault.Conflict, "NoCertificate", "no valid certificate covers the name")
}

// reachesTrunk returns an error unless the listener of the trunk above a name accepts connections. It says little about
// the Internet if this node is behind the same firewall, so it is no more than a remark.
func (n *node) reachesTrunk(port int) func(ctx context.Context, name string) error {
	return func(ctx context.Context, name string) error {
		_, trunk, _ := strings.Cut(name, ".")
		d := net.Dialer{Timeout: 5 * time.Second}
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(trunk, strconv.Itoa(port)))
		if err != nil {
			return fault.New(fault.Unavailable, "Unreachable", "%s does not accept connections on port %d from this "+
				"node", trunk, port).Because(err)
		}
		return c.Close()
	}
}
