package plan

// CarrierSettings is what the operator's own tenant should have, so that trunks of customers can be derived from its
// trunks (direct-routing-sbc-multiple-tenants).
type CarrierSettings struct {
	Base    string   `json:"base"`    // the base domain
	Regions []string `json:"regions"` // the names of the trunks below it, such as 1r1.gw.example.com
	Port    int      `json:"port"`    // of the listener that Teams reaches
}

// Objects returns the objects that the operator's tenant should have: each name verified and activated, and a gateway
// object for each region, from which derived trunks inherit all settings. The base domain needs none: a derived trunk
// is one label below a region. licence is the service plan of the activation users, which are kept; those that were
// made have the one that they were given, whatever is free now.
func (s *CarrierSettings) Objects(licence string, made Ledger) []Object {
	var objects []Object
	add := func(t Type, name string, f Fields) { objects = append(objects, Object{Ref{t, name}, f}) }
	for _, n := range append([]string{s.Base}, s.Regions...) {
		user := Fields{"domain": n, "displayName": "Teams Gateway", "enabled": true, "licence": licence}
		if m, ok := made.Get(Ref{ActivationUser, "tandem.teams@" + n}); ok {
			user["licence"] = m.Fields["licence"]
		}
		add(Domain, n, Fields{"verified": true})
		add(ActivationUser, "tandem.teams@"+n, user)
		add(SIPDomain, n, Fields{"domain": n})
	}
	for _, n := range s.Regions {
		add(Gateway, n, Fields{"domain": n, "port": s.Port, "enabled": true, "sendSipOptions": true,
			"forwardCallHistory": true, "forwardPai": true, "pidfLoSupported": true, "mediaBypass": false})
	}
	return objects
}
