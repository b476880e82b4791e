package check

import (
	"context"
	"strings"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/zone"
)

// Operations implements the management API's operations on the zone (api/manage/v1.yaml).
type Operations struct {
	*Inspector
	Publish string // zone.publish
}

// GetZone implements the operation getZone.
func (o Operations) GetZone(ctx context.Context, r api.GetZoneRequestObject) (api.GetZoneResponseObject, error) {
	name := ""
	if r.Params.Name != nil {
		name = *r.Params.Name
	}
	v, err := o.View(ctx, name)
	if err != nil {
		return nil, err
	}
	answer := api.GetZone200JSONResponse{Zone: o.zone(), Publish: o.Publish, Serial: int64(v.Serial),
		RecordsInAll: v.All, More: v.More, Records: make([]api.ZoneRecord, len(v.Records))}
	for i, p := range v.Records {
		answer.Records[i] = api.ZoneRecord{Name: o.absolute(p.Name), Type: p.Type, TTL: int(p.TTL), Data: p.Data,
			Source: p.Source, Added: p.Added}
	}

	return answer, nil
}

// CheckZone implements the operation checkZone.
func (o Operations) CheckZone(ctx context.Context, r api.CheckZoneRequestObject) (api.CheckZoneResponseObject, error) {
	name := ""
	if r.Body != nil {
		name = r.Body.Name
	}
	report, err := o.Check(ctx, name)
	if err != nil {
		return nil, err
	}
	answer := api.CheckZone200JSONResponse{Zone: o.zone(), More: report.More, Until: report.Until, Names: []string{},
		Servers: []api.ZoneServer{}, Findings: []api.ZoneFinding{}}
	for _, n := range report.Names {
		answer.Names = append(answer.Names, strings.TrimSuffix(n, "."))
	}
	for _, s := range report.Servers {
		answer.Servers = append(answer.Servers, api.ZoneServer{Name: s.Name, Address: s.at(), Serial: int64(s.Serial),
			Parent: s.Parent})
	}
	for _, f := range report.Findings {
		answer.Findings = append(answer.Findings, api.ZoneFinding{Server: f.Server.Name, Address: f.Server.at(),
			Problem: api.ZoneFindingProblem(f.Problem), Name: strings.TrimSuffix(f.Name, "."), Type: f.Type,
			Text: f.Text})
	}

	return answer, nil
}

// zone returns the base domain without the final dot.
func (o Operations) zone() string { return strings.TrimSuffix(o.origin(), ".") }

func (o Operations) absolute(name string) string {
	if name == zone.Apex {
		return o.zone()
	}

	return name + "." + o.zone()
}

// at returns the address of a server, empty if it is not known.
func (s Server) at() string {
	if !s.Addr.IsValid() {
		return ""
	}

	return s.Addr.String()
}
