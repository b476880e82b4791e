package domain_test

import (
	"encoding/json"
	"testing"

	"github.com/tandemgw/tandem/internal/domain"
)

// TestSubdomainStatusIsWrittenAsInTheContract: as JSON the status is the contract's text, and no other text is read.
func TestSubdomainStatusIsWrittenAsInTheContract(t *testing.T) {
	t.Parallel()
	type object struct {
		Status domain.SubdomainStatus `json:"subdomainStatus,omitempty"`
	}
	for status, want := range map[domain.SubdomainStatus]string{
		0:                              `{}`,
		domain.SubdomainProvisioned:    `{"subdomainStatus":"provisioned"}`,
		domain.SubdomainNotProvisioned: `{"subdomainStatus":"notProvisioned"}`,
		domain.SubdomainInconsistent:   `{"subdomainStatus":"inconsistent"}`,
	} {
		text, err := json.Marshal(object{status})
		if err != nil || string(text) != want {
			t.Errorf("%d as JSON: %s, %v, want %s", status, text, err, want)
		}
		var back object
		if err := json.Unmarshal(text, &back); err != nil || back.Status != status {
			t.Errorf("%s is read as %d, %v", text, back.Status, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"subdomainStatus":"Provisioned"}`), &object{}); err == nil {
		t.Error("another text is read")
	}
}
