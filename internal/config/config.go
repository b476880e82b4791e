// Package config is the configuration file: it combines the Config types of all packages into one strict YAML document,
// reads it, checks everything at once, and shows and documents it. It builds no objects: package node does, and the
// check of what objects need is that of the package that owns them.
//
// Packages own their settings, defaults, documentation and checks; this package adds those of the process as a whole:
// the data directory, roles, HTTP listeners, logging and shutdown. Package strict reads and writes YAML. Main type:
// Config; main function: Load, which reads one.
package config

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tandemgw/tandem/internal/calls/edge"
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/replica"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/provisioning/provapi"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/nameserver"
	"github.com/tandemgw/tandem/internal/zone/update"
)

//go:generate go run ./docgen
//go:generate go run ./docgen -reference

// Config is the whole configuration file.
type Config struct {
	// Data is the directory that holds everything Tandem keeps: the SQLite database, the number index's snapshots, call
	// records, keys and the management socket. Path. Default /var/lib/tandem when root, otherwise
	// $XDG_STATE_HOME/tandem or ~/.local/state/tandem. One process at a time may use it: tandem serve locks it. The
	// option --data and the variable TANDEM_DATA set it too.
	Data string `yaml:"data"`
	// Roles are the parts of Tandem that this process runs: "api" (Provisioning API and token endpoint), "edge" (SIP),
	// "worker" (maintenance of the database, and work on outside systems), "dns" (name server, if zone is set), "front"
	// (public front, if front.listen is set). Default all of them. On SQLite all must run in one process.
	Roles []string `yaml:"roles"`
	// Log is how the process logs, on standard error.
	Log Log `yaml:"log"`
	// Shutdown bounds the stages of a graceful shutdown.
	Shutdown Shutdown `yaml:"shutdown"`
	// Metrics serves Prometheus metrics at /metrics, and /healthz and /readyz.
	Metrics Listener `yaml:"metrics"`
	// Manage serves the management API, in addition to the Unix socket in the data directory.
	Manage Manage `yaml:"manage"`
	// Provisioning is the Provisioning API.
	Provisioning Provisioning `yaml:"provisioning"`
	// Front is the public front of processes with the role "front": the HTTPS server for pages and endpoints that
	// strangers on the Internet reach, at onboard.<base domain>. It has none of the APIs.
	Front Front `yaml:"front"`
	// Auth says whose tokens the Provisioning API and the management API accept.
	Auth auth.Config `yaml:"auth"`
	// Secrets is how secrets are encrypted at rest.
	Secrets secret.Config `yaml:"secrets"`
	// Database stores accounts, numbers, clients and the audit log.
	Database db.Config `yaml:"database"`
	// Feed is the change feed that tells the edges about changes.
	Feed outbox.Config `yaml:"feed"`
	// Calls is the SIP edge.
	Calls Calls `yaml:"calls"`
	// Certificates are obtained and renewed by ACME (RFC 8555). Listeners and peer groups name them instead of files.
	// Requires that Tandem publishes the zone, or has zone.update. All nodes need the same.
	Certificates certificate.Config `yaml:"certificates"`
	// Zone is the DNS zone of the base domain (calls.routing.baseDomain). Without nameServers, Tandem neither publishes
	// nor checks anything.
	Zone Zone `yaml:"zone"`
	// Onboarding is how customers' Microsoft 365 tenants are onboarded to Direct Routing.
	Onboarding Onboarding `yaml:"onboarding"`
}

// Zone is the DNS zone of the base domain.
type Zone struct {
	// Publish says how the names get into DNS: "serve" (processes with the role "dns" answer, and secondaries transfer
	// the zone from them), "update" (Tandem adds them to a zone that the operator's name servers have, and removes
	// them) or "none" (the operator publishes them; Tandem only checks that the name servers answer as they should).
	// Default "serve".
	Publish string `yaml:"publish"`
	// Names are what the zone contains besides the names of customers.
	Names zone.Names `yaml:",inline"`
	// CheckEvery is how often the name servers are asked for the zone, and for the names of customers that not all of
	// them answer as they should (subdomainStatus); those of all others are asked for every hour. 1s to 10m; default
	// 30s.
	CheckEvery time.Duration `yaml:"checkEvery"`
	// Parents are the addresses, "ip:port", of name servers of the parent zone, for checks of the delegation. Default
	// none: the system's resolver finds them.
	Parents []string `yaml:"parents"`
	// Server is how processes with the role "dns" answer.
	Server nameserver.Config `yaml:",inline"`
	// Update is how the operator's zone is updated. Required if publish is "update". With "none", its server and key
	// are those by which the values of ACME challenges are put where the operator's CNAMEs at _acme-challenge lead;
	// default there none. Not used with "serve".
	Update update.Config `yaml:"update"`
}

// The values of Zone.Publish.
const (
	PublishServe  = "serve"
	PublishUpdate = "update"
	PublishNone   = "none"
)

// Enabled reports whether there is a zone.
func (z *Zone) Enabled() bool { return len(z.Names.NameServers) > 0 }

// Published reports whether Tandem publishes the names of the zone.
func (z *Zone) Published() bool { return z.Enabled() && z.Publish != PublishNone }

// Updates reports whether Tandem updates a zone of the operator: with all names, or only with the values of challenges.
func (z *Zone) Updates() bool {
	return z.Publish == PublishUpdate || z.Publish == PublishNone && z.Update.Server != ""
}

// problems returns every mistake, for a base domain with Direct Routing regions.
func (z *Zone) problems(base string, regions []string) (errs fault.Problems) {
	served := len(z.Server.Listen) + len(z.Server.Secondaries)
	if z.Enabled() || z.Publish == PublishUpdate || z.Publish == PublishNone || served+len(z.Names.Regions) > 0 {
		if base == "" {
			errs.Add("", "is the zone of calls.routing.baseDomain, which is not set; set it")
		}
		errs = append(errs, z.Names.Validate(base, regions, z.Publish != PublishNone)...)
		if z.Publish == PublishServe && z.Names.Contact == "" {
			errs.Add("contact", "is missing; name a mail address for the zone's SOA record")
		}
	}
	switch {
	case z.Publish != PublishServe && z.Publish != PublishUpdate && z.Publish != PublishNone:
		errs.Add("publish", "%q is unknown; use serve, update or none", z.Publish)
	case z.Publish != PublishServe && served > 0:
		errs.Add("publish", "is %s, so Tandem serves no zone; remove listen and secondaries, or use serve", z.Publish)
	}
	if z.Updates() {
		for _, err := range z.Update.Validate(base) {
			f := fault.As(err)
			if z.Publish == PublishNone && f.Target == "zone" {
				f.Message = "is for publish: update; with none the server is asked for the zones to which the CNAMEs " +
					"lead; remove it"
			}
			errs.Add("update."+f.Target, "%s", f.Message)
		}
	}

	for i, a := range z.Parents {
		if x, err := netip.ParseAddrPort(a); err != nil || x.Port() == 0 {
			errs.Add(fmt.Sprintf("parents[%d]", i), "%q is not an address; use ip:port", a)
		}
	}
	if z.CheckEvery < time.Second || z.CheckEvery > 10*time.Minute {
		errs.Add("checkEvery", "%v is out of range; use 1s to 10m", z.CheckEvery)
	}

	return append(errs, z.Server.Validate()...)
}

// Calls is the SIP edge.
type Calls struct {
	Edge edge.Config `yaml:",inline"`
	// Routing decides where calls go.
	Routing route.Config `yaml:"routing"`
	// Headers are the deployment-wide header settings.
	Headers leg.Config `yaml:"headers"`
	// Records are the call records on disk.
	Records record.Config `yaml:"records"`
	// DNS is how the names of peers are resolved.
	DNS DNS `yaml:"dns"`
	// Index is the number index in memory and its snapshots.
	Index replica.Config `yaml:"index"`
}

// DNS is how the names of peers are resolved.
type DNS struct {
	// Servers are the recursive name servers to query, "ip:port", in order. Default none: the system's resolver, whose
	// answers are cached for 30 s because it does not report their time to live.
	Servers []string `yaml:"servers"`
	// Timeout bounds one query to one server. 100ms to 10s; default 2s. Calls never wait for an answer: names are
	// resolved in advance and cached.
	Timeout time.Duration `yaml:"timeout"`
	// IPv6 queries AAAA records too. Default false.
	IPv6 bool `yaml:"ipv6"`
}

// Provisioning is the Provisioning API.
type Provisioning struct {
	Listener `yaml:",inline"`
	// Sources are the addresses that may use the API.
	Sources auth.SourcesConfig `yaml:",inline"`
	// API configures the API.
	API provapi.Config `yaml:",inline"`
}

// Manage is the management API.
type Manage struct {
	Listener `yaml:",inline"`
	// Sources are the addresses that may use the API, and /healthz and /readyz here.
	Sources auth.SourcesConfig `yaml:",inline"`
	// RequestsPerMinute is the rate limit over all clients of this node with a valid token. Number, 1 to 1000000;
	// default 600. Requests above it are answered 429 with Retry-After.
	RequestsPerMinute int `yaml:"requestsPerMinute"`
}

// Front is the public front.
type Front struct {
	Listener `yaml:",inline"`
	// Sources are the addresses that may use the front.
	Sources auth.SourcesConfig `yaml:",inline"`
	// RequestsPerMinutePerSource is the maximum number of requests of one address (IPv6: of one /64) to this node in a
	// minute. Number, 1 to 1000000; default 120. Requests above it are answered 429 with Retry-After.
	RequestsPerMinutePerSource int `yaml:"requestsPerMinutePerSource"`
}

// Listener is an HTTP server.
type Listener struct {
	// Listen is the address to serve on, "ip:port" or ":port" for every address; port 0 chooses a free one, and "off"
	// disables the listener. Default provisioning 127.0.0.1:8080, manage 127.0.0.1:8081, metrics 127.0.0.1:9464, front
	// off.
	Listen string `yaml:"listen"`
	// CertificateFile is the PEM file with the server's certificate, followed by its chain. It is read again when it
	// changes. Default none: plain HTTP.
	CertificateFile string `yaml:"certificateFile"`
	// KeyFile is the PEM file with the certificate's private key. Required with certificateFile.
	KeyFile string `yaml:"keyFile"`
	// Certificate is, instead of the two files, the name of a certificate that Tandem obtains (certificates.order),
	// such as "provapi". Default none. TLS connections fail until it has been obtained.
	Certificate string `yaml:"certificate"`
	// Insecure permits plain HTTP on an address that is not loopback: anyone who can eavesdrop on the network can read
	// the tokens. Default false. Every start logs a warning about it.
	Insecure bool `yaml:"insecure"`
	// MaxConnections is the maximum number of concurrent connections. Number, 8 to 100000; default provisioning 1000,
	// manage 400, metrics 400, front 1000. All HTTP listeners together use at most half of the file descriptors that
	// files and the database leave; if that is less, the start logs a warning. When the limit is reached, the
	// connection that has been idle longest is closed in favour of a new one, unless a request on it had a valid token.
	MaxConnections int `yaml:"maxConnections"`
	// MaxConnectionsPerSource is the maximum number of concurrent connections of one address (IPv6: of one /64).
	// Number, 1 to maxConnections; default 100, front 30. An address in trustedProxies may have maxConnections, one
	// outside allowedSources 4.
	MaxConnectionsPerSource int `yaml:"maxConnectionsPerSource"`
}

// Log is how the process logs.
type Log struct {
	// Level is the minimum level of logged lines: "debug", "info", "warn" or "error". Default "info".
	Level string `yaml:"level"`
	// Levels overrides level for single parts of the process: "auth", "certificates", "database", "directory", "dns",
	// "edge", "feed", "front", "index", "manage", "metrics", "provisioning", "records", "socket", "tenants", "work" or
	// "zone", as in the attribute part of a line. Default none. Example: {edge: debug}.
	Levels map[string]string `yaml:"levels"`
	// Format is "text" (key=value) or "json", one object per line. Default "text".
	Format string `yaml:"format"`
	// Numbers is "redacted" (the last four digits of phone numbers are hidden) or "full". Default "redacted": phone
	// numbers are personal data, and logs are often passed on.
	Numbers string `yaml:"numbers"`
}

// Shutdown bounds the stages of a graceful shutdown.
type Shutdown struct {
	// LameDuck is how long, after the first SIGTERM or Ctrl-C, calls and requests are still accepted while /readyz is
	// 503 and OPTIONS is answered 503, so that load balancers and peers send them elsewhere before they are refused. 0s
	// to 10m; default 0s: no wait. Behind a load balancer, set its check interval times the failures it needs, plus a
	// second: 11s for two failures 5 s apart.
	LameDuck time.Duration `yaml:"lameDuck"`
	// Drain is how long calls and requests may continue after that, while new ones are refused. Default 5m. A second
	// signal ends both waits at once.
	Drain time.Duration `yaml:"drain"`
	// Cut is how long parts may take to stop after that, before the process exits without them. Default 10s.
	Cut time.Duration `yaml:"cut"`
}

// The roles.
const (
	RoleAPI    = "api"
	RoleEdge   = "edge"
	RoleWorker = "worker"
	RoleDNS    = "dns"
	RoleFront  = "front"
)

// Roles returns every role, in the order they are started.
func Roles() []string { return []string{RoleAPI, RoleEdge, RoleWorker, RoleDNS, RoleFront} }

// LogParts returns the names of the parts of the process in log.levels and in the attribute part of log lines.
func LogParts() []string {
	return []string{"auth", "certificates", "database", "directory", "dns", "edge", "feed", "front", "index", "manage",
		"metrics", "provisioning", "records", "socket", "tenants", "work", "zone"}
}

// Off is the value of Listen that disables a listener.
const Off = "off"

// Default returns the configuration of an empty file. dataDir is the default data directory.
func Default(dataDir string) Config {
	return Config{
		Data:         dataDir,
		Roles:        Roles(),
		Log:          Log{Level: "info", Format: "text", Numbers: "redacted"},
		Shutdown:     Shutdown{Drain: 5 * time.Minute, Cut: 10 * time.Second},
		Metrics:      listener("127.0.0.1:9464", 400),
		Manage:       Manage{Listener: listener("127.0.0.1:8081", 400), RequestsPerMinute: 600},
		Provisioning: Provisioning{Listener: listener("127.0.0.1:8080", 1000), API: provapi.Default()},
		Front: Front{Listener: Listener{Listen: Off, MaxConnections: 1000, MaxConnectionsPerSource: 30},
			RequestsPerMinutePerSource: 120},
		Auth:     auth.Default(),
		Secrets:  secret.Default(),
		Database: db.Default(),
		Feed:     outbox.Default(),
		Calls: Calls{
			Edge:    edge.Default(),
			Routing: route.Default(),
			Headers: leg.Default(),
			Records: record.Default(),
			DNS:     DNS{Timeout: 2 * time.Second},
			Index:   replica.Default(),
		},
		Zone:       Zone{Publish: PublishServe, CheckEvery: 30 * time.Second, Server: nameserver.Default()},
		Onboarding: defaultOnboarding(),
	}
}

func listener(listen string, connections int) Listener {
	return Listener{Listen: listen, MaxConnections: connections, MaxConnectionsPerSource: 100}
}

// loopbackGroup returns the peer group of a configuration that has none: the operator's core on the default ports of
// this machine alone, so that tandem serve without a file accepts calls from local tools.
func loopbackGroup() edge.Group {
	return edge.Group{
		Name: "core", Transport: "udp",
		Bind:           edge.Addresses{UDP: "127.0.0.1:5060", TCP: "127.0.0.1:5060", TLS: "127.0.0.1:5061"},
		TLS:            edge.TLS{ClientCertificates: "optional"},
		AllowedSources: []string{"127.0.0.0/8"},
	}
}
