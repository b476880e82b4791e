package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	api "github.com/tandemgw/tandem/api/manage"
)

// Health returns the state of the node.
func (c *Client) Health(ctx context.Context) (*api.Health, error) {
	return read[api.Health](c.manage().GetHealth(ctx))
}

// SetDrain stops (true) or resumes (false) accepting new calls.
func (c *Client) SetDrain(ctx context.Context, draining bool) error {
	_, err := c.manage().SetDrain(ctx, &api.SetDrainParams{}, api.Drain{Draining: draining})
	return err
}

// Reload makes the node read its configuration again, and returns which changed settings are in effect and which need a
// restart. If the configuration has mistakes nothing changes, and the error lists them as details.
func (c *Client) Reload(ctx context.Context) (*api.Reloaded, error) {
	return read[api.Reloaded](c.manage().Reload(ctx))
}

// Peers returns the peer groups and the state of their peers.
func (c *Client) Peers(ctx context.Context) ([]api.PeerGroup, error) {
	l, err := read[api.PeerGroupList](c.manage().ListPeers(ctx))
	if err != nil {
		return nil, err
	}
	return l.Groups, nil
}

// AcceptIndex allows the node to replace its number index with the contents of the database with that identity, which
// is Health.Replica.Held.Database of an index that is held back.
func (c *Client) AcceptIndex(ctx context.Context, database string) error {
	_, err := c.manage().AcceptIndex(ctx, api.IndexAcceptance{Database: database})
	return err
}

// Explain returns where a call would go and every rule that was tried.
func (c *Client) Explain(ctx context.Context, q api.Question) (*api.Explanation, error) {
	return read[api.Explanation](c.manage().ExplainCall(ctx, q))
}

// Labels returns the Direct Routing labels of an account. tag is the account's ETag.
func (c *Client) Labels(ctx context.Context, account string) (l *api.Labels, tag string, err error) {
	return readTagged[api.Labels](c.manage().GetLabels(ctx, account))
}

// PutPendingLabel gives an account a pending label, or replaces the tokens of the one it has. With a tag, it and the
// other changes of labels fail if the account was changed since.
func (c *Client) PutPendingLabel(ctx context.Context, account, label string, tokens api.LabelTokens,
	tag *string) (*api.Labels, error) {
	return read[api.Labels](c.manage().PutPendingLabel(ctx, account, label, &api.PutPendingLabelParams{IfMatch: tag},
		tokens))
}

// RemovePendingLabel removes the pending label of an account. Calls from Teams under it are rejected from then on.
func (c *Client) RemovePendingLabel(ctx context.Context, account, label string, tag *string) (*api.Labels, error) {
	return read[api.Labels](c.manage().RemovePendingLabel(ctx, account, label,
		&api.RemovePendingLabelParams{IfMatch: tag}))
}

// ActivateLabel makes a label of an account the active one. The one that was active becomes the pending label.
func (c *Client) ActivateLabel(ctx context.Context, account, label string, tag *string) (*api.Labels, error) {
	return read[api.Labels](c.manage().ActivateLabel(ctx, account, label, &api.ActivateLabelParams{IfMatch: tag}))
}

// LabelNumbers returns the numbers of an account that record a label.
func (c *Client) LabelNumbers(ctx context.Context, account, label string) ([]string, error) {
	q := api.ListLabelNumbersParams{Limit: new(500)}
	for all := []string{}; ; {
		l, err := read[api.NumberList](c.manage().ListLabelNumbers(ctx, account, label, &q))
		if err != nil {
			return nil, err
		}
		if all = append(all, l.Numbers...); l.Next == "" {
			return all, nil
		}
		q.Cursor = &l.Next
	}
}

// RecordLabel records which of its labels calls to numbers of the account use, for up to MaxBatch numbers, all or none.
// Without a label they use the active one.
func (c *Client) RecordLabel(ctx context.Context, account string, r api.LabelRecord) error {
	_, err := c.manage().RecordLabel(ctx, account, r)
	return err
}

// Clients returns all API clients of the embedded issuer.
func (c *Client) Clients(ctx context.Context) (all []api.Client, err error) {
	for next := (api.ListClientsParams{}); ; {
		l, err := read[api.ClientList](c.manage().ListClients(ctx, &next))
		if err != nil {
			return nil, err
		}
		if all = append(all, l.Clients...); l.Next == "" {
			return all, nil
		}
		next.Cursor = &l.Next
	}
}

// CreateClient creates an API client. The secret in the result is never shown again. The request is not retried when
// the answer is lost: check Clients and revoke what is not wanted.
func (c *Client) CreateClient(ctx context.Context, r api.ClientRequest) (*api.CreatedClient, error) {
	once := *c
	once.once = true
	return read[api.CreatedClient](once.manage().CreateClient(ctx, r))
}

// RevokeClient revokes an API client.
func (c *Client) RevokeClient(ctx context.Context, id string) error {
	_, err := c.manage().RevokeClient(ctx, id)
	return err
}

// CreateToken creates a bearer token of the embedded issuer.
func (c *Client) CreateToken(ctx context.Context, r api.TokenRequest) (*api.Token, error) {
	return read[api.Token](c.manage().CreateToken(ctx, r))
}

// CheckToken returns which checks a bearer token passes.
func (c *Client) CheckToken(ctx context.Context, token string) (*api.TokenReport, error) {
	return read[api.TokenReport](c.manage().CheckToken(ctx, api.TokenQuestion{Token: token}))
}

// RotateKeyring replaces the key of the keyring and encrypts the database's values again. The request is not retried
// when the answer is lost, because that would replace the key once more.
func (c *Client) RotateKeyring(ctx context.Context, r api.KeyringRotation) (*api.Keyring, error) {
	once := *c
	once.once = true
	return read[api.Keyring](once.manage().RotateKeyring(ctx, r))
}

// VerifyAudit checks the audit log's hash chain, and that it still contains the heads that earlier checks returned.
func (c *Client) VerifyAudit(ctx context.Context, heads ...string) (*api.AuditReport, error) {
	return read[api.AuditReport](c.manage().VerifyAudit(ctx, api.AuditQuestion{Heads: heads}))
}

// Work returns the work on outside systems that is not done, of the kind and state in q, or of any.
func (c *Client) Work(ctx context.Context, q api.ListWorkParams) ([]api.Work, error) {
	for all := []api.Work{}; ; {
		l, err := read[api.WorkList](c.manage().ListWork(ctx, &q))
		if err != nil {
			return nil, err
		}
		if all = append(all, l.Work...); l.Next == "" {
			return all, nil
		}
		q.Cursor = &l.Next
	}
}

// RunWork makes work run at once: Retry if it is parked or queued, Resume if it waits for a person.
func (c *Client) RunWork(ctx context.Context, kind, id string, action api.RunWorkParamsAction) error {
	_, err := c.manage().RunWork(ctx, kind, id, action)
	return err
}

// Zone returns what the DNS zone has at a name and below it. The name is a customer's label, relative to the base
// domain, or absolute; empty for the base domain.
func (c *Client) Zone(ctx context.Context, name string) (*api.Zone, error) {
	var q api.GetZoneParams
	if name != "" {
		q.Name = &name
	}
	return read[api.Zone](c.manage().GetZone(ctx, &q))
}

// CheckZone asks every name server of the zone for what it should have at a name and below it; see Zone. For the base
// domain it asks those of the parent zone too.
func (c *Client) CheckZone(ctx context.Context, name string) (*api.ZoneReport, error) {
	return read[api.ZoneReport](c.manage().CheckZone(ctx, api.ZoneQuestion{Name: name}))
}

// AcceptZone lets the node's name server replace a zone that it keeps because the database lacks most of it.
func (c *Client) AcceptZone(ctx context.Context) error {
	_, err := c.manage().AcceptZone(ctx)
	return err
}

// Certificates returns the certificates that the deployment obtains by ACME, and those in files that the node uses.
func (c *Client) Certificates(ctx context.Context) (*api.CertificateList, error) {
	return read[api.CertificateList](c.manage().ListCertificates(ctx))
}

// RenewCertificate makes a certificate that is obtained by ACME be ordered at once; Certificates shows the result. It
// is refused while the authority accepts no orders.
func (c *Client) RenewCertificate(ctx context.Context, name string) error {
	_, err := c.manage().RenewCertificate(ctx, name)
	return err
}

// manage returns the client generated from the contract, which sends its requests through c.
func (c *Client) manage() *api.Caller { return &api.Caller{Server: "/", Client: doer{c}} }

// doer sends the requests of the generated client with tokens and retries. An answer other than success is an error.
type doer struct{ c *Client }

// Do implements api.HttpRequestDoer. The URL of r has no host.
func (d doer) Do(r *http.Request) (*http.Response, error) {
	req := request{method: r.Method, path: r.URL.EscapedPath(), query: r.URL.Query(), header: r.Header}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		req.body = json.RawMessage(body)
	}
	resp, err := d.c.do(r.Context(), req, nil)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: resp.status, Header: resp.header, Request: r,
		Body: io.NopCloser(bytes.NewReader(resp.body))}, nil
}

// read reads the answer that a method of the generated client returned.
func read[T any](resp *http.Response, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	var v T
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return nil, fmt.Errorf("%s %s: the answer does not match the contract: %w", resp.Request.Method,
			resp.Request.URL.Path, err)
	}
	return &v, nil
}

// readTagged is read for an answer with an ETag.
func readTagged[T any](resp *http.Response, err error) (v *T, tag string, _ error) {
	if v, err = read[T](resp, err); err == nil {
		tag = resp.Header.Get("ETag")
	}
	return v, tag, err
}
