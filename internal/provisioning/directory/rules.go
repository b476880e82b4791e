package directory

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Lengths that the contract leaves open.
const (
	maxCorrelation  = 1024
	maxTeamsText    = 256 // usage, identifiers, country code of a Teams configuration
	maxCapabilities = 100
	maxStatus       = 256
	maxComment      = 4096
)

func invalid(code, target, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, code, format, args...).At(target)
}

func conflict(code, target, format string, args ...any) *fault.Error {
	return fault.New(fault.Conflict, code, format, args...).At(target)
}

// word reports whether s has 1 to max characters, all of them letters, digits or in more.
func word(s string, max int, more string) bool {
	if len(s) < 1 || len(s) > max {
		return false
	}
	for i := range len(s) {
		if !alnum(s[i]) && strings.IndexByte(more, s[i]) < 0 {
			return false
		}
	}
	return true
}

func alnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// text reports whether s is UTF-8 of at most max bytes without control characters and line breaks: one line.
func text(s string, max int) bool { return prose(s, max) && !strings.ContainsAny(s, "\t\n\r") }

// prose is like text but allows several lines and tabs. C1 controls (U+0085 is a line break), U+2028 and U+2029 are
// refused too.
func prose(s string, max int) bool {
	return len(s) <= max && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' || r == '\u2028' || r == '\u2029'
	})
}

func checkAccountName(name string) *fault.Error {
	if word(name, 100, "_-") {
		return nil
	}
	return invalid(CodeInvalidAccountName, "name",
		"an account name has 1 to 100 characters: letters, digits, \"_\" and \"-\"")
}

// checkAccount checks an account by itself.
func (d *Directory) checkAccount(a *domain.Account) *fault.Error {
	if err := checkAccountName(a.Name); err != nil {
		return err
	}
	if !text(a.CorrelationID, maxCorrelation) {
		return invalid(CodeInvalidCorrelationID, "correlationId", "a correlation id has at most %d bytes of UTF-8 "+
			"without control characters", maxCorrelation)
	}
	if a.TeamsTenantID != "" && !domain.IsGUID(a.TeamsTenantID) {
		return invalid(CodeInvalidTenantID, "serviceDetails.teamsTenantId",
			"a Teams tenant id is a GUID, e.g. 6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d")
	}
	for _, s := range domain.InOrder(a.Services) {
		det := a.Services[s]
		at := "serviceDetails." + s.String()
		tr := s.Traits()
		switch {
		case !tr.InContract:
			return invalid(CodeUnknownService, at, "%s cannot be provisioned yet; leave it out", tr.Title)
		case det.DirectRouting != nil && !tr.Labelled:
			return invalid(CodeUnknownService, at+".configuration", "%s has no configuration on an account", tr.Title)
		case det.DirectRouting != nil:
			if err := d.checkLabel(at+".configuration", det.DirectRouting.Label); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Directory) checkLabel(at string, l domain.Label) *fault.Error {
	if err := domain.CheckLabel(l.Subdomain, d.cfg.BaseDomain); err != nil {
		return invalid(CodeInvalidSubdomain, at+".subdomain", "%v", err)
	}
	for i, tok := range []string{l.Region1Token, l.Region2Token} {
		if !word(tok, 100, "=_-") {
			return invalid(CodeInvalidSubdomainToken, fmt.Sprintf("%s.subdomainTokens.region%dToken", at, i+1),
				"a subdomain token has 1 to 100 characters: letters, digits, \"=\", \"_\" and \"-\"")
		}
	}
	return nil
}

// checkOnboarded refuses to change a label that the onboarding of the tenant owns.
func checkOnboarded(old, a *domain.Account) *fault.Error {
	if was := old.Active(); was.Onboarded && !sameNames(was, a.Active()) {
		return conflict(CodeLabelOnboarded, "serviceDetails."+old.Labelled().String()+".configuration", "the "+
			"onboarding of the account's tenant owns the label %q and its tokens; send them as they are (%q, %q), or "+
			"leave the tenant first", was.Subdomain, was.Region1Token, was.Region2Token)
	}
	return nil
}

// checkReplace checks the effect of an account's new state on its numbers.
func checkReplace(old, a *domain.Account) *fault.Error {
	for _, s := range domain.InOrder(old.Services) {
		was := old.Services[s]
		if was.NumberCount == 0 {
			continue
		}
		tr, at := s.Traits(), "serviceDetails."+s.String()
		is := a.Services[s]
		if was.Enabled && !is.Enabled {
			return conflict(CodeServiceInUse, at+".enabled",
				"%s cannot be disabled while %d numbers of the account use it; disable it on them first", tr.Title,
				was.NumberCount)
		}
		if !strings.EqualFold(label(was), label(is)) {
			return conflict(CodeSubdomainInUse, at+".configuration.subdomain", "the subdomain cannot change while %d "+
				"numbers of the account use %s; disable it on them first", was.NumberCount, tr.Title)
		}
		if tr.TenantBound && !strings.EqualFold(old.TeamsTenantID, a.TeamsTenantID) {
			return conflict(CodeTenantInUse, "serviceDetails.teamsTenantId", "the Teams tenant cannot change while "+
				"%d numbers of the account use %s; delete them first", was.NumberCount, tr.Title)
		}
	}
	return nil
}

// label returns the subdomain of an account's service, or "".
func label(s domain.AccountService) string {
	if s.DirectRouting == nil {
		return ""
	}
	return s.DirectRouting.Subdomain
}

// checkNumber checks a number that is to be stored on account a; old is its present state, or nil. It returns the first
// problem, its target relative to the number.
func checkNumber(a *domain.Account, n, old *domain.Number) *fault.Error {
	if _, err := domain.ParseE164(string(n.TelephoneNumber)); err != nil {
		return invalid(CodeInvalidTelephoneNumber, "telephoneNumber", "%s", err.Error())
	}
	if n.AccountName != a.Name {
		return invalid(CodeAccountNameMismatch, "accountName", "accountName must be %q, the account in the "+
			"request's path", a.Name)
	}
	if n.CustomSIPHeader != "" && !word(n.CustomSIPHeader, 100, "_-") {
		return invalid(CodeInvalidCustomSIPHeader, "configuration.customSipHeader",
			"a custom SIP header value has 1 to 100 characters: letters, digits, \"_\" and \"-\"")
	}
	if old != nil && old.AccountName != a.Name {
		return conflict(CodeNumberElsewhere, "telephoneNumber",
			"the number is assigned to another account; delete it there first")
	}
	for _, s := range domain.InOrder(n.Services) {
		if err := checkNumberService(s, n.Services[s]); err != nil {
			return err
		}
	}
	return checkTogether(a, n)
}

func checkNumberService(s domain.Service, det domain.NumberService) *fault.Error {
	tr, at := s.Traits(), "serviceDetails."+s.String()
	switch {
	case !tr.InContract:
		return invalid(CodeUnknownService, at, "%s cannot be provisioned yet; leave it out", tr.Title)
	case !tr.TenantBound && det.Teams != nil:
		return invalid(CodeUnknownService, at+".configuration", "%s has no configuration on a number", tr.Title)
	case !tr.TenantBound && det.AssignmentStatus != "":
		return invalid(CodeUnknownService, at+".assignmentStatus", "%s has no assignment status", tr.Title)
	case det.AssignmentStatus != "" && det.AssignmentStatus != "assigned" && det.AssignmentStatus != "unassigned":
		return invalid(CodeInvalidAssignmentStatus, at+".assignmentStatus",
			"assignmentStatus must be assigned or unassigned")
	}
	c := det.Teams
	if c == nil {
		return nil
	}
	if c.Usage == "" {
		return invalid(CodeInvalidTeamsConfiguration, at+".configuration.usage",
			"usage is required, e.g. CallingUserAssignment")
	}
	for _, f := range []struct{ name, v string }{{"usage", c.Usage}, {"civicAddressId", c.CivicAddressID},
		{"locationId", c.LocationID}, {"displayedCountryCode", c.DisplayedCountryCode}} {
		if !text(f.v, maxTeamsText) {
			return invalid(CodeInvalidTeamsConfiguration, at+".configuration."+f.name, "%s has at most %d bytes of "+
				"UTF-8 without control characters", f.name, maxTeamsText)
		}
	}
	for _, f := range []struct {
		name string
		v    []string
	}{{"choosableCapabilities", c.ChoosableCapabilities}, {"additionalUsages", c.AdditionalUsages}} {
		if len(f.v) > maxCapabilities {
			return invalid(CodeInvalidTeamsConfiguration, at+".configuration."+f.name, "%s has at most %d entries",
				f.name, maxCapabilities)
		}
		for _, v := range f.v {
			if v == "" || !text(v, maxTeamsText) {
				return invalid(CodeInvalidTeamsConfiguration, at+".configuration."+f.name,
					"an entry of %s has 1 to %d bytes of UTF-8 without control characters", f.name, maxTeamsText)
			}
		}
	}
	return nil
}

// checkTogether checks the services of a number against its account and each other.
func checkTogether(a *domain.Account, n *domain.Number) *fault.Error {
	want := slices.DeleteFunc(domain.InOrder(n.Services), func(s domain.Service) bool { return !n.Services[s].Enabled })
	allowed := a.Enabled()
	header := len(want) == 0
	for _, s := range want {
		tr, at := s.Traits(), "serviceDetails."+s.String()
		if !allowed.Has(s) {
			return invalid(CodeServiceNotEnabled, at+".enabled",
				"%s is not enabled on the account; enable it there first", tr.Title)
		}
		if i := slices.IndexFunc(want, func(o domain.Service) bool { return exclude(s, o) }); i >= 0 {
			return invalid(CodeServicesExcludeEachOther, at+".enabled",
				"a number cannot have %s and %s together; choose one", tr.Title, want[i].Traits().Title)
		}
		header = header || tr.CustomHeader
	}
	if n.CustomSIPHeader != "" && !header {
		return invalid(CodeCustomHeaderUnsupported, "configuration.customSipHeader",
			"no service enabled on the number carries a custom SIP header; leave it out")
	}
	return nil
}

// exclude reports whether two services cannot be on one number together.
func exclude(a, b domain.Service) bool {
	ta, tb := a.Traits(), b.Traits()
	return a != b && (ta.Exclusive && tb.Exclusive || slices.Contains(ta.ExcludedBy, tb.Name) ||
		slices.Contains(tb.ExcludedBy, ta.Name))
}
