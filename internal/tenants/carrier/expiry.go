package carrier

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain"
)

// thresholds are the days before the expiry of the app's certificate at which it is announced, in descending order.
var thresholds = []int{30, 14, 7, 1}

// checkEvery is how often the expiry is looked at.
const checkEvery = time.Hour

// Expiry watches the certificate of the app registration: when it expires, every tenant stops at once. It is safe for
// concurrent use.
type Expiry struct {
	certificate *x509.Certificate
	announce    Announce
	log         *slog.Logger
}

// Announce records, as an event, that a certificate expires within so many days; once for each certificate and number
// of days, over all nodes and restarts.
type Announce func(ctx context.Context, thumbprint string, days int, expires time.Time) error

// NewExpiry returns the watch of a certificate, with its metric.
func NewExpiry(certificate *x509.Certificate, announce Announce, log *slog.Logger, reg prometheus.Registerer) *Expiry {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "tandem_tenant_app_credential_expiry_timestamp_seconds",
		Help: "When the certificate of the app registration expires."})
	reg.MustRegister(g)
	g.Set(float64(certificate.NotAfter.Unix()))
	return &Expiry{certificate, announce, log}
}

// threshold returns the smallest threshold that is reached; 0 for none.
func (e *Expiry) threshold() int {
	reached := 0
	for _, days := range thresholds {
		if time.Until(e.certificate.NotAfter) <= time.Duration(days)*24*time.Hour {
			reached = days
		}
	}
	return reached
}

// Warning is for the health of the node: empty while the certificate is good for more than 30 days.
func (e *Expiry) Warning() string {
	left := time.Until(e.certificate.NotAfter)
	switch {
	case left <= 0:
		return "the certificate of the app registration has expired: no tenant can be reached"
	case e.threshold() > 0:
		return fmt.Sprintf("the certificate of the app registration expires in %s; then no tenant can be "+
			"reached: register another", domain.Count(int(math.Ceil(left.Hours()/24)), "day"))
	}
	return ""
}

// Run announces thresholds until ctx ends.
func (e *Expiry) Run(ctx context.Context) error {
	digest := sha256.Sum256(e.certificate.Raw)
	thumbprint, told := hex.EncodeToString(digest[:]), 0
	for tick := time.NewTicker(checkEvery); ; {
		if days := e.threshold(); days != 0 && days != told {
			if err := e.announce(ctx, thumbprint, days, e.certificate.NotAfter); err == nil {
				told = days
				e.log.Warn("the certificate of the app registration is about to expire; register another", "not_after",
					e.certificate.NotAfter, "thumbprint", thumbprint)
			} else if ctx.Err() == nil {
				e.log.Warn("the expiry of the app's certificate is not in the event log", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
	}
}
