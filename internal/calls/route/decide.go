package route

import "github.com/tandemgw/tandem/internal/domain"

// Decide decides where a call goes, or rejects it. view and policy must not be nil: an edge that has never loaded an
// index decides emergency calls with [NoNumbers] and answers the others with 503 itself (design §2). Decide always
// returns an outcome and the rule that made it, never panics on odd facts, and is safe for concurrent use.
func Decide(view View, policy *Policy, facts domain.CallFacts) Decision {
	d := decision{view: view, p: policy, f: &facts}
	return d.run()
}

// Explain decides as Decide does and also returns every rule tried, in order, with the facts it looked at.
func Explain(view View, policy *Policy, facts domain.CallFacts) Explanation {
	var x Explanation
	d := decision{view: view, p: policy, f: &facts, steps: &x.Steps}
	x.Decision = d.run()
	return x
}
