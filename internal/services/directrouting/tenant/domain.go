package tenant

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// says reports whether Graph refused a request with a text. The texts are general knowledge [K]: Graph has no codes for
// what they say.
func says(err error, text string) bool {
	e, ok := errors.AsType[*graph.Error](err)
	return ok && fault.Is(err, fault.Invalid) && strings.Contains(strings.ToLower(e.Message), text)
}

// doDomain adds, proves and verifies a domain, or deletes it.
func (c *Cloud) doDomain(ctx context.Context, s plan.Step) error {
	if s.Action == plan.Delete {
		return c.deleteDomain(ctx, s.Name)
	}

	d, err := graph.GetDomain(s.Name).Do(ctx, c.Graph)
	if fault.Is(err, fault.NotFound) {
		if d, err = graph.AddDomain(s.Name).Do(ctx, c.Graph); says(err, "already exists") {
			err = nil // added a moment ago, which reads do not show yet
		}
	}
	if err != nil || d.IsVerified {
		return elsewhere(s.Name, err)
	}

	records, err := graph.VerificationRecords(s.Name).All(ctx, c.Graph)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(records, func(r graph.DNSRecord) bool { return r.RecordType == "Txt" })
	if i < 0 {
		return fmt.Errorf("no TXT record for %s in Microsoft's answer", s.Name)
	}
	if err := c.Prove(ctx, s.Name, records[i].Text); err != nil {
		return err
	}

	_, err = graph.VerifyDomain(s.Name).Do(ctx, c.Graph)
	switch err = elsewhere(s.Name, err); {
	case says(err, "already verified"): // by an attempt whose answer was lost
		return nil
	case fault.Is(err, fault.Invalid):
		return fault.New(fault.Unavailable, "NotVerified", "Microsoft has not seen the TXT record %q of %s yet, which "+
			"each name server of its zone must answer", records[i].Text, s.Name).After(15 * time.Second).Because(err)
	}
	return err
}

// elsewhere explains the refusal of a domain that another tenant has.
func elsewhere(domain string, err error) error {
	if !says(err, "another tenant") {
		return err
	}
	return fault.New(fault.Conflict, "DomainElsewhere", "%s is verified in another tenant: an administrator of that "+
		"one removes it there, or choose a new label for the account", domain).Because(err)
}

func (c *Cloud) deleteDomain(ctx context.Context, name string) error {
	_, err := graph.DeleteDomain(name).Do(ctx, c.Graph)
	if !fault.Is(err, fault.Invalid) {
		return err
	}

	live, binned, err2 := c.references(ctx, name, nil)
	switch {
	case err2 != nil:
		return err2
	case len(live) > 0:
		return fault.New(fault.Conflict, "DomainInUse", "%s cannot be removed while these have a name in it: %s; "+
			"rename or remove them", name, strings.Join(live, ", ")).Because(err)
	case len(binned) > 0:
		return fault.New(fault.Unavailable, "DomainInBin", "%s cannot be removed while these deleted objects have a "+
			"name in it: %s; an administrator deletes them permanently, or Microsoft does after 30 days", name,
			strings.Join(binned, ", ")).Because(err)
	}
	return fault.New(fault.Unavailable, "DomainBusy", "Microsoft does not remove %s yet", name).Because(err)
}

// maxReferences is how many objects are named that keep another from being removed.
const maxReferences = 20

// references returns what has a name in a domain, but for the named activation users, and what of that is in the bin.
// Whether Graph lists deleted objects is not documented.
func (c *Cloud) references(ctx context.Context, domain string, named []plan.Ref) (live, binned []string, err error) {
	objects, err := graph.DomainReferences(domain).All(ctx, c.Graph)
	objects = slices.DeleteFunc(objects, func(o graph.Object) bool {
		return slices.ContainsFunc(named, func(r plan.Ref) bool {
			return r.Type == plan.ActivationUser && strings.EqualFold(r.Name, o.UserPrincipalName)
		})
	})
	for _, o := range objects[:min(len(objects), maxReferences)] {
		name := strings.TrimPrefix(o.Type, "#microsoft.graph.")
		switch display := cmp.Or(o.UserPrincipalName, o.DisplayName, o.ID); {
		case strings.HasSuffix(name, "ontact"): // quoted, for domain.RedactPeople
			name += fmt.Sprintf(" %q", display)
		default:
			name += " " + display
		}
		_, err := graph.GetDeleted(o.ID).Do(ctx, c.Graph)
		switch {
		case err == nil:
			binned = append(binned, name)
		case fault.Is(err, fault.NotFound), fault.Is(err, fault.Forbidden):
			live = append(live, name)
		default:
			return nil, nil, err
		}
	}
	return live, binned, err
}

// foreign returns the objects with a name in a domain, but for the named activation users and what is in the bin.
func (c *Cloud) foreign(ctx context.Context, domain string, named []plan.Ref) ([]plan.Object, error) {
	live, _, err := c.references(ctx, domain, named)
	var objects []plan.Object
	for _, name := range live {
		objects = append(objects, plan.Object{Ref: plan.Ref{Type: plan.Reference, Name: name},
			Fields: plan.Fields{"domain": domain}})
	}
	return objects, err
}
