package db

import (
	"context"
	"fmt"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Operations implements the management API's operation on the audit log (api/manage/v1.yaml).
type Operations struct{ DB *DB }

// VerifyAudit implements the operation verifyAudit.
func (o Operations) VerifyAudit(ctx context.Context,
	r api.VerifyAuditRequestObject) (api.VerifyAuditResponseObject, error) {
	var noted []AuditHead
	if r.Body != nil {
		for i, h := range r.Body.Heads {
			head, err := ParseAuditHead(h)
			if err != nil {
				return nil, fault.New(fault.Invalid, "InvalidAuditHead",
					"%q is not a head printed by tandem audit verify: %v", h, err).At(fmt.Sprintf("heads[%d]", i))
			}
			noted = append(noted, head)
		}
	}
	rep, err := o.DB.VerifyAudit(ctx, noted...)
	if err != nil {
		return nil, err
	}
	out := api.VerifyAudit200JSONResponse{OK: rep.Break == nil, Rows: rep.Rows, Head: rep.Head.String()}
	if rep.Break != nil {
		out.BrokenAt, out.Reason = rep.Break.Seq, rep.Break.Reason
	}
	return out, nil
}
