package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
)

func newAudit(t *target) *cobra.Command {
	return group("audit", "The hash-chained log of changes", auditVerify(t))
}

func auditVerify(t *target) *cobra.Command {
	var heads []string
	cmd := run(t, offlineToo, &cobra.Command{
		Use:   "verify",
		Short: "Verify the hash chain of the audit log",
	}, func(ctx context.Context, c *client.Client, _ []string) (*api.AuditReport, error) {
		r, err := c.VerifyAudit(ctx, heads...)
		if err == nil && !r.OK {
			err = finding{fmt.Errorf("the hash chain is broken at row %d: %s (the %d rows before it are intact)",
				r.BrokenAt, r.Reason, r.Rows)}
		}
		return r, err
	}, func(p *page, r *api.AuditReport) {
		if r.OK {
			p.line("the hash chain is intact: %s, head %s", domain.Count(r.Rows, "row"), r.Head)
		}
	})
	cmd.Flags().StringArrayVar(&heads, "head", nil, "`HEAD` printed by an earlier check (repeatable)")
	return cmd
}
