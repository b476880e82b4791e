package cli

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newCertificate(t *target) *cobra.Command {
	return group("certificate", "The certificates of the deployment", certificateList(t), certificateRenew(t))
}

func certificateList(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "list",
		Short: "Show the certificates, their expiry, and what failed"},
		func(ctx context.Context, c *client.Client, _ []string) (*api.CertificateList, error) {
			return c.Certificates(ctx)
		}, printCertificates)
}

func printCertificates(p *page, l *api.CertificateList) {
	day := func(t time.Time) string { return either(t.IsZero(), "", t.UTC().Format(time.DateOnly)) }
	g := &grid{head: []string{"certificate", "names", "expires", "renewal", "source", "used by"}}
	for _, c := range l.Certificates {
		g.add(cmp.Or(c.Name, c.File), strings.Join(c.Names, " "), cmp.Or(day(c.NotAfter), "none yet"), day(c.RenewAt),
			c.Source, strings.Join(c.UsedBy, " "))
	}
	p.table(g)

	for _, c := range l.Certificates {
		if c.Overdue {
			p.line("\n%s expires %s and was not renewed%s", c.Name, stamp(c.NotAfter), either(c.Failed > 0, "",
				": nodes with the role worker order certificates; is one running?"))
		}
		if c.Failed > 0 {
			p.line("\n%s: failed orders in a row: %d, the last %s: %s; next order %s", c.Name, c.Failed,
				stamp(c.LastAttempt), c.Cause, stamp(c.NextAttempt))
			p.line("%s", c.Error)
		}
	}
	if !l.HeldUntil.IsZero() {
		p.line("\nthe authority accepts no orders before %s: %s", stamp(l.HeldUntil), l.HeldReason)
	}
}

func certificateRenew(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "renew NAME",
		Short: "Order a certificate at once", Example: "  tandem certificate renew provapi"},
		func(ctx context.Context, c *client.Client, args []string) (*renewal, error) {
			return &renewal{args[0]}, c.RenewCertificate(ctx, args[0])
		}, func(p *page, r *renewal) {
			p.line("%s is ordered; see tandem certificate list", r.Name)
		})
}

// renewal is what -o json prints about a certificate that is ordered.
type renewal struct {
	Name string `json:"name"`
}
