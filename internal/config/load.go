package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/calls/edge"
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/config/strict"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/services"
)

// Source says where a configuration comes from.
type Source struct {
	File string   // path of the YAML file; empty for none
	Text []byte   // its content, when already read
	Set  []string // "path=value", applied over the file in order
	Data string   // data directory, over file and Set; empty for none
	Env  []string // environment, as os.Environ
	// Machine also checks that what the configuration names on this machine is usable now: certificates, keys, roots
	// and environment variables. Without it the configuration may be that of another machine.
	Machine bool
	// Starting, with Machine, accepts certificates that have expired or are not valid yet: a process that starts with
	// them carries the calls that need none.
	Starting bool
	// FreePorts uses a free loopback port for every listener instead of the configured address.
	FreePorts bool
}

// Getenv returns the value of an environment variable; empty if it is not set.
func (s *Source) Getenv(key string) string { return Lookup(s.Env, key) }

// Loaded is a configuration that was read and checked.
type Loaded struct {
	Config
	Source Source
	// Generated lists the peer groups, by name, that use the generated loopback certificate because they name none.
	Generated []string
	// Warnings are what may fail although the configuration is valid; only with Source.Machine.
	Warnings strict.Problems
}

// DefaultData returns the data directory of a process for which none is configured.
func DefaultData(env []string) string {
	if d := Lookup(env, "TANDEM_DATA"); d != "" {
		return d
	}
	if os.Geteuid() == 0 {
		return "/var/lib/tandem"
	}
	if d := Lookup(env, "XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "tandem")
	}
	if home := Lookup(env, "HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "tandem")
	}
	return "tandem-data"
}

// Lookup returns the value of a variable in an environment in the form of os.Environ. If the variable is set more than
// once, the last one counts.
func Lookup(env []string, key string) string {
	for _, kv := range slices.Backward(env) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == key {
			return v
		}
	}
	return ""
}

// Load reads and checks a configuration. The error is strict.Problems, with every mistake at once.
func Load(src Source) (*Loaded, error) {
	l := &Loaded{Config: Default(DefaultData(src.Env)), Source: src}
	doc := strict.NewDocument()
	var problems strict.Problems
	if src.File != "" {
		text := src.Text
		if text == nil {
			var err error
			if text, err = os.ReadFile(src.File); err != nil {
				hint := "check the path and its permissions"
				if errors.Is(err, fs.ErrNotExist) {
					hint = "there is no such file; tandem config example prints one to start from"
				}
				message := fmt.Sprintf("cannot be read (%v); %s", err, hint)
				return nil, strict.Problems{{Source: src.File, Message: message}}
			}
		}
		doc, problems = strict.Decode(src.File, text, &l.Config)
	}
	for _, s := range src.Set {
		problems = append(problems, doc.Set("--set", s, &l.Config)...)
	}
	if src.Data != "" {
		l.Data = src.Data
	}
	if len(l.Calls.Edge.Groups) == 0 && l.Has(RoleEdge) {
		l.Calls.Edge.Groups = []edge.Group{loopbackGroup()}
	}
	l.Calls.Routing.Regions = route.Regions(l.Calls.Routing.Regions)
	if src.FreePorts && len(problems) == 0 {
		if err := l.freePorts(); err != nil {
			return nil, strict.Problems{{Source: "--free-ports", Message: err.Error()}}
		}
	}
	l.paths()
	// A problem of the whole document means that hardly anything was read.
	if !slices.ContainsFunc(problems, func(p strict.Problem) bool { return p.Path == "" }) {
		unread := unread{problems, doc}
		for _, p := range l.validate(doc, len(problems) > 0 && unread.groups()) {
			if !unread.explains(p.Path) {
				problems = append(problems, p)
			}
		}
	}
	if len(problems) > 0 {
		problems.Sort()
		return nil, problems
	}
	return l, nil
}

// unread is what could not be read of a document. Mistakes in the rest may be consequences of it: those are not
// reported until it is fixed, so that every reported mistake is a real one.
type unread struct {
	problems strict.Problems
	doc      *strict.Document
}

// explains reports whether a mistake at path may result from what was not read: from path itself, from something in or
// around it, or because an unknown key was meant for what is missing at path.
func (u unread) explains(path string) bool {
	return slices.ContainsFunc(u.problems, func(p strict.Problem) bool {
		if within(path, p.Path) || within(p.Path, path) {
			return true
		}
		around := strict.Parent(p.Path)
		return within(path, around) && !u.doc.Has(child(around, path))
	})
}

// groups reports whether peer groups may be missing or nameless, so that references to them cannot be checked.
func (u unread) groups() bool {
	return slices.ContainsFunc(u.problems, func(p strict.Problem) bool {
		return within("calls.groups", p.Path) || within(p.Path, "calls.groups") || strict.Parent(p.Path) == "calls"
	})
}

// within reports whether path equals around or is below it.
func within(path, around string) bool {
	rest, ok := strings.CutPrefix(path, around)
	return ok && (rest == "" || around == "" || rest[0] == '.' || rest[0] == '[')
}

// child returns the first step below around on the way to path, which is below it.
func child(around, path string) string {
	for strict.Parent(path) != around {
		path = strict.Parent(path)
	}
	return path
}

// Has reports whether the process runs the role.
func (c *Config) Has(role string) bool { return slices.Contains(c.Roles, role) }

// Path returns p below the data directory, or p itself when it is absolute or empty.
func (c *Config) Path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.Data, p)
}

// GeneratedCertificate and GeneratedKey are the files of the generated loopback certificate, below the data directory.
const (
	GeneratedCertificate = "tls/loopback.pem"
	GeneratedKey         = "tls/loopback.key"
)

// paths makes paths relative to the data directory absolute, and sets the generated certificate where one is needed.
func (l *Loaded) paths() {
	if d, err := filepath.Abs(l.Data); err == nil && l.Data != "" {
		l.Data = d
	}
	l.Calls.Records.Directory = l.Path(cmp.Or(l.Calls.Records.Directory, "calls"))
	if l.Database.Driver == db.SQLite && l.Database.File == "" {
		l.Database.File = "tandem.db"
	}
	l.Database.File = l.Path(l.Database.File)
	l.Calls.Edge.InheritCertificates()
	for i := range l.Calls.Edge.Groups {
		g := &l.Calls.Edge.Groups[i]
		if g.Bind.TLS != "" && !g.TLS.Named() && loopback(g.Bind.TLS) {
			g.TLS.CertificateFile, g.TLS.KeyFile = l.Path(GeneratedCertificate), l.Path(GeneratedKey)
			g.TLS.RootsFile = cmp.Or(g.TLS.RootsFile, g.TLS.CertificateFile)
			l.Generated = append(l.Generated, g.Name)
		}
	}
}

// reports returns functions that add to ps.
func reports(doc *strict.Document, ps *strict.Problems) (report, reportAll) {
	bad := func(path, format string, args ...any) { *ps = append(*ps, doc.At(path, format, args...)) }
	return bad, func(prefix string, errs []error) {
		for _, err := range errs {
			f, ok := errors.AsType[*fault.Error](err)
			switch {
			case ok:
				bad(strings.TrimSuffix(prefix+"."+f.Target, "."), "%s", f.Message)
			case err != nil:
				bad(prefix, "%v", err)
			}
		}
	}
}

// validate runs the checks of every package and those of the configuration as a whole. withoutGroups skips the checks
// of references to peer groups.
func (l *Loaded) validate(doc *strict.Document, withoutGroups bool) strict.Problems {
	var ps strict.Problems
	bad, badAll := reports(doc, &ps)
	l.Warnings = nil
	_, warnAll := reports(doc, &l.Warnings)

	if l.Data == "" {
		bad("data", "is empty; name a directory")
	}
	if len(l.Roles) == 0 {
		bad("roles", "is empty; name at least one of %s", strings.Join(Roles(), ", "))
	}
	known := len(l.Roles) > 0
	for i, r := range l.Roles {
		switch {
		case slices.Contains(l.Roles[:i], r):
			known = false
			bad(fmt.Sprintf("roles[%d]", i), "role %q is listed twice; remove one", r)
		case !slices.Contains(Roles(), r):
			known = false
			bad(fmt.Sprintf("roles[%d]", i), "unknown role %q; use %s", r, strings.Join(Roles(), ", "))
		}
	}
	oneOf := func(path, got string, want ...string) {
		if !slices.Contains(want, got) {
			bad(path, "%q is not valid; use one of %s", got, strings.Join(want, ", "))
		}
	}
	levels := []string{"debug", "info", "warn", "error"}
	oneOf("log.level", l.Log.Level, levels...)
	for _, part := range slices.Sorted(maps.Keys(l.Log.Levels)) {
		oneOf("log.levels."+part, part, LogParts()...)
		oneOf("log.levels."+part, l.Log.Levels[part], levels...)
	}
	oneOf("log.format", l.Log.Format, "text", "json")
	oneOf("log.numbers", l.Log.Numbers, "redacted", "full")
	if d := l.Shutdown.LameDuck; d < 0 || d > 10*time.Minute {
		bad("shutdown.lameDuck", "%v is out of range; use 0s to 10m", d)
	}
	if l.Shutdown.Drain < 0 {
		bad("shutdown.drain", "must not be negative; 0s does not wait for calls")
	}
	if l.Shutdown.Cut <= 0 {
		bad("shutdown.cut", "must be more than 0s; parts need a moment to stop")
	}
	badAll("metrics", l.Metrics.problems())
	badAll("manage", l.Manage.Listener.problems())
	if n := l.Manage.RequestsPerMinute; n < 1 || n > 1_000_000 {
		bad("manage.requestsPerMinute", "%d is out of range; use 1 to 1000000", n)
	}
	badAll("provisioning", l.Provisioning.Listener.problems())
	badAll("front", l.Front.Listener.problems())
	if n := l.Front.RequestsPerMinutePerSource; n < 1 || n > 1_000_000 {
		bad("front.requestsPerMinutePerSource", "%d is out of range; use 1 to 1000000", n)
	}
	if l.Front.Listen != Off && l.Calls.Routing.BaseDomain == "" {
		bad("front.listen", "the front's names are below calls.routing.baseDomain, which is not set; set it, or turn "+
			"the front off")
	}
	badAll("auth", l.Auth.Validate())
	badAll("secrets", l.Secrets.Validate())
	badAll("database", l.Database.Validate())
	badAll("feed", l.Feed.Validate())
	badAll("manage", l.Manage.Sources.Validate())
	badAll("provisioning", l.Provisioning.Sources.Validate())
	badAll("front", l.Front.Sources.Validate())
	badAll("provisioning", l.Provisioning.API.Validate())
	needed := slices.DeleteFunc(Roles(), func(r string) bool {
		return r == RoleDNS && len(l.Zone.Server.Listen) == 0 || r == RoleFront && l.Front.Listen == Off
	})
	if known && l.Database.Driver == db.SQLite && slices.ContainsFunc(needed,
		func(r string) bool { return !l.Has(r) }) {
		bad("roles", "on SQLite one process runs all roles; list all of %s here, or use PostgreSQL",
			strings.Join(needed, ", "))
	}
	for i, a := range l.Calls.DNS.Servers {
		if _, err := netip.ParseAddrPort(a); err != nil {
			bad(fmt.Sprintf("calls.dns.servers[%d]", i),
				"%q is not \"ip:port\", such as 192.0.2.53:53 or [2001:db8::53]:53", a)
		}
	}
	if t := l.Calls.DNS.Timeout; t < 100*time.Millisecond || t > 10*time.Second {
		bad("calls.dns.timeout", "%v is out of range; use 100ms to 10s", t)
	}
	badAll("calls.index", l.Calls.Index.Validate())
	badAll("calls.records", l.Calls.Records.Validate())
	list := services.All()
	offered := list.Services()
	var hosts map[string][]string // of the services' certificates
	if errs := l.Calls.Edge.Validate(offered); len(errs) > 0 || withoutGroups {
		badAll("calls", errs)
		badAll("calls.routing", l.Calls.Routing.Validate(offered))
		badAll("calls.headers", l.Calls.Headers.Validate())
	} else {
		errs := l.Calls.Headers.Validate()
		badAll("calls.headers", errs)
		if len(errs) == 0 {
			hosts, errs = list.Check(l.Calls.Edge.Services(offered), &l.Calls.Headers, leg.NamesOf(&l.Calls.Routing))
			badAll("calls.routing", errs)
		}
		badAll("calls.routing", l.Calls.Routing.Check(offered, l.Calls.Edge.RouteGroups(offered)))
	}
	badAll("zone", l.Zone.problems(l.Calls.Routing.BaseDomain, l.Calls.Routing.Regions))
	badAll("onboarding", l.Onboarding.problems(l.Calls.Routing.BaseDomain, l.Front.Listen))
	l.checkCertificates(hosts, bad, badAll)
	l.checkSockets(bad)
	if l.Source.Machine {
		l.checkMachine(hosts, bad, badAll, warnAll)
	}
	return ps
}

// problems returns every mistake as a *fault.Error whose Target is the field.
func (x *Listener) problems() (errs fault.Problems) {
	if x.Listen == Off {
		return nil
	}
	bad := errs.Add
	host, port, err := net.SplitHostPort(x.Listen)
	if err != nil {
		if err := domain.CheckBrackets(x.Listen); err != nil {
			bad("listen", "%q: %v", x.Listen, err)
			return errs
		}
		bad("listen", "%q is not \"ip:port\" (%v); to disable the listener write \"off\"", x.Listen, err)
		return errs
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			bad("listen", "%q is not an IP address", host)
		}
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n < 0 {
		bad("listen", "%q is not a port", port)
	}
	if (x.CertificateFile == "") != (x.KeyFile == "") {
		bad("certificateFile", "certificateFile and keyFile belong together; give both or neither")
	}
	if x.CertificateFile != "" && x.Certificate != "" {
		bad("certificate", "is given besides certificateFile; remove one or the other")
	}
	if !loopback(x.Listen) && x.Plain() && !x.Insecure {
		bad("listen", "%s is reachable from other machines without TLS; set certificateFile and keyFile, or "+
			"certificate, or insecure: true", x.Listen)
	}
	if x.MaxConnections < 8 || x.MaxConnections > 100_000 {
		bad("maxConnections", "%d is out of range; use 8 to 100000", x.MaxConnections)
	}
	if n := x.MaxConnectionsPerSource; n < 1 || n > x.MaxConnections {
		bad("maxConnectionsPerSource", "%d is out of range; use 1 to maxConnections (%d)", n, x.MaxConnections)
	}
	return errs
}

// loopback reports whether only this machine can reach addr.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
