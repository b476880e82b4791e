package node

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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
	base := strings.ToLower(n.cfg.Calls.Routing.BaseDomain)
	m := certificate.New(cfg, n.cfg.WantedCertificates(), certificate.Parts{
		Store: n.core.sealed, Cache: certificatestore.Disk{Path: n.cfg.Path("certificates"), Ring: n.core.keyring},
		Keep:       func(name string) bool { return slices.Contains(n.usedCertificates(), name) },
		Challenger: challenger{n.core.zone, base}, Transport: web,
		Checker: checker{check.NewServers(n.cfg.Zone.Names.NameServers, nil)},
		Log:     n.log.With("part", "certificates"), Metrics: n.metrics})
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

// challenger publishes the values of challenges in the zone. Each is a source of its own, so that other values stay.
type challenger struct {
	store zone.Store
	base  string
}

func (c challenger) publish(ctx context.Context, name, value string, present bool) error {
	relative, ok := strings.CutSuffix(name, "."+c.base)
	if !ok {
		return fmt.Errorf("%s is not below %s, the zone that Tandem publishes", name, c.base)
	}
	source := fmt.Sprintf("acme:%.16x", sha256.Sum256([]byte(name+" "+value)))
	var records []zone.Record
	if present {
		records = []zone.Record{zone.Text(relative, 60, value)}
	}
	return zone.Publish(ctx, c.store, dns.Fqdn(c.base), map[string][]zone.Record{source: records})
}

// Add implements certificate.Challenger.
func (c challenger) Add(ctx context.Context, name, value string) error {
	return c.publish(ctx, name, value, true)
}

// Remove implements certificate.Challenger.
func (c challenger) Remove(ctx context.Context, name, value string) error {
	return c.publish(ctx, name, value, false)
}

// checker asks every listed name server for the values of challenges.
type checker struct{ servers *check.Servers }

// Check implements certificate.Checker.
func (c checker) Check(ctx context.Context, name, value string) ([]certificate.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	servers, unknown := c.servers.Present(ctx)
	answers := make([]certificate.Answer, len(servers))
	var running sync.WaitGroup
	for i, s := range servers {
		running.Go(func() { answers[i] = askFor(ctx, s, name, value) })
	}
	running.Wait()

	for _, f := range unknown {
		i := slices.Index(servers, f.Server)
		answers[i] = certificate.Answer{Server: f.Server.Name, NoAnswer: errors.New(f.Text)}
	}

	return answers, nil
}

// askFor asks one name server for a value.
func askFor(ctx context.Context, s check.Server, name, value string) certificate.Answer {
	answer := certificate.Answer{Server: fmt.Sprintf("%s (%s)", s.Name, s.Addr)}
	if !s.Addr.IsValid() {
		return answer // it is among the unknown
	}
	r, err := check.Ask(ctx, s.Addr, name, dns.TypeTXT)
	switch {
	case err != nil:
		answer.NoAnswer = err
		return answer
	case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
		answer.NoAnswer = fmt.Errorf("it answers %s", dns.RcodeToString[r.Rcode])
		return answer
	}
	for _, rr := range r.Answer {
		x, ok := rr.(*dns.TXT)
		answer.Has = answer.Has || ok && strings.Join(x.Txt, "") == value
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
