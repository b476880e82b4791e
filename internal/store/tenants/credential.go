package tenants

import (
	"context"
	"fmt"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/platform/db"
)

// EventLog takes events in the transaction of a change.
type EventLog interface {
	Append(ctx context.Context, tx *db.Tx, e api.Event) error
}

// CredentialExpires writes the event that the certificate of the app registration expires within so many days, once for
// each certificate and number of days. With d and log it implements carrier.Announce.
func CredentialExpires(ctx context.Context, d *db.DB, log EventLog, thumbprint string, days int,
	expires time.Time) error {
	return d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		n, err := tx.Exec(ctx, "INSERT INTO tenant_credential_warnings (thumbprint, days) VALUES ($1, $2) "+
			"ON CONFLICT (thumbprint, days) DO NOTHING", thumbprint, days)
		if err != nil {
			return fmt.Errorf("record a warning about the app's certificate: %w", err)
		}
		if n == 0 {
			return nil // another node, or this one before a restart
		}
		return log.Append(ctx, tx, api.Event{Kind: "tenant.credentialExpires", Subject: thumbprint,
			Data: map[string]any{"days": days, "expires": expires.UTC().Format(time.RFC3339)}})
	})
}
