package edge

import (
	"time"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
)

// Config is the edge's part of the configuration file.
type Config struct {
	// Node names this node in the tags it creates, so that a request for another node's dialog is recognised: 1 to 16
	// letters and digits. Default "n1". Nodes that share one host name must have different names.
	Node string `yaml:"node"`
	// Groups are the peer groups: the operator's core network and the communications services, each a set of peers
	// reached in the same way. Default none: the node does not listen for SIP and accepts no calls.
	Groups []Group `yaml:"groups"`
	// Limits bound the number of calls and connections, and the size of messages.
	Limits Limits `yaml:"limits"`
	// Timers bound how long calls, their phases and their peers' responses may take.
	Timers Timers `yaml:"timers"`
	// UserAgent is the value of Server in responses and of User-Agent in requests that Tandem creates itself; those it
	// relays keep their own. Default "Tandem". "-" sends neither.
	UserAgent string `yaml:"userAgent"`
}

// Limits bound what the edge accepts; calls above a limit get 503 with Retry-After and the reason.
type Limits struct {
	// MaxCalls is the maximum number of calls at a time, in setup or answered. Default 20000; a call takes about 6 KiB.
	MaxCalls int `yaml:"maxCalls"`
	// MaxCallsPerSecond is the maximum number of new calls per second. Default 2000.
	MaxCallsPerSecond int `yaml:"maxCallsPerSecond"`
	// RetryAfter is how long a refused peer is asked to wait, in whole seconds. Default 5s.
	RetryAfter time.Duration `yaml:"retryAfter"`
	// ConnectionsPerSource is the maximum number of TCP and TLS connections that one address may have open to this
	// node; further ones are closed at once, counted and logged. 1 to 1000000, default 1000.
	ConnectionsPerSource int `yaml:"connectionsPerSource"`
	// Message bounds the parts of received SIP messages.
	Message sip.Limits `yaml:"message"`
}

// Timers bound how long calls, their phases and their peers' responses may take.
type Timers struct {
	// FailoverAfter is how long a peer may be silent after an INVITE, without even a 100, before the next one is tried.
	// Default 4s. It should be below the calling side's time limit (Teams: 10s) divided by the number of peers to try.
	FailoverAfter time.Duration `yaml:"failoverAfter"`
	// SetupTimeout is how long a peer may take for its first response other than 100; then the next peer is tried, and
	// after the last one the call is refused with 408. Default 32s; 0 leaves it to failoverAfter and ringTimeout.
	SetupTimeout time.Duration `yaml:"setupTimeout"`
	// RingTimeout is how long a call may ring: each provisional response restarts it (RFC 3261 timer C). Default 3m5s.
	RingTimeout time.Duration `yaml:"ringTimeout"`
	// MaxDuration is the maximum duration of an answered call; then both sides get BYE. Default 24h; 0 is no limit.
	MaxDuration time.Duration `yaml:"maxDuration"`
	// ProbeEvery is how often each side of an answered call is asked by an OPTIONS in the dialog whether it still knows
	// the call; if it does not, both sides get BYE. Passive peers and groups with options.off are not asked. Default
	// 15m; with 0, no side is asked and dead calls end by session timers and maxDuration only.
	ProbeEvery time.Duration `yaml:"probeEvery"`
}

// Group is a peer group: peers that are reached in the same way and share settings.
type Group struct {
	// Name names the group in configuration, metrics and records: 1 to 32 letters, digits, "-" or "_". Required.
	Name string `yaml:"name"`
	// Service is the communications service on the other side, by its name in the Provisioning API (such as
	// "teamsDirectRouting"). Empty, the default, is the operator's core network.
	Service string `yaml:"service"`
	// Transport is the transport of requests to the group: "udp", "tcp" or "tls". Default "tls". "udp" and "tcp" beyond
	// loopback need insecure: true.
	Transport string `yaml:"transport"`
	// Bind holds the local addresses on which the group receives, and from which it sends. Groups with the same address
	// share it, and then must not allow the same sources. At least the address for transport is required.
	Bind Addresses `yaml:"bind"`
	// Advertised holds the names or addresses, each "host" or "host:port", under which peers reach the addresses in
	// bind; Via and Contact carry them. Behind NAT the public address; for Microsoft the trunk's full name. Default the
	// addresses in bind.
	Advertised Addresses `yaml:"advertised"`
	// Insecure permits SIP without TLS on a non-loopback address. Default false. The log has a warning at each start.
	Insecure bool `yaml:"insecure"`
	// TLS holds this side's certificate and the authorities it trusts: the identity of the group. A certificate belongs
	// to a TLS address; groups that need different ones have different addresses or ports. Required if bind has a TLS
	// address, unless another group on that address has it.
	TLS TLS `yaml:"tls"`
	// Peers are the group's peers. A group without peers only receives calls.
	Peers []Peer `yaml:"peers"`
	// AllowedSources are the address ranges (CIDR) from which requests are accepted, besides the peers' own addresses.
	// Default none. Requests from other sources are dropped unanswered.
	AllowedSources []string `yaml:"allowedSources"`
	// Options says how peers are monitored by OPTIONS.
	Options Options `yaml:"options"`
	// MaxCalls is the maximum number of concurrent calls from and to this group. Default 0: only the limit of the whole
	// edge.
	MaxCalls int `yaml:"maxCalls"`
	// MaxCallsPerSecond is the maximum number of new calls per second from this group. Default 0: only the limit of the
	// whole edge.
	MaxCallsPerSecond int `yaml:"maxCallsPerSecond"`
	// Refer says what happens to a REFER from this group within a call: "refuse" (403) or "relay" (sent unchanged to
	// the other side). Default "refuse"; Allow in messages to the group then does not list REFER.
	Refer string `yaml:"refer"`
	// BehindNAT is for peers behind NAT that write an address of their own network into Contact. If that address cannot
	// be reached (0.0.0.0; a private, shared, loopback or link-local address, unless the peer sends from the same
	// range), requests in a call go to the address and port from which the peer's requests arrive, or to which its
	// INVITE was sent. Default false: they go to the address in Contact.
	BehindNAT bool `yaml:"behindNat"`
	// FailoverAfter overrides timers.failoverAfter for this group. Default 0: no override.
	FailoverAfter time.Duration `yaml:"failoverAfter"`
	// Numbers says how numbers from this group without "+" become E.164, for routing and in the messages sent to the
	// other side. Default: they do not; a called number without "+" is refused, a calling one is relayed unchanged.
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

// TLS is a group's certificate and trust.
type TLS struct {
	// CertificateFile is the PEM file with this side's certificate, followed by its chain: presented to peers that
	// connect, and to those that ask for one when Tandem connects. Services ask for one of a public authority. A core
	// that requires client authentication needs one of a private authority, because public ones no longer issue any.
	// Default that of another group on the same TLS address; on a loopback address a generated one. It is reloaded when
	// it changes.
	CertificateFile string `yaml:"certificateFile"`
	// KeyFile is the PEM file with the certificate's private key. Default as for certificateFile.
	KeyFile string `yaml:"keyFile"`
	// Certificate is, instead of the two files, the name of a certificate that Tandem obtains (certificates.order),
	// such as "1r1". Such certificates do not allow client authentication: use files for a core that requires it.
	// Default none. TLS connections fail until it has been obtained.
	Certificate string `yaml:"certificate"`
	// RootsFile is the PEM file with the authorities that must have issued the peers' certificates. Default: those of
	// the operating system; with an inherited certificate those of the group that names it.
	RootsFile string `yaml:"rootsFile"`
	// ClientCertificates says what connecting peers must present: "require" (a certificate issued under rootsFile) or
	// "optional" (a certificate is verified if presented). Default "require".
	ClientCertificates string `yaml:"clientCertificates"`
	// PeerNames are names of which a connecting peer's certificate must carry one; "*.example.net" matches one label.
	// The names of a certificate are the hosts of its sip URIs; without such its DNS names; without alternative names
	// its common name (RFC 5922 §7.1). Default none: any certificate issued under rootsFile is accepted from allowed
	// sources.
	PeerNames []string `yaml:"peerNames"`
}

// Peer is one destination for calls.
type Peer struct {
	// Name names the peer in metrics, records and the log: 1 to 32 letters, digits, "-" or "_". Default its address.
	Name string `yaml:"name"`
	// Type says what address is: "ip" (an address), "a" (a host name) or "srv" (a domain with SRV records, or a full
	// "_sip._tls.name"). Default by its form: an address is "ip", a name with a port is "a", a name without is "srv".
	Type string `yaml:"type"`
	// Address is "ip:port", "name:port" or "name". The default port is 5061 for TLS, else 5060; "srv" takes no port.
	// Required.
	Address string `yaml:"address"`
	// CertificateName is the name that the peer's certificate must carry on connections to it. Default the name in
	// address; for type ip the address itself. TLS only.
	CertificateName string `yaml:"certificateName"`
	// Priority orders peers: 0 is tried first. Default 0.
	Priority int `yaml:"priority"`
	// Weight distributes calls among peers of the same priority, in proportion: 1 to 65535. Default 1.
	Weight int `yaml:"weight"`
	// AllowedSources are further address ranges (CIDR) this peer sends from. Default none.
	AllowedSources []string `yaml:"allowedSources"`
	// Passive is for a peer that does not answer OPTIONS: none are sent, and only calls show whether it is available.
	// Default false.
	Passive bool `yaml:"passive"`
}

// Options says how peers are monitored by OPTIONS.
type Options struct {
	// Every is the time between two OPTIONS to one address of a peer. Default 30s. Teams drops a trunk after three
	// minutes without OPTIONS.
	Every time.Duration `yaml:"every"`
	// Timeout is how long to wait for a response. Default 4s.
	Timeout time.Duration `yaml:"timeout"`
	// DownAfter is the number of consecutive failures after which an address is down and tried last. Default 2.
	DownAfter int `yaml:"downAfter"`
	// UpAfter is the number of consecutive successes after which it is up again. Default 2.
	UpAfter int `yaml:"upAfter"`
	// Off disables OPTIONS to the group. Default false.
	Off bool `yaml:"off"`
}

// Default returns the default configuration.
func Default() Config {
	return Config{
		Node:      "n1",
		UserAgent: "Tandem",
		Limits: Limits{MaxCalls: 20000, MaxCallsPerSecond: 2000, RetryAfter: 5 * time.Second,
			ConnectionsPerSource: 1000, Message: sip.DefaultLimits()},
		Timers: Timers{FailoverAfter: 4 * time.Second, SetupTimeout: 32 * time.Second, RingTimeout: 185 * time.Second,
			MaxDuration: 24 * time.Hour, ProbeEvery: 15 * time.Minute},
	}
}
