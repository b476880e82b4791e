package node

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain/fault"
	certificatestore "github.com/tandemgw/tandem/internal/store/certificate"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/check"
	"github.com/tandemgw/tandem/internal/zone/update"
)

// buildCertificates makes the certificates that are obtained by ACME, if the configuration has an authority. Every
// process reads them, keeps a copy of those that it uses, and starts with that while the database is unavailable; those
// with the role worker order.
func (n *node) buildCertificates(_ context.Context, r *role) error {
	cfg := n.cfg.Certificates
	if !cfg.Enabled() {
		return nil
	}
	web := http.DefaultTransport.(*http.Transport).Clone()
	if cfg.RootsFile != "" && n.cfg.Has(config.RoleWorker) {
		roots, err := transport.LoadRoots(cfg.RootsFile)
		if err != nil {
			return fmt.Errorf("certificates.rootsFile: %w", err)
		}
		web.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	log := n.log.With("part", "certificates")
	c := challenges{store: n.core.zone, base: strings.ToLower(n.cfg.Calls.Routing.BaseDomain), zone: &n.cfg.Zone,
		servers: check.NewServers(n.cfg.Zone.Names.NameServers, nil), log: log}
	if u := n.cfg.Zone.Update; n.cfg.Zone.Updates() && u.Provider == update.RFC2136 && n.cfg.Has(config.RoleWorker) {
		var err error
		if c.aliases, err = update.NewAliases(u); err != nil {
			return fmt.Errorf("zone.update: %w", err)
		}
	}
	m := certificate.New(cfg, n.cfg.WantedCertificates(), certificate.Parts{
		Store: n.core.sealed, Cache: certificatestore.Disk{Path: n.cfg.Path("certificates"), Ring: n.core.keyring},
		Keep:       func(name string) bool { return slices.Contains(n.usedCertificates(), name) },
		Challenger: c, Checker: c, Transport: web, Log: log, Metrics: n.metrics})
	n.certificates = m
	r.parts = []part{running("certificates", m.Run)}
	r.ready = func(r *readiness) {
		used := n.usedCertificates()
		for _, s := range m.Status() {
			switch {
			case !slices.Contains(used, s.Name):
			case s.NotAfter.IsZero():
				r.warn("certificate %s has not been obtained yet: %s %s", s.Name, s.Cause, s.LastError)
			case time.Now().After(s.NotAfter):
				r.warn("certificate %s expired on %s: %s %s", s.Name, s.NotAfter.UTC().Format(time.RFC3339), s.Cause,
					s.LastError)
			case s.Overdue:
				r.warn("certificate %s was not renewed and expires on %s: %s %s", s.Name,
					s.NotAfter.UTC().Format(time.RFC3339), s.Cause, s.LastError)
			}
		}
	}
	return nil
}

// usedCertificates returns the names of the obtained certificates that this node uses.
func (n *node) usedCertificates() []string {
	n.reloads.mu.Lock()
	defer n.reloads.mu.Unlock()

	return n.reloads.live.UsedCertificates()
}

// obtained returns the certificate in service under a name, nil while there is none.
func (n *node) obtained(name string) *tls.Certificate {
	if n.certificates == nil {
		return nil
	}
	return n.certificates.Certificate(name)
}

// challenges puts the values of challenges into the zone, each as a source of its own, so that other values stay, or
// where the operator's CNAMEs lead.
type challenges struct {
	store   zone.Store
	base    string
	zone    *config.Zone
	servers *check.Servers
	aliases *update.Aliases // nil if CNAMEs are not followed
	log     *slog.Logger
}

// Path implements certificate.Challenger.
func (c challenges) Path(ctx context.Context, name string) ([]string, error) {
	switch {
	case c.aliases == nil:
		return []string{name}, nil
	case c.zone.Published():
		return c.aliases.Path(ctx, name)
	}

	// The operator publishes the name: there must be a CNAME, also if a wildcard makes it.
	servers, _ := c.servers.Present(ctx)
	for _, s := range servers {
		r, err := check.Ask(ctx, s.Addr, name, dns.TypeCNAME)
		if err != nil {
			continue // another one may answer
		}
		if target := follow(r, name); target != name {
			return c.aliases.Path(ctx, name, target)
		}
	}

	return nil, fmt.Errorf("no name server answers a CNAME at %s, which is required with zone.publish: none; publish "+
		"one that leads to a name in a zone of %s (zone.update.server)", name, c.zone.Update.Server)
}

// follow returns the target of the CNAME at a name in an answer, or the name if there is none.
func follow(r *dns.Msg, name string) string {
	for _, rr := range r.Answer {
		if x, ok := rr.(*dns.CNAME); ok && dns.CanonicalName(x.Hdr.Name) == dns.Fqdn(name) {
			return strings.TrimSuffix(dns.CanonicalName(x.Target), ".")
		}
	}

	return name
}

// publish makes records those of the source of a value. Without any, the name may be below a former base domain.
func (c challenges) publish(ctx context.Context, name, value string, records ...zone.Record) error {
	source := fmt.Sprintf("acme:%.16x", sha256.Sum256([]byte(name+" "+value)))
	return zone.Publish(ctx, c.store, dns.Fqdn(c.base), map[string][]zone.Record{source: records})
}

// Add implements certificate.Challenger.
func (c challenges) Add(ctx context.Context, path []string, value string) error {
	if len(path) == 1 {
		relative, ok := strings.CutSuffix(path[0], "."+c.base)
		if !ok {
			return fmt.Errorf("%s is not below %s, the zone that Tandem publishes", path[0], c.base)
		}
		return c.publish(ctx, path[0], value, zone.Text(relative, 60, value))
	}

	return c.aliases.Add(ctx, path[len(path)-1], value)
}

// Remove implements certificate.Challenger. What can never be removed is left, since it does no harm.
func (c challenges) Remove(ctx context.Context, path []string, value string) error {
	if len(path) == 1 {
		return c.publish(ctx, path[0], value)
	}
	place, err := path[len(path)-1], update.ErrNotServed
	if c.aliases != nil {
		err = c.aliases.Remove(ctx, place, value)
	}
	if errors.Is(err, update.ErrNotServed) {
		c.log.Warn("value of a challenge left in a zone that Tandem no longer updates; remove the TXT record by hand",
			"name", place, "value", value, "error", err)
		return nil
	}

	return err
}

// Check implements certificate.Checker. Of a value to which CNAMEs lead, the listed name servers must have the CNAME,
// and those of the other zone the value.
func (c challenges) Check(ctx context.Context, path []string, value string) ([]certificate.Answer, error) {
	answers := askAll(ctx, c.servers, path, value)
	if len(path) == 1 {
		return answers, nil
	}

	place := path[len(path)-1]
	has, names, err := c.aliases.Find(ctx, place, value)
	if err != nil {
		return answers, err
	}
	hosts := make([]zone.Host, len(names))
	for i, name := range names {
		hosts[i].Name = name
		for _, h := range c.zone.Names.NameServers {
			if strings.EqualFold(h.Name, name) {
				hosts[i] = h
			}
		}
	}
	others := askAll(ctx, check.NewServers(hosts, nil), []string{place}, value)
	others = append(others, certificate.Answer{Server: c.zone.Update.Server, Has: has})
	for i := range others {
		others[i].Server += " about " + place
	}

	return append(answers, others...), nil
}

// askAll asks each server for a value at the end of a path.
func askAll(ctx context.Context, s *check.Servers, path []string, value string) []certificate.Answer {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	servers, unknown := s.Present(ctx)
	answers := make([]certificate.Answer, len(servers))
	var running sync.WaitGroup
	for i, s := range servers {
		running.Go(func() { answers[i] = askFor(ctx, s, path, value) })
	}
	running.Wait()

	for _, f := range unknown {
		i := slices.Index(servers, f.Server)
		answers[i] = certificate.Answer{Server: f.Server.Name, NoAnswer: errors.New(f.Text)}
	}

	return answers
}

// askFor asks one name server for a value at the end of a path. It need not know more of the path than its first CNAME.
// A value at a name that is not on the path does not count: a CNAME led to it, perhaps one that a wildcard makes.
func askFor(ctx context.Context, s check.Server, path []string, value string) certificate.Answer {
	answer := certificate.Answer{Server: fmt.Sprintf("%s (%s)", s.Name, s.Addr)}
	if !s.Addr.IsValid() {
		return answer // it is among the unknown
	}
	r, err := check.Ask(ctx, s.Addr, path[0], dns.TypeTXT)
	switch {
	case err != nil:
		answer.NoAnswer = err
		return answer
	case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
		answer.NoAnswer = fmt.Errorf("it answers %s", dns.RcodeToString[r.Rcode])
		return answer
	}

	end := path[0]
	for range path {
		end = follow(r, end)
	}
	if end != path[0] {
		if answer.Has = slices.Contains(path[1:], end); !answer.Has {
			answer.Server += ", with a CNAME to " + end
		}
		return answer
	}
	for _, rr := range r.Answer {
		x, ok := rr.(*dns.TXT)
		answer.Has = answer.Has || ok && len(path) == 1 && strings.Join(x.Txt, "") == value
	}
	return answer
}

// certificateOperations implements the management API's operations on certificates (api/manage/v1.yaml).
type certificateOperations struct{ n *node }

// ListCertificates implements the operation listCertificates.
func (o certificateOperations) ListCertificates(context.Context,
	api.ListCertificatesRequestObject) (api.ListCertificatesResponseObject, error) {
	answer := api.ListCertificates200JSONResponse{Certificates: []api.Certificate{}}
	m := o.n.certificates
	if m != nil {
		answer.HeldUntil, answer.HeldReason = m.Held()
		for _, s := range m.Status() {
			answer.Certificates = append(answer.Certificates, api.Certificate{Name: s.Name, Names: s.Names,
				UsedBy: []string{}, Issuer: s.Issuer, NotAfter: s.NotAfter, Source: api.CertificateSource(s.Source),
				RenewAt: s.RenewAt, Overdue: s.Overdue, NextAttempt: s.NextAttempt, Failed: s.Failed,
				LastAttempt: s.LastAttempt, Cause: s.Cause, Error: s.LastError})
		}
	}

	use := func(by string, p transport.CertificatePaths, leaf *x509.Certificate) {
		i := slices.IndexFunc(answer.Certificates, func(c api.Certificate) bool {
			return c.Name == p.Name && c.File == p.Certificate
		})
		if i < 0 {
			c := api.Certificate{Name: p.Name, File: p.Certificate, Names: []string{}, UsedBy: []string{}}
			if leaf != nil {
				c.Names, c.Issuer, c.NotAfter = append(c.Names, leaf.DNSNames...), leaf.Issuer.CommonName, leaf.NotAfter
				c.Source = api.CertificateSourceFile
			}
			i, answer.Certificates = len(answer.Certificates), append(answer.Certificates, c)
		}
		answer.Certificates[i].UsedBy = append(answer.Certificates[i].UsedBy, by)
	}
	for _, h := range o.n.secured {
		if c := h.cert.Load(); c != nil {
			use(h.name, c.Paths(), leafOf(c.Certificate()))
		}
	}
	if e := o.n.calls.edge(); e != nil {
		for _, g := range o.n.calls.groups {
			if id, ok := e.Identity(g.Name); ok {
				use(g.Name, id.Paths, id.Leaf)
			}
		}
	}

	return answer, nil
}

func leafOf(c *tls.Certificate) *x509.Certificate {
	if c == nil {
		return nil
	}

	return c.Leaf
}

// RenewCertificate implements the operation renewCertificate.
func (o certificateOperations) RenewCertificate(ctx context.Context,
	r api.RenewCertificateRequestObject) (api.RenewCertificateResponseObject, error) {
	if o.n.certificates == nil {
		return nil, fault.New(fault.NotFound, "CertificateNotFound", "no certificates are obtained by ACME; "+
			"certificates.directory is not set, and those in files are renewed by replacing the files")
	}

	return api.RenewCertificate202Response{}, o.n.certificates.Renew(ctx, r.Name)
}
