package provapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
)

// read answers a conditional read of one resource (RFC 9110 §13.2.2). v is its rendered form, err the error of finding
// it.
func (c *call) read(v any, version int64, modified time.Time, err error) (*response, error) {
	if err != nil {
		return nil, err
	}
	tag := directory.ETag(version)
	switch c.carried.Condition.ForRead(version, modified) {
	case directory.NotModified:
		return &response{status: http.StatusNotModified, header: http.Header{"Etag": {tag}}}, nil
	case directory.Failed:
		return nil, fault.New(fault.Precondition, directory.CodeConditionNotMet, "a condition of the request "+
			"(If-Match or If-Unmodified-Since) does not hold: the resource has changed; read it again without the "+
			"condition")
	}
	r := tagged(false, version, v)
	if !modified.IsZero() {
		r.header.Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
	}
	return r, nil
}

// kept is an answer as stored for a repetition of its request.
type kept struct {
	Status int    `json:"status"`
	ETag   string `json:"etag,omitempty"`
	Body   []byte `json:"body,omitempty"`
}

func (r *response) keep() ([]byte, error) {
	return json.Marshal(kept{r.status, r.header.Get("ETag"), r.body})
}

// restore is the inverse of keep: the same status, headers and body, byte for byte.
func restore(raw []byte) (*response, error) {
	var k kept
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, fault.Wrap(err, "read the stored answer of a repeated request")
	}
	r := &response{status: k.Status, header: http.Header{}, body: k.Body}
	if k.ETag != "" {
		r.header.Set("ETag", k.ETag)
	}
	if k.Body != nil {
		r.header.Set("Content-Type", "application/json")
	}
	return r, nil
}

// write returns what the request carries besides its body. render makes the answer of the write's result.
func (c *call) write(render func(*directory.Result) *response) directory.Write {
	c.render = render
	if c.carried.Once != nil {
		c.carried.Once.Render = func(res *directory.Result) ([]byte, error) { return render(res).keep() }
	}
	return c.carried
}

// written answers the write that was made with what write returned; a repeated one as it was answered the first time.
func (c *call) written(res *directory.Result, err error) (*response, error) {
	if err != nil {
		return nil, err
	}
	if c.carried.Once == nil {
		return c.render(res), nil
	}
	r, err := restore(res.Response)
	if err != nil {
		return nil, err
	}
	r.header.Set("Repeatability-Result", "accepted")
	return r, nil
}

// tagged answers with a resource, 201 if it was created.
func tagged(created bool, version int64, v any) *response {
	r := jsonResponse(http.StatusOK, v)
	if created {
		r.status = http.StatusCreated
	}
	r.header.Set("ETag", directory.ETag(version))
	return r
}

func noContent(*directory.Result) *response {
	return &response{status: http.StatusNoContent, header: http.Header{}}
}

func (a *API) listAccounts(c *call) (*response, error) {
	return list(a, c, a.accounts, a.dir.Accounts, renderAccount)
}

func (a *API) getAccount(c *call) (*response, error) {
	acc, err := a.dir.Account(c.r.Context(), c.vars.account)
	return c.read(renderAccount(&acc), acc.Version, acc.Modified, err)
}

func (a *API) putAccount(c *call) (*response, error) {
	r := reader{services: a.services}
	acc := r.account(c.body)
	if err := r.Err(); err != nil {
		return nil, err
	}
	if acc.Name != c.vars.account {
		return nil, invalid(directory.CodeAccountNameMismatch, "name", "name in the body is %q, but the path names "+
			"%q; they must be equal, case included", web.Clip(acc.Name), c.vars.account)
	}
	return c.written(a.dir.PutAccount(c.r.Context(), acc, c.write(func(res *directory.Result) *response {
		return tagged(res.Created, res.Account.Version, renderAccount(res.Account))
	})))
}

func (a *API) deleteAccount(c *call) (*response, error) {
	numbers, err := c.boolean("deleteNumbers")
	if err != nil {
		return nil, err
	}
	return c.written(a.dir.DeleteAccount(c.r.Context(), c.vars.account, numbers, c.write(noContent)))
}

// listNumbers lists the numbers of the path's account, or of all accounts if the path names none.
func (a *API) listNumbers(c *call) (*response, error) {
	return list(a, c, a.numbers,
		func(ctx context.Context, q directory.Query) (directory.Page[domain.Number], error) {
			return a.dir.Numbers(ctx, c.vars.account, q)
		}, renderNumber)
}

func (a *API) getNumber(c *call) (*response, error) {
	num, err := a.dir.Number(c.r.Context(), c.vars.account, c.vars.number)
	return c.read(renderNumber(&num), num.Version, num.Modified, err)
}

func (a *API) putNumber(c *call) (*response, error) {
	r := reader{services: a.services}
	num := r.number(c.body, "")
	if err := r.Err(); err != nil {
		return nil, err
	}
	if num.AccountName != c.vars.account {
		return nil, invalid(directory.CodeAccountNameMismatch, "accountName",
			"accountName in the body is %q, but the path names %q; they must be equal, case included",
			web.Clip(num.AccountName), c.vars.account)
	}
	if num.TelephoneNumber != c.vars.number {
		return nil, invalid(CodeNumberMismatch, "telephoneNumber",
			"telephoneNumber in the body is not the number in the path; they must be equal")
	}
	return c.written(a.dir.PutNumber(c.r.Context(), num, c.write(func(res *directory.Result) *response {
		return tagged(res.Created, res.Numbers[0].Version, renderNumber(&res.Numbers[0]))
	})))
}

func (a *API) deleteNumber(c *call) (*response, error) {
	return c.written(a.dir.DeleteNumber(c.r.Context(), c.vars.account, c.vars.number, c.write(noContent)))
}

func (a *API) putNumbers(c *call) (*response, error) {
	ns, err := batch(a, c, (*reader).number)
	if err != nil {
		return nil, err
	}
	return c.written(a.dir.PutNumbers(c.r.Context(), c.vars.account, ns,
		c.write(func(res *directory.Result) *response {
			out := make([]any, 0, len(res.Numbers))
			for i := range res.Numbers {
				out = append(out, renderNumber(&res.Numbers[i]))
			}
			return jsonResponse(http.StatusOK, map[string]any{"numbers": out})
		})))
}

func (a *API) deleteNumbers(c *call) (*response, error) {
	ns, err := batch(a, c, identifier)
	if err != nil {
		return nil, err
	}
	return c.written(a.dir.DeleteNumbers(c.r.Context(), c.vars.account, ns, c.write(noContent)))
}

func (a *API) capabilityPlans(c *call) (*response, error) {
	return c.written(a.dir.CapabilityPlans(c.r.Context(), c.vars.account,
		c.write(func(res *directory.Result) *response {
			return jsonResponse(http.StatusOK, map[string]any{"capabilityPlans": notNil(res.Plans)})
		})))
}

func (a *API) availableCapabilities(c *call) (*response, error) {
	ns, err := batch(a, c, identifier)
	if err != nil {
		return nil, err
	}
	return c.written(a.dir.AvailableCapabilities(c.r.Context(), c.vars.account, ns,
		c.write(func(res *directory.Result) *response {
			return jsonResponse(http.StatusOK, map[string]any{"availableCapabilities": notNil(res.Capabilities)})
		})))
}

func (a *API) listCivicAddresses(c *call) (*response, error) {
	return list(a, c, filter.CivicAddresses,
		func(ctx context.Context, q directory.Query) (directory.Page[directory.CivicAddress], error) {
			return a.dir.CivicAddresses(ctx, c.vars.account, q)
		}, renderAddress)
}

func (a *API) getCivicAddress(c *call) (*response, error) {
	addr, err := a.dir.CivicAddress(c.r.Context(), c.vars.account, c.vars.address)
	return c.read(renderAddress(&addr), addr.Version, addr.Modified, err)
}

func (a *API) listRequests(c *call) (*response, error) {
	return list(a, c, filter.Requests, a.dir.Requests, renderRequest)
}

func (a *API) getRequest(c *call) (*response, error) {
	q, err := a.dir.Request(c.r.Context(), c.vars.tenant)
	return c.read(renderRequest(&q), q.Version, q.LastModifiedOn, err)
}

func (a *API) patchRequest(c *call) (*response, error) {
	r := reader{services: a.services}
	p := r.relationship(c.body)
	if err := r.Err(); err != nil {
		return nil, err
	}
	return c.written(a.dir.PatchRequest(c.r.Context(), c.vars.tenant, p, c.write(func(res *directory.Result) *response {
		return tagged(res.Created, res.Request.Version, renderRequest(res.Request))
	})))
}
