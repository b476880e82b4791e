package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
)

// Stage is a part of the demonstration that is not a call.
type Stage struct {
	Job      string   `json:"job"` // zone or tenant
	Name     string   `json:"name"`
	Title    string   `json:"title"`
	Seconds  float64  `json:"seconds"`
	Passed   bool     `json:"passed"`
	Seen     []string `json:"seen"` // what to look at
	Problems []string `json:"problems,omitempty"`
}

// took sets how long the stage took.
func (s *Stage) took(since time.Time) {
	s.Seconds = time.Since(since).Round(time.Millisecond).Seconds()
}

// names checks that both name servers of the base domain answer for the customers' names, and that Tandem says so. It
// asks them as Microsoft 365 and Teams do: for the text that proves a name, and for its addresses.
func names(ctx context.Context, l *lab.Lab, p *Product) Stage {
	s := Stage{Job: "zone", Name: "names", Title: "The customer's names in DNS: Tandem is a name server, and a " +
		"secondary transfers the zone from it"}
	problem := func(format string, args ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, args...)) }
	begun := time.Now()
	for _, c := range l.World.Customers {
		if !c.Demo || c.Subdomain == "" {
			continue
		}
		if err := p.waitInDNS(ctx, c); err != nil {
			problem("%v", err)
		}
		name, token := c.Subdomain+".1r1."+l.Gateway.Base, directRouting(c).SubdomainTokens.Region1Token
		for server, at := range map[string]string{"Tandem": l.Gateway.DNS, "the secondary": l.Secondary.Addr()} {
			r := resolver(at)
			texts, err := r.LookupTXT(ctx, name+".")
			if err != nil || !slices.Equal(texts, []string{token}) {
				problem("TXT of %s at %s: %q, %v, want %q", name, server, texts, err, token)
			}
			addresses, err := r.LookupHost(ctx, name+".")
			if err != nil || !slices.Equal(addresses, []string{"127.0.0.1"}) {
				problem("A of %s at %s: %q, %v, want 127.0.0.1", name, server, addresses, err)
			}
		}
		s.Seen = append(s.Seen, fmt.Sprintf("%s TXT %q and A 127.0.0.1 at both", name, token),
			fmt.Sprintf("subdomainStatus of %s provisioned", c.Account))
	}
	serial, err := l.Secondary.Serial()
	if err != nil {
		problem("the secondary cannot transfer the zone: %v", err)
	}
	s.Seen = append(s.Seen, fmt.Sprintf("the secondary has serial %d after %s", serial,
		time.Since(begun).Round(10*time.Millisecond)))
	s.Passed = len(s.Problems) == 0
	s.took(begun)

	return s
}

// waitInDNS waits until Tandem has seen the names of a customer on every name server.
func (p *Product) waitInDNS(ctx context.Context, c fixtures.Customer) error {
	return poll(ctx, func(ctx context.Context) error {
		a, err := p.API.Account(ctx, c.Account)
		if err != nil {
			return err
		}
		if status := a.ServiceDetails.TeamsDirectRouting.SubdomainStatus; status != "provisioned" {
			err = fmt.Errorf("subdomainStatus of %s is %s", c.Account, status)
			if r, e := p.Manage.CheckZone(ctx, strings.ToLower(c.Subdomain)); e == nil && len(r.Findings) > 0 {
				err = fmt.Errorf("%w: %s %s", err, r.Findings[0].Server, r.Findings[0].Text)
			}
		}
		return err
	})
}
