package manage

import "time"

// ErrorBody is the body of every answer that is not a success.
type ErrorBody struct {
	Error Error `json:"error"`
}

// Error says what is wrong and how to fix it.
type Error struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Target  string  `json:"target,omitempty"`
	Details []Error `json:"details,omitempty"`
}

// The values of Health.Status.
const (
	StatusReady    = "ready"
	StatusNotReady = "notReady"
	StatusDraining = "draining"
)

// Health is the state of a node.
type Health struct {
	Status   string    `json:"status"`
	Reasons  []string  `json:"reasons"`
	Version  string    `json:"version"`
	Node     string    `json:"node"`
	Roles    []string  `json:"roles"`
	Started  time.Time `json:"started"`
	Parts    []Part    `json:"parts"`
	Database *Database `json:"database,omitempty"`
	Replica  *Replica  `json:"replica,omitempty"`
	Calls    *Calls    `json:"calls,omitempty"`
}

// Part is one long-running part of a node.
type Part struct {
	Name     string    `json:"name"`
	Running  bool      `json:"running"`
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since"` // of the present state
	Error    string    `json:"error,omitempty"`
}

// Database is the state of the database.
type Database struct {
	Engine    string    `json:"engine"`    // sqlite or postgres
	Location  string    `json:"location"`  // host, port and database, or the file
	Available bool      `json:"available"` // it answers and is not damaged
	Writable  bool      `json:"writable"`  // and accepts writes
	Since     time.Time `json:"since"`     // of the present state
	Error     string    `json:"error,omitempty"`
}

// Replica is the state of the number index in memory.
type Replica struct {
	Loaded   bool       `json:"loaded"`             // an index is loaded
	Current  bool       `json:"current"`            // it follows the feed now
	Database string     `json:"database,omitempty"` // identity of the database it was loaded from
	Position int64      `json:"position"`           // up to which it has every change
	Head     int64      `json:"head"`               // newest position seen in the feed
	Numbers  int64      `json:"numbers"`
	Bytes    int64      `json:"bytes,omitempty"`
	Synced   *time.Time `json:"synced,omitempty"` // when it was last known to be complete
	Error    string     `json:"error,omitempty"`
	Held     *HeldIndex `json:"held,omitempty"`
}

// HeldIndex is why the index is not replaced from the database.
type HeldIndex struct {
	Reason   string    `json:"reason"`
	Database string    `json:"database"` // identity of the database that was found
	Numbers  int64     `json:"numbers"`  // in that database
	Since    time.Time `json:"since"`
}

// IndexAcceptance names the database that an index may be replaced from.
type IndexAcceptance struct {
	Database string `json:"database"` // HeldIndex.Database
}

// Calls counts calls.
type Calls struct {
	Active int `json:"active"`
}

// Drain is whether new calls are refused.
type Drain struct {
	Draining bool `json:"draining"`
}

// PeerGroupList is the answer to listPeers.
type PeerGroupList struct {
	Groups []PeerGroup `json:"groups"`
}

// PeerGroup is a configured group of peers.
type PeerGroup struct {
	Name    string   `json:"name"`
	Service string   `json:"service"` // "core" for the operator's network
	Calls   int      `json:"calls"`
	Listen  []string `json:"listen"` // transport and address, e.g. "udp 127.0.0.1:5060"
	Peers   []Peer   `json:"peers"`
}

// Peer is one destination of calls.
type Peer struct {
	Name     string     `json:"name"`
	Address  string     `json:"address"`
	Priority int        `json:"priority"`
	State    string     `json:"state"` // up, down or unknown
	Since    *time.Time `json:"since,omitempty"`
	Reason   string     `json:"reason,omitempty"`
}

// Question is the call that explainCall is asked about.
type Question struct {
	From       string   `json:"from"`
	To         string   `json:"to"`
	Peer       string   `json:"peer"`
	Host       string   `json:"host,omitempty"`
	Asserted   []string `json:"asserted,omitempty"`
	History    []string `json:"history,omitempty"`
	ReferredBy string   `json:"referredBy,omitempty"`
	AnchoredBy string   `json:"anchoredBy,omitempty"`
}

// Explanation is where a call would go and why.
type Explanation struct {
	Outcome        string   `json:"outcome"` // toService, toCore or rejected
	Rule           string   `json:"rule"`
	Text           string   `json:"text"`
	Service        string   `json:"service,omitempty"`
	Groups         []string `json:"groups,omitempty"`
	Account        string   `json:"account,omitempty"`
	Called         string   `json:"called,omitempty"`
	Identity       string   `json:"identity,omitempty"`
	IdentitySource string   `json:"identitySource,omitempty"`
	Caller         string   `json:"caller,omitempty"`
	Header         string   `json:"header,omitempty"`
	Emergency      bool     `json:"emergency,omitempty"`
	SIPStatus      int      `json:"sipStatus,omitempty"`
	Position       int64    `json:"position,omitempty"`
	Steps          []Step   `json:"steps"`
}

// Step is one rule that was tried.
type Step struct {
	Rule   string `json:"rule"`
	Result string `json:"result"`
	Text   string `json:"text"`
	Facts  []Fact `json:"facts,omitempty"`
}

// Fact is a value that a rule looked at.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// NewClient asks for an API client.
type NewClient struct {
	Name  string   `json:"name"`
	Roles []string `json:"roles"`
}

// Client is an API client of the embedded issuer.
type Client struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Roles   []string   `json:"roles"`
	Created time.Time  `json:"created"`
	Revoked *time.Time `json:"revoked,omitempty"`
}

// ClientList is the answer to listClients.
type ClientList struct {
	Clients []Client `json:"clients"`
}

// CreatedClient is a new client with its secret, which is never shown again.
type CreatedClient struct {
	Client Client `json:"client"`
	Secret string `json:"secret"`
}

// NewToken asks for a bearer token.
type NewToken struct {
	Roles []string `json:"roles"`
}

// Token is a bearer token.
type Token struct {
	AccessToken string `json:"accessToken"`
	ExpiresIn   int    `json:"expiresIn"` // seconds
}

// AuditQuestion asks for a check of the audit log.
type AuditQuestion struct {
	Heads []string `json:"heads,omitempty"` // returned by earlier checks
}

// AuditReport is the result of a check of the audit log.
type AuditReport struct {
	OK       bool   `json:"ok"`
	Rows     int64  `json:"rows"`
	Head     string `json:"head,omitempty"`
	BrokenAt int64  `json:"brokenAt,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// Reloaded lists the settings, by path, in which the configuration differs from the one that was in effect.
type Reloaded struct {
	Applied []string `json:"applied"` // in effect now
	Restart []string `json:"restart"` // in effect only after a restart
}
