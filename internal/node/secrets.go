package node

import (
	"context"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/calls/replica"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// indexDir is the directory, below the data directory, in which the number index keeps its files.
const indexDir = "index"

// newRotation returns the rotation of the keyring over everything that it seals. A new use of the keyring that stores
// what it sealed belongs into the list; page cursors are not stored.
func (n *node) newRotation() *secret.Rotation {
	c := n.core
	values := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_secret_values",
		Help: "Stored values sealed by the keyring, by the key that sealed them, as of the last start, reload or " +
			"tandem secret command: primary, older (to be sealed again) or unreadable (another keyring, or changed)."},
		[]string{"values", "key"})
	primary := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_secret_primary_key",
		Help: "1, with the id of the key that seals as a label. Nodes that share a keyring have the same."},
		[]string{"key"})
	n.metrics.process.MustRegister(values, primary)
	return &secret.Rotation{
		Keyring: c.keyring,
		Shared:  c.db.Driver() != db.SQLite,
		Audit:   c.audit,
		Holders: []secret.Holder{
			{Name: "signing keys", Each: func(ctx context.Context, see secret.See) error {
				return auth.EachSigningKey(ctx, c.access, see)
			}},
			{Name: "key sets of issuers", Local: true, Each: c.verifier.EachKeySet},
			{Name: "number index", Local: true, Each: func(_ context.Context, see secret.See) error {
				sealer := keyringSealer{c.keyring}
				key := func(purpose string, sealed []byte) ([]byte, error) { return see(sealer.place(purpose), sealed) }
				if n.calls != nil && n.calls.replica != nil {
					return n.calls.replica.EachKey(key)
				}
				return replica.EachKey(n.cfg.Path(indexDir), sealer, key)
			}},
		},
		Seen: func(k api.Keyring) {
			primary.Reset()
			primary.WithLabelValues(strconv.FormatInt(k.Primary, 10)).Set(1)
			for _, h := range k.Values {
				values.WithLabelValues(h.Name, "primary").Set(float64(h.Primary))
				values.WithLabelValues(h.Name, "older").Set(float64(h.Older))
				values.WithLabelValues(h.Name, "unreadable").Set(float64(h.Unreadable))
			}
		},
	}
}

// sealLocal seals this node's own values with the primary key. A failure changes nothing: the older keys stay.
func (n *node) sealLocal(seal func(context.Context) error) {
	if err := seal(context.Background()); err != nil {
		n.log.Warn("cannot seal this node's files with the keyring's new key; they stay readable with the older keys. "+
			"Correct the cause and run tandem secret rotate", "error", err)
	}
}

// keyringSealer seals the keys of the replica's files with the node's keyring.
type keyringSealer struct{ k *secret.Keyring }

func (s keyringSealer) place(purpose string) secret.Place {
	return secret.Place{Table: "replica", Row: purpose, Column: "key"}
}

func (s keyringSealer) Seal(purpose string, plain []byte) ([]byte, error) {
	return s.k.Seal(s.place(purpose), plain)
}

func (s keyringSealer) Open(purpose string, sealed []byte) ([]byte, error) {
	return s.k.Open(s.place(purpose), sealed)
}
