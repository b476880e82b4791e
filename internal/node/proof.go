package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/check"
)

// prove returns the function that publishes the text that proves who owns a domain of an account, and returns nil when
// every name server answers it.
func (x *tenants) prove(account string) func(ctx context.Context, name, text string) error {
	return func(ctx context.Context, name, text string) error {
		publish := x.publishForCustomer
		if account == onboard.Carrier {
			publish = x.publishForCarrier
		}
		if err := publish(ctx, account, name, text); err != nil {
			return err
		}
		return x.answeredSoon(ctx, name, text)
	}
}

// answeredSoon is answered after a moment, which NOTIFY and the transfers of secondaries take.
func (x *tenants) answeredSoon(ctx context.Context, name, text string) error {
	const moment = 2 * time.Second
	began := time.Now()
	for every := 20 * time.Millisecond; ; every *= 2 {
		err := x.answered(ctx, name, text)
		if err == nil || time.Since(began)+every > moment {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

// publishForCustomer makes the text the token of the account's label, from which the zone has it.
func (x *tenants) publishForCustomer(ctx context.Context, account, name, text string) error {
	label, region, _ := strings.Cut(name, ".")
	i := slices.Index(x.planner.Trunks(), region)
	if i < 0 {
		return fmt.Errorf("%s is not below one of the operator's trunks, %s", name,
			strings.Join(x.planner.Trunks(), ", "))
	}
	if err := x.releasePending(ctx, onboard.Owner(account), label); err != nil {
		return err
	}
	a, err := x.n.core.directory.Account(ctx, onboard.Owner(account))
	if err != nil {
		return err
	}
	l := domain.Label{Subdomain: label, Region1Token: domain.NoToken, Region2Token: domain.NoToken}
	switch {
	case strings.EqualFold(a.Active().Subdomain, label):
		l = a.Active()
	case a.Pending != nil && strings.EqualFold(a.Pending.Subdomain, label):
		l = *a.Pending
	}
	*[]*string{&l.Region1Token, &l.Region2Token}[i] = text

	t, err := x.row(ctx, account)
	if err != nil {
		return err
	}
	return x.n.core.directory.OnboardLabel(ctx, x.service, onboard.Owner(account), l, t.Wishes.OwnLabel)
}

// publishForCarrier puts the text into the zone at the base domain or at a region's name.
func (x *tenants) publishForCarrier(ctx context.Context, _, name, text string) error {
	if !x.n.cfg.Zone.Published() {
		return nil // the operator publishes it; the wait says what
	}
	base := x.planner.Base
	relative := strings.TrimSuffix(name, "."+base)
	if name == base {
		relative = zone.Apex
	}
	const ttl = 60 // seconds
	return zone.Publish(ctx, x.n.core.zone, base, map[string][]zone.Record{
		carrierSource + relative: {zone.Text(relative, ttl, text)}})
}

// carrierSource precedes the name in the source of a text of the operator's tenant in the zone.
const carrierSource = "carrier:"

// withdrawFromCarrier removes what publishForCarrier has put into the zone.
func (x *tenants) withdrawFromCarrier(ctx context.Context) error {
	if !x.n.cfg.Zone.Published() {
		return nil
	}
	none := map[string][]zone.Record{}
	err := x.n.core.zone.View(ctx, func(ctx context.Context, r zone.Reader) error {
		sources, err := r.Sources(ctx, carrierSource)
		for _, s := range sources {
			none[s] = nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return zone.Publish(ctx, x.n.core.zone, x.planner.Base, none)
}

// answered returns an error that names the name servers that do not answer a text yet.
func (x *tenants) answered(ctx context.Context, name, text string) error {
	if !x.n.cfg.Zone.Enabled() {
		return nil // the name servers are not known; Microsoft says whether it sees the text
	}
	servers, findings := x.servers.Present(ctx)
	_, more := check.Zone(ctx, x.planner.Base, 0, servers,
		[]check.Name{{Name: name + ".", NoAddress: true, Text: text}})
	findings = append(findings, more...)
	if len(findings) == 0 {
		return nil
	}
	f := findings[0]
	return fault.New(fault.Unavailable, "NotPublished", "not every name server answers the TXT record %q of %s "+
		"yet: %s at %s: %s (%s)", text, name, f.Server.Name, f.Server.Addr, f.Text,
		domain.Count(len(findings), "finding"))
}
