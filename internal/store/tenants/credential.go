package tenants

import (
	"context"
	"fmt"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
)

// CredentialExpires writes the event that the certificate of the app registration expires within so many days, once for
// each certificate and number of days. It implements carrier.Announce.
func (s *Store) CredentialExpires(ctx context.Context, thumbprint string, days int, expires time.Time) error {
	return update(ctx, s, nil, "", "", func(ctx context.Context, t *transaction) error {
		n, err := t.Exec(ctx, "INSERT INTO tenant_credential_warnings (thumbprint, days) VALUES ($1, $2) "+
			"ON CONFLICT (thumbprint, days) DO NOTHING", thumbprint, days)
		if err != nil {
			return fmt.Errorf("record a warning about the app's certificate: %w", err)
		}
		if n == 0 {
			return nil // another node, or this one before a restart
		}
		return t.event(ctx, api.Event{Kind: "tenant.credentialExpires", Subject: thumbprint,
			Data: map[string]any{"days": days, "expires": expires.UTC().Format(time.RFC3339)}})
	})
}
