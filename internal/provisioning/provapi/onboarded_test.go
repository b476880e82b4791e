package provapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services/directrouting"
)

// While the onboarding of a tenant owns a label, a BSS reads it and sends it back; another token is 409.
func TestOnboardedLabel(t *testing.T) {
	t.Parallel()
	b := onSQLite(t, options{})
	b.do(http.MethodPut, "/accounts/acme", `{"name":"acme"}`)
	l := domain.Label{Subdomain: "acmex", Region1Token: "MS=ms1", Region2Token: "MS=ms2"}
	if err := b.dir.OnboardLabel(t.Context(), directrouting.Service, "acme", l, false); err != nil {
		t.Fatal(err)
	}

	read := b.do(http.MethodGet, "/accounts/acme", "")
	same := string(read.body)
	if !strings.Contains(same, `"region1Token":"MS=ms1"`) || strings.Contains(same, "onboarded") {
		t.Fatalf("read %s", same)
	}
	if x := b.do(http.MethodPut, "/accounts/acme", same); x.status != http.StatusOK {
		t.Errorf("sent back: %d %s", x.status, x.body)
	}
	other := strings.Replace(same, "MS=ms1", "MS=other", 1)
	if x := b.do(http.MethodPut, "/accounts/acme", other); x.status != http.StatusConflict ||
		!strings.Contains(string(x.body), "LabelOnboarded") {
		t.Errorf("another token: %d %s", x.status, x.body)
	}
}
