package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Type is a type of object in a tenant.
type Type string

// The types, in the order in which objects are made. They are removed in the opposite order.
const (
	Domain          Type = "domain"          // a domain name, verified in the tenant
	ActivationUser  Type = "activationUser"  // a licensed user with a name in a domain, which makes it a SIP domain
	SIPDomain       Type = "sipDomain"       // a domain that Teams accepts for gateways; Microsoft makes and removes it
	Usage           Type = "usage"           // an entry of the tenant's one list of PSTN usages
	RoutingPolicy   Type = "routingPolicy"   // an online voice routing policy
	Gateway         Type = "gateway"         // an online PSTN gateway
	Route           Type = "route"           // an online voice route
	DialPlan        Type = "dialPlan"        // a tenant dial plan with its normalisation rules
	EmergencyPolicy Type = "emergencyPolicy" // a Teams emergency call routing policy
	User            Type = "user"            // the voice settings of a user or resource account, by object id

	// Types that nothing desires: what they name cannot be removed.

	Reference  Type = "reference"  // any directory object with a name in a domain, such as another user
	GroupGrant Type = "groupGrant" // a policy that the members of a group get
	Consent    Type = "consent"    // Tandem's application in the tenant; in notes only
)

// Ref names an object. Names are compared without case.
type Ref struct {
	Type Type   `json:"type"`
	Name string `json:"name"`
}

func (r Ref) key() Ref { return Ref{r.Type, fold(r.Name)} }

// Fields are the settings of an object, by the names that the types have for them: texts, numbers, booleans, and lists
// of them or of structures. They are read-only once they are in an object.
type Fields map[string]any

// Object is an object of a tenant.
type Object struct {
	Ref
	Fields Fields `json:"fields"`
}

// EmergencyNumber is an entry of the field numbers of an EmergencyPolicy.
type EmergencyNumber struct {
	DialString string `json:"dialString"`
	Mask       string `json:"mask"` // other strings that are dialled for it, separated by ";"
	Usage      string `json:"usage"`
}

// Strings returns what is dialled for the number: the number itself, and then its masks.
func (n EmergencyNumber) Strings() []string {
	if n.Mask == "" {
		return []string{n.DialString}
	}
	return append([]string{n.DialString}, strings.Split(n.Mask, ";")...)
}

// Rule is an entry of the field rules of a DialPlan. The first that matches wins.
type Rule struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Pattern     string `json:"pattern"`
	Translation string `json:"translation"`
	Internal    bool   `json:"internalExtension,omitempty"`
}

// comparison is how two values of a field are compared.
type comparison int

const (
	exact   comparison = iota // JSON values, lists in their order
	name                      // of an object: case and the prefix "Tag:" do not count
	names                     // a list of names whose order has a meaning
	set                       // a list of names without an order
	present                   // whether there is a text; any other is as good
	never                     // not at all: it is in desired objects only
)

// field is what is special about a field.
type field struct {
	value   any // of its type
	compare comparison
	refers  []Type // the field names objects of these types
	final   string // why the field stays as Tandem has set it; empty if it can be put back
}

// kind is what is special about a type.
type kind struct {
	fields map[string]field
	// observed is set if Microsoft makes and removes the objects. A step waits for them.
	observed bool
	// shared is set if objects exist without Tandem, which changes their fields and puts back what they had. Objects of
	// other types that Tandem has not made are left as they are.
	shared bool
	// binned says what happens to deleted objects if no person has signed in who can delete them for good; empty where
	// deleting is enough.
	binned string
	// usual and longest are how long Microsoft takes.
	usual, longest time.Duration
}

// order has the types as they are made. Sources: direct-routing-sbc-multiple-tenants, direct-routing-voice-routing and
// the cmdlets' pages; only usages of a policy and rules of a dial plan have an order with a meaning.
var order = []Type{Domain, ActivationUser, SIPDomain, Usage, RoutingPolicy, Gateway, Route, DialPlan, EmergencyPolicy,
	User, Reference, GroupGrant}

var (
	text    = field{value: ""}
	boolean = field{value: false}
	whole   = field{value: 0}
)

// named is a field with the name of an object of one of the types.
func named(ts ...Type) field { return field{value: "", compare: name, refers: ts} }

// many is a field with a list of such names.
func many(c comparison, ts ...Type) field { return field{value: []string{}, compare: c, refers: ts} }

// Changes of the configuration of Teams show after 30 to 45 seconds [C]. How long it can take until
// they have settled everywhere is not published; for policies a day is usual knowledge [K].
const (
	shown   = time.Minute
	settled = 24 * time.Hour
)

var kinds = map[Type]kind{
	// A domain that a person has added, but not verified, is verified: nothing else can be made of it.
	Domain: {fields: map[string]field{"verified": {value: false, final: "a person had added it: it stays, verified"}},
		shared: true, usual: 5 * time.Minute, longest: 24 * time.Hour},
	// release: the licence is taken back once the domain is a SIP domain.
	ActivationUser: {fields: map[string]field{"domain": named(Domain), "displayName": text, "enabled": boolean,
		"licence": {value: "", compare: present}, "release": {value: false, compare: never}},
		binned: "deleted, not purged, because no administrator is signed in: Microsoft removes it after 30 days"},
	SIPDomain: {fields: map[string]field{"domain": named(Domain)}, observed: true, usual: 10 * time.Minute,
		longest: 24 * time.Hour},
	// place is where the list has it; nothing desires one
	Usage: {fields: map[string]field{"place": whole}, usual: shown, longest: settled},
	RoutingPolicy: {fields: map[string]field{"usages": many(names, Usage), "description": text}, usual: shown,
		longest: settled},
	Gateway: {fields: map[string]field{"domain": named(SIPDomain, Domain), "port": whole, "enabled": boolean,
		"sendSipOptions": boolean, "forwardCallHistory": boolean, "forwardPai": boolean, "pidfLoSupported": boolean,
		"mediaBypass": boolean}, usual: shown, longest: settled},
	Route: {fields: map[string]field{"pattern": text, "gateways": many(set, Gateway, SIPDomain, Domain),
		"usages": many(set, Usage), "priority": whole, "description": text}, usual: shown, longest: settled},
	DialPlan: {fields: map[string]field{"rules": {value: []Rule{}}, "description": text}, usual: shown,
		longest: settled},
	EmergencyPolicy: {fields: map[string]field{"numbers": {value: []EmergencyNumber{}, refers: []Type{Usage}},
		"description": text}, usual: shown, longest: settled},
	User: {fields: map[string]field{"domain": named(Domain), "number": text, "routingPolicy": named(RoutingPolicy),
		"dialPlan": named(DialPlan), "callerID": {value: "", compare: name}, "emergencyPolicy": named(EmergencyPolicy)},
		shared: true, usual: time.Minute, longest: 10 * time.Minute},
	Reference: {fields: map[string]field{"domain": named(Domain)}},
	GroupGrant: {fields: map[string]field{"routingPolicy": named(RoutingPolicy), "dialPlan": named(DialPlan),
		"callerID": {value: "", compare: name}, "emergencyPolicy": named(EmergencyPolicy)}},
}

func fold(s string) string {
	s = strings.ToLower(s)
	return strings.TrimPrefix(s, "tag:")
}

// canonical returns a value in the form in which equal values are equal texts.
func (c comparison) canonical(v any) string {
	switch v := v.(type) {
	case string:
		switch c {
		case name:
			v = fold(v)
		case present:
			return encode(v != "")
		}
		return encode(v)
	case []string:
		if c == names || c == set {
			folded := make([]string, len(v))
			for i, s := range v {
				folded[i] = fold(s)
			}
			v = folded
		}
		if c == set {
			slices.Sort(v)
			v = slices.Compact(v)
		}
		return encode(v)
	case []EmergencyNumber: // usages are names
		v = slices.Clone(v)
		for i := range v {
			v[i].Usage = fold(v[i].Usage)
		}
		return encode(v)
	default:
		return encode(v)
	}
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // Fields hold values of JSON only
	}
	return string(b)
}

// decode reads fields of a type from JSON, with values of the types that they have in the program.
func (t Type) decode(b []byte) (Fields, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil || raw == nil {
		return nil, err
	}
	fields := make(Fields, len(raw))
	for n, v := range raw {
		f, ok := kinds[t].fields[n]
		if !ok {
			return nil, fmt.Errorf("%s has no field %q", t, n)
		}
		if string(v) == "null" {
			fields[n] = nil
			continue
		}
		value := reflect.New(reflect.TypeOf(f.value))
		if err := json.Unmarshal(v, value.Interface()); err != nil {
			return nil, fmt.Errorf("field %s of %s: %w", n, t, err)
		}
		fields[n] = value.Elem().Interface()
	}
	return fields, nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *Object) UnmarshalJSON(b []byte) (err error) {
	var raw struct {
		Ref
		Fields json.RawMessage `json:"fields"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	o.Ref = raw.Ref
	o.Fields, err = o.Type.decode(raw.Fields)
	return err
}

// refersTo reports whether an object names another.
func refersTo(o Object, r Ref) bool {
	for n, f := range kinds[o.Type].fields {
		if !slices.Contains(f.refers, r.Type) {
			continue
		}

		var objects []string
		switch v := o.Fields[n].(type) {
		case string:
			objects = []string{v}
		case []string:
			objects = v
		case []EmergencyNumber:
			for _, e := range v {
				objects = append(objects, e.Usage)
			}
		}

		if slices.ContainsFunc(objects, func(s string) bool { return fold(s) == fold(r.Name) }) {
			return true
		}
	}

	return false
}

// Observed reports whether Microsoft makes and removes the objects of a type.
func (t Type) Observed() bool { return kinds[t].observed }

// Binned reports whether deleted objects of a type remain in a bin until they are purged.
func (t Type) Binned() bool { return kinds[t].binned != "" }

// Takes returns how long Microsoft usually takes until a new object can be used, and at most; zero for a moment.
func (t Type) Takes() (usual, longest time.Duration) { return kinds[t].usual, kinds[t].longest }

// rank returns the place of a type in the order.
func (t Type) rank() int { return slices.Index(order, t) }

// compareRefs orders objects as they are made. A domain comes before those below it: once it is verified, so are they,
// and it is not removed while they exist.
func compareRefs(a, b Ref) int {
	depth := func(r Ref) int {
		if r.Type != Domain {
			return 0
		}
		return strings.Count(r.Name, ".")
	}
	return cmp.Or(cmp.Compare(a.Type.rank(), b.Type.rank()), cmp.Compare(depth(a), depth(b)),
		cmp.Compare(a.key().Name, b.key().Name))
}
