package node

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/testkit"
)

// TestTokensAreInTheAuditLogUnderTheirUser: a token issued over the socket, and a change made with it.
func TestTokensAreInTheAuditLogUnderTheirUser(t *testing.T) {
	t.Parallel()
	n := buildNode(t)
	r := httptest.NewRequestWithContext(context.WithValue(t.Context(), localUserKey{}, "local:ada.l"), http.MethodPost,
		"/manage/v1/tokens", strings.NewReader(`{"roles":["ProvisioningAPI.Read","Management.Admin"]}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	n.local().ServeHTTP(w, r)
	var tok api.Token
	if err := json.Unmarshal(w.Body.Bytes(), &tok); err != nil || w.Code != http.StatusOK {
		t.Fatalf("createToken = %d %s", w.Code, w.Body)
	}
	r = httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/manage/v1/clients",
		strings.NewReader(`{"name":"bss","roles":["ProvisioningAPI.Read"]}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+tok.AccessToken)
	w = httptest.NewRecorder()
	n.manageHTTP.handler.ServeHTTP(w, r)
	if w.Code != http.StatusCreated {
		t.Fatalf("createClient = %d %s", w.Code, w.Body)
	}
	rows := map[string]string{}
	for _, r := range testkit.AuditLog(t, n.core.db) {
		rows[r.Action] = r.Actor.Kind + " " + r.Actor.ID
		if strings.Contains(r.Summary, tok.AccessToken) {
			t.Error("the audit log holds a token")
		}
		if r.Action == "token.issue" &&
			(r.Target != "local:ada.l" ||
				!strings.Contains(r.Summary, `"roles":["ProvisioningAPI.Read","Management.Admin"]`) ||
				!strings.Contains(r.Summary, `"expires":"20`)) {
			t.Errorf("the row about the token: %q %s", r.Target, r.Summary)
		}
	}
	if rows["token.issue"] != "administrator local:ada.l" ||
		rows["client.create"] != "client local:ada.l@"+n.cfg.Auth.Embedded.Issuer {
		t.Errorf("the audit log has %v", rows)
	}
}
