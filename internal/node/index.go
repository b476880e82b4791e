package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/tandemgw/tandem/internal/calls/replica"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
)

// acceptIndex lets this node's number index be replaced by what the database of that identity holds. The audit row is
// written there, so it must be the database that is there, and take writes.
func (n *node) acceptIndex(ctx context.Context, database string) error {
	return n.replica.Accept(database, func(h *replica.Held) error {
		summary, err := json.Marshal(map[string]any{"database": database, "numbers": h.Numbers, "reason": h.Reason})
		if err != nil {
			return err
		}
		return n.core.db.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
			head, err := outbox.HeadIn(ctx, tx)
			if err != nil {
				return err
			}
			if head.Database != database {
				return replica.NotHeldFrom(database)
			}
			tx.Audit(db.AuditRecord{At: time.Now(), Actor: domain.ActorFrom(ctx), Action: "index.accept", Target: n.cfg.Calls.Edge.Node, Items: 1,
				Digest: sha256.Sum256(summary), Summary: string(summary)})
			return nil
		})
	})
}
