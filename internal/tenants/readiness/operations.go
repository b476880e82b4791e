package readiness

import (
	"context"

	api "github.com/tandemgw/tandem/api/manage"
)

// Operations implements the management API's operations with the tag readiness.
type Operations struct{ Checker *Checker }

// CheckReadiness implements the operation checkReadiness.
func (o Operations) CheckReadiness(ctx context.Context, r api.CheckReadinessRequestObject) (
	api.CheckReadinessResponseObject, error) {
	report, err := o.Checker.Check(ctx, r.Account)
	if err != nil {
		return nil, err
	}
	answer := api.CheckReadiness200JSONResponse{Account: r.Account, Stage: api.ReadinessStage(report.Stage),
		Passed: report.Count(Pass), Warned: report.Count(Warn), Failed: report.Count(Fail), Note: report.Note(),
		Names: report.Names, Findings: make([]api.ReadinessFinding, len(report.Findings))}
	for i, f := range report.Findings {
		answer.Findings[i] = api.ReadinessFinding{ID: f.ID, Subject: f.Subject,
			Level: api.ReadinessFindingLevel(f.Level), Stage: api.ReadinessStage(f.Stage), Reason: f.Reason,
			Remedy: f.Remedy}
	}
	if s := report.Licence; s.Reason != "" {
		answer.Licence = &api.ActivationLicence{Way: api.ActivationLicenceWay(s.Way), Plan: s.Plan, Product: s.Product}
		if s.Way == "" {
			answer.Licence.Way = api.ActivationLicenceWayUnavailable
		}
	}
	return answer, nil
}
