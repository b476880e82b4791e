package edge

import (
	"time"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
)

// Config is the edge's part of the configuration file.
type Config struct {
	// Node names this node in the tags it makes, so that a request for another node's dialog is recognised: 1 to 16 letters and
	// digits. Default "n1". Nodes that share one host name must have different names.
	Node string `yaml:"node"`
	// Groups are the peer groups: the operator's core network and the communications services, each a set of peers reached the
	// same way. Default none: nothing is listened on and no call is taken.
	Groups []Group `yaml:"groups"`
	// Limits bound what is taken on.
	Limits Limits `yaml:"limits"`
	// Timers bound how long things may take.
	Timers Timers `yaml:"timers"`
	// UserAgent is put as Server in answers and User-Agent in requests that Tandem makes itself; those it relays keep their own.
	// Default "Tandem". "-" sends neither.
	UserAgent string `yaml:"userAgent"`
}

// Limits bound what the edge takes on; what is above is answered 503 with Retry-After and the reason.
type Limits struct {
	// MaxCalls is the most calls at one time, being set up or answered. Default 20000; a call takes about 6 KiB.
	MaxCalls int `yaml:"maxCalls"`
	// MaxCallsPerSecond is the most new calls in one second. Default 2000.
	MaxCallsPerSecond int `yaml:"maxCallsPerSecond"`
	// RetryAfter is how long a refused peer is asked to wait, in whole seconds. Default 5s.
	RetryAfter time.Duration `yaml:"retryAfter"`
	// ConnectionsPerSource is the most TCP and TLS connections that one address may open to this node; more are
	// closed at once, counted and logged. 1 to 1000000, default 1000.
	ConnectionsPerSource int `yaml:"connectionsPerSource"`
	// Message bounds what a SIP message that comes in may hold.
	Message sip.Limits `yaml:"message"`
}

// Timers bound how long things may take.
type Timers struct {
	// FailoverAfter is how long a peer may be silent after an INVITE, without even a 100, before the next one is tried. Default 4s.
	// It should stay below the time the near side gives us (Teams: 10s) divided by the peers to be tried.
	FailoverAfter time.Duration `yaml:"failoverAfter"`
	// SetupTimeout is how long a peer may take, 100 or not, to give a first sign of progress other than 100; then the next one is tried, and after the
	// last the call is refused with 408. Default 32s; 0 leaves it to FailoverAfter and RingTimeout.
	SetupTimeout time.Duration `yaml:"setupTimeout"`
	// RingTimeout is how long a call may ring: it starts anew with each provisional answer (RFC 3261 timer C). Default 3m5s.
	RingTimeout time.Duration `yaml:"ringTimeout"`
	// MaxDuration is the longest a call may last once answered; then both sides get BYE. Default 24h; 0 is no limit.
	MaxDuration time.Duration `yaml:"maxDuration"`
	// ProbeEvery is how often each side of an answered call is asked with OPTIONS inside the dialog whether it still knows the call; both sides get BYE if it
	// does not. Peers that are passive and groups with options.off are not asked. Default 15m; 0 does not ask, and leaves finding dead calls to session timers and MaxDuration.
	ProbeEvery time.Duration `yaml:"probeEvery"`
}

// Group is a set of peers that are reached the same way and share settings.
type Group struct {
	// Name names the group in configuration, metrics and records: 1 to 32 letters, digits, "-" or "_". Required.
	Name string `yaml:"name"`
	// Service is the communications service on the other side, by its name in the Provisioning API (such as "teamsDirectRouting"). Empty, the
	// default, is the operator's core network.
	Service string `yaml:"service"`
	// Transport is what requests to the group are sent over: "udp", "tcp" or "tls". Default "tls". "udp" and "tcp" beyond loopback need insecure: true.
	Transport string `yaml:"transport"`
	// Bind holds the local addresses on which the group's peers are listened to, and from which they are sent to. Groups that name the same address share it, and then
	// must not allow the same sources. At least the one for Transport is required.
	Bind Addresses `yaml:"bind"`
	// Advertised holds the names or addresses, each "host" or "host:port", under which peers reach the addresses in Bind: they stand in Via and
	// Contact. Behind NAT the public address; for Microsoft the trunk's full name. Default what Bind says.
	Advertised Addresses `yaml:"advertised"`
	// Insecure permits SIP without TLS on an address that is not loopback. Default false. The log repeats it at each start.
	Insecure bool `yaml:"insecure"`
	// TLS is how this side identifies itself and whom it trusts. Required with tls anywhere in Bind.
	TLS TLS `yaml:"tls"`
	// Peers are the group's peers. A group without peers only receives.
	Peers []Peer `yaml:"peers"`
	// AllowedSources are the address ranges (CIDR) from which requests are taken, besides the peers' own addresses. Default none. Requests from elsewhere
	// are dropped unanswered.
	AllowedSources []string `yaml:"allowedSources"`
	// Options is how peers are watched.
	Options Options `yaml:"options"`
	// MaxCalls is the most calls at one time from and to this group. Default 0: only the limit of the whole edge.
	MaxCalls int `yaml:"maxCalls"`
	// MaxCallsPerSecond is the most new calls in one second from this group. Default 0: only the limit of the whole edge.
	MaxCallsPerSecond int `yaml:"maxCallsPerSecond"`
	// Refer says what becomes of a REFER from this group inside a call: "refuse" (403), "relay" (passed to the other end as it is). Default "refuse", and Allow
	// lines sent to the group then do not name REFER.
	Refer string `yaml:"refer"`
	// BehindNAT is for peers behind NAT that write an address of their own network into Contact. Where that address cannot be reached
	// (0.0.0.0; a private, shared, loopback or link-local address, unless the peer sends from the same range), requests in a call go to
	// the address and port that the peer's requests come from, or that its INVITE went to. Default false: they go
	// where Contact says.
	BehindNAT bool `yaml:"behindNat"`
	// FailoverAfter overrides timers.failoverAfter for this group. Default 0: it does not.
	FailoverAfter time.Duration `yaml:"failoverAfter"`
	// Numbers says how the numbers that this group writes without "+" become E.164, in what is decided and in what
	// leaves on the other side. Default: they do not; a called number without "+" is refused, a calling one passes as
	// it is.
	Numbers route.Numbers `yaml:"numbers"`
}

// Addresses holds one address for each transport; an empty one is not used.
type Addresses struct {
	// UDP is the address for SIP over UDP, "ip:port"; port 0 takes a free one.
	UDP string `yaml:"udp"`
	// TCP is the address for SIP over TCP, "ip:port"; port 0 takes a free one.
	TCP string `yaml:"tcp"`
	// TLS is the address for SIP over TLS, "ip:port"; port 0 takes a free one.
	TLS string `yaml:"tls"`
}

// TLS is a group's identity and trust.
type TLS struct {
	// CertificateFile is the PEM file with this side's certificate, followed by its chain. It is read again when it changes.
	CertificateFile string `yaml:"certificateFile"`
	// KeyFile is the PEM file with the certificate's private key.
	KeyFile string `yaml:"keyFile"`
	// RootsFile is the PEM file with the authorities that peers' certificates must come from. Default: the operating system's.
	RootsFile string `yaml:"rootsFile"`
	// ClientCertificates says what is asked of peers that connect: "require" (a certificate from the roots) or "optional" (one is verified if it is
	// shown). Default "require".
	ClientCertificates string `yaml:"clientCertificates"`
	// PeerNames are names of which a connecting peer's certificate must carry one; "*.example.net" matches one label. A
	// certificate carries the hosts of its sip URIs; without such its DNS names; without alternative names its common
	// name (RFC 5922 §7.1). Default none: any certificate from Roots, together with AllowedSources, will do.
	PeerNames []string `yaml:"peerNames"`
}

// Peer is one place calls can be sent to.
type Peer struct {
	// Name names the peer in metrics, records and the log: 1 to 32 letters, digits, "-" or "_". Default its address.
	Name string `yaml:"name"`
	// Type says what Address is: "ip" (an address), "a" (a host name) or "srv" (a domain with SRV records, or a whole "_sip._tls.name"). Default
	// by its look: an address is "ip", a name with a port is "a", a name without is "srv".
	Type string `yaml:"type"`
	// Address is "ip:port", "name:port" or "name". Without a port it is 5061 for TLS, else 5060; "srv" takes no port. Required.
	Address string `yaml:"address"`
	// CertificateName is the name that the peer's certificate must carry on connections to it. Default the name in Address; for type ip the
	// address itself. TLS only.
	CertificateName string `yaml:"certificateName"`
	// Priority orders peers: 0 is tried first. Default 0.
	Priority int `yaml:"priority"`
	// Weight shares calls between peers of the same priority, in proportion: 1 to 65535. Default 1.
	Weight int `yaml:"weight"`
	// AllowedSources are further address ranges (CIDR) this peer sends from. Default none.
	AllowedSources []string `yaml:"allowedSources"`
	// Passive is for a peer that does not answer OPTIONS: it is not asked, and only calls tell whether it works. Default false.
	Passive bool `yaml:"passive"`
}

// Options is how peers are watched.
type Options struct {
	// Every is the time between two OPTIONS to one address of a peer. Default 30s. Teams forgets a trunk after three minutes without.
	Every time.Duration `yaml:"every"`
	// Timeout is how long an answer may take. Default 4s.
	Timeout time.Duration `yaml:"timeout"`
	// DownAfter is how many failures in a row take an address out of first choice. Default 2.
	DownAfter int `yaml:"downAfter"`
	// UpAfter is how many successes in a row bring it back. Default 2.
	UpAfter int `yaml:"upAfter"`
	// Off sends no OPTIONS to the group at all. Default false.
	Off bool `yaml:"off"`
}

// Default returns the configuration that an empty file means.
func Default() Config {
	return Config{
		Node:      "n1",
		UserAgent: "Tandem",
		Limits: Limits{MaxCalls: 20000, MaxCallsPerSecond: 2000, RetryAfter: 5 * time.Second, ConnectionsPerSource: 1000,
			Message: sip.DefaultLimits()},
		Timers: Timers{FailoverAfter: 4 * time.Second, SetupTimeout: 32 * time.Second, RingTimeout: 185 * time.Second,
			MaxDuration: 24 * time.Hour, ProbeEvery: 15 * time.Minute},
	}
}
