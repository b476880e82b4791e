package microsoft

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
)

// Refusal is a way in which a service refuses, and a request that is refused so.
type Refusal struct {
	Name    string `json:"name"`
	Status  int    `json:"status"`
	Code    string `json:"code"` // of Graph and the Teams service; "error" of the login
	Message string `json:"message"`
	// AADSTS and Suberror are of the login.
	AADSTS   int    `json:"aadsts,omitempty"`
	Suberror string `json:"suberror,omitempty"`
	Source   string `json:"source"` // sheet or case, with its mark

	// Situation is the state before Request, by its name in the test. Only the test uses both.
	Situation string          `json:"situation"`
	Request   json.RawMessage `json:"request"`

	text   string
	header http.Header
}

// Error returns the message.
func (r *Refusal) Error() string { return r.text }

//go:embed data/refusals.json
var refusalsFile []byte

var refusals = func() map[string]*Refusal {
	var rows []*Refusal
	if err := json.Unmarshal(refusalsFile, &rows); err != nil {
		panic(err)
	}
	m := map[string]*Refusal{}
	for _, r := range rows {
		m[r.Name] = r
	}

	return m
}()

// refuse returns a refusal of the table. The arguments are for its message.
func refuse(name string, args ...any) *Refusal {
	row := refusals[name]
	if row == nil {
		panic("no refusal " + name)
	}
	r := *row
	if r.text = r.Message; len(args) > 0 {
		r.text = fmt.Sprintf(r.Message, args...)
	}

	return &r
}
