package graph

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

const numbers = "/admin/teams/telephoneNumberManagement"

// NumberAssignment is a telephone number of the tenant. Enumerations are strings: Graph adds members to them.
type NumberAssignment struct {
	TelephoneNumber    string `json:"telephoneNumber"` // with +, and ;ext= if it has an extension
	NumberType         string `json:"numberType"`      // directRouting, callingPlan, operatorConnect
	NumberSource       string `json:"numberSource"`    // online, onPremises
	AssignmentStatus   string `json:"assignmentStatus"`
	AssignmentTargetID string `json:"assignmentTargetId"`
}

// NumberAssignments lists telephone numbers. Pages hold 500, at most 1,000.
func NumberAssignments(q Query) List[NumberAssignment] {
	return newList[NumberAssignment](numbers+"/numberAssignments", q)
}

// FindNumber reads what the tenant has of a number: one assignment, or none.
func FindNumber(number string) *Call[[]NumberAssignment] {
	q := Query{Filter: "telephoneNumber eq " + Quote(number)}
	c := newCall[[]NumberAssignment](http.MethodGet, numbers+"/numberAssignments"+q.encode(), nil)
	c.sent.Read = func(_ http.Header, body []byte) error {
		var answer struct {
			Value []NumberAssignment `json:"value"`
		}
		err := json.Unmarshal(body, &answer)
		c.Value = answer.Value
		return err
	}
	return c
}

// AssignNumber begins to give a direct routing number to a user as the primary one. The answer is the id for
// GetOperation. number has no "tel:".
func AssignNumber(number, user string) *Call[OperationID] {
	return operation("assignNumber", map[string]string{"telephoneNumber": number, "assignmentTargetId": user,
		"numberType": "directRouting", "assignmentCategory": "primary"})
}

// UnassignNumber begins to take a direct routing number from whoever has it.
func UnassignNumber(number string) *Call[OperationID] {
	return operation("unassignNumber", map[string]string{"telephoneNumber": number, "numberType": "directRouting"})
}

// OperationID names an asynchronous operation.
type OperationID string

var operationLocation = regexp.MustCompile(`/operations(?:\('([^'/?#]{1,200})'\)|/([^'/?#]{1,200}))$`)

// operation posts an action that is answered with the Location of an operation.
func operation(action string, body map[string]string) *Call[OperationID] {
	c := newCall[OperationID](http.MethodPost, numbers+"/numberAssignments/"+action, body)
	c.sent.Read = func(h http.Header, _ []byte) error {
		m := operationLocation.FindStringSubmatch(h.Get("Location"))
		if m == nil {
			return fmt.Errorf("no operation in Location %.200q", h.Get("Location"))
		}
		c.Value = OperationID(m[1] + m[2])
		return nil
	}
	return c
}

// Operation is the progress of an assignment or its removal.
type Operation struct {
	ID      string `json:"id"`
	Status  string `json:"status"`
	Numbers []struct {
		StatusDetail string `json:"statusDetail"`
	} `json:"numbers"`
}

// Waiting reports whether the operation has not ended. Any state but notStarted and running is an end, also one that
// is not known here, such as skipped. What the operation did is read back from the number and the user: "succeeded"
// may hold a number that failed.
func (o Operation) Waiting() bool { return o.Status == "notStarted" || o.Status == "running" }

// GetOperation reads the progress of an operation.
func GetOperation(id OperationID) *Call[Operation] {
	return newCall[Operation](http.MethodGet, path(numbers+"/operations/%s", string(id)), nil)
}

// EffectivePolicy is a policy that applies to a user, directly or by a group.
type EffectivePolicy struct {
	PolicyType string `json:"policyType"`
	Assignment struct {
		DisplayName    string `json:"displayName"`
		AssignmentType string `json:"assignmentType"` // direct, group
		GroupID        string `json:"groupId"`
	} `json:"policyAssignment"`
}

// AssignedNumber is a number that a user has; Category is primary, private or alternate.
type AssignedNumber struct {
	TelephoneNumber    string `json:"telephoneNumber"`
	AssignmentCategory string `json:"assignmentCategory"`
}

// UserConfiguration is the voice state of a user.
type UserConfiguration struct {
	ID                         string            `json:"id"` // of the user
	UserPrincipalName          string            `json:"userPrincipalName"`
	AccountType                string            `json:"accountType"`  // user, resourceAccount, guest, …
	FeatureTypes               []string          `json:"featureTypes"` // PhoneSystem, Teams, …
	TelephoneNumbers           []AssignedNumber  `json:"telephoneNumbers"`
	EffectivePolicyAssignments []EffectivePolicy `json:"effectivePolicyAssignments"`
}

// UserConfigurations lists the voice state of users.
func UserConfigurations(q Query) List[UserConfiguration] {
	return newList[UserConfiguration]("/admin/teams/userConfigurations", q)
}

// GetUserConfiguration reads the voice state of a user.
func GetUserConfiguration(user string) *Call[UserConfiguration] {
	return newCall[UserConfiguration](http.MethodGet, path("/admin/teams/userConfigurations/%s", user), nil)
}

// PolicyAssignment gives a user a policy of a type. Which types are accepted is not documented.
type PolicyAssignment struct {
	UserID     string `json:"userId"`
	PolicyType string `json:"policyType"`
	PolicyID   string `json:"policyId,omitempty"` // not needed to remove
}

// AssignPolicies gives users policies directly.
func AssignPolicies(a ...PolicyAssignment) *Call[None] { return policies("assign", a) }

// UnassignPolicies removes direct assignments, so that those of groups and the tenant apply again.
func UnassignPolicies(a ...PolicyAssignment) *Call[None] { return policies("unassign", a) }

func policies(action string, a []PolicyAssignment) *Call[None] {
	return newCall[None](http.MethodPost, "/admin/teams/policy/userAssignments/"+action,
		map[string]any{"value": a})
}

// GetPolicyID finds the id of a policy by its name. If there is none, the answer is "" or fault.NotFound: which of them
// is not documented.
func GetPolicyID(policyType, name string) *Call[string] {
	escape := func(s string) string { return strings.ReplaceAll(s, "'", "''") }
	c := newCall[string](http.MethodGet, path("/admin/teams/policy/getPolicyId(type='%s',name='%s')",
		escape(policyType), escape(name)), nil)
	c.sent.Read = func(_ http.Header, body []byte) error {
		var answer struct {
			Value []struct {
				Name string `json:"name"`
				ID   string `json:"policyId"`
			} `json:"value"`
		}
		err := json.Unmarshal(body, &answer)
		for _, p := range answer.Value {
			if strings.EqualFold(p.Name, name) {
				c.Value = p.ID
			}
		}
		return err
	}
	return c
}
