package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/config/strict"
)

// reloadable are the settings, with all below them, that a running process takes over: docs/runbook.md lists them.
var reloadable = []string{
	"log.level", "log.levels",
	"metrics.certificateFile", "metrics.keyFile", "manage.certificateFile", "manage.keyFile",
	"provisioning.certificateFile", "provisioning.keyFile",
	"manage.allowedSources", "manage.trustedProxies", "manage.requestsPerMinute",
	"provisioning.allowedSources", "provisioning.trustedProxies", "provisioning.requestsPerMinute",
	"calls.limits.maxCalls", "calls.limits.maxCallsPerSecond", "calls.limits.retryAfter", "calls.headers",
	"calls.groups.maxCalls", "calls.groups.maxCallsPerSecond", "calls.groups.allowedSources", "calls.groups.peers.allowedSources",
	"calls.groups.tls.certificateFile", "calls.groups.tls.keyFile", "calls.groups.tls.rootsFile",
}

// listeners are the settings that FreePorts replaces; at a reload they would differ each time.
var listeners = regexp.MustCompile(`^[a-z]+\.listen$|^calls\.groups\[\d+\]\.(bind|advertised)\.`)

// Changes are the settings, by path, in which a configuration differs from the running one.
type Changes struct {
	Applied []string // taken over
	Restart []string // of no effect before a restart
}

func (x *Listener) plain() bool { return x.CertificateFile == "" }

// Reload reads and checks the configuration again, from where l came from. It returns l with the settings taken over
// that can change while the process runs, and what differs. The error is strict.Problems. l does not change.
func (l *Loaded) Reload() (*Loaded, Changes, error) {
	source := l.Source
	source.Starting = false
	next, err := Load(source)
	if err != nil {
		return nil, Changes{}, err
	}
	merged := *l
	merged.Source = source
	var ch Changes
	// Turning TLS on or off takes another listener.
	turned := map[string]bool{"metrics": l.Metrics.plain() != next.Metrics.plain(), "manage": l.Manage.plain() != next.Manage.plain(),
		"provisioning": l.Provisioning.plain() != next.Provisioning.plain()}
	ch.Applied, ch.Restart = strict.Merge(&merged.Config, &next.Config, func(path string) bool {
		if listener, key, _ := strings.Cut(path, "."); turned[listener] && (key == "certificateFile" || key == "keyFile") {
			return false
		}
		return slices.ContainsFunc(reloadable, func(p string) bool { return path == p || strings.HasPrefix(path, p+".") })
	})
	if l.Source.FreePorts {
		ch.Restart = slices.DeleteFunc(ch.Restart, listeners.MatchString)
	}
	// Each half was checked; the two together may not fit.
	if ps := merged.validate(strict.NewDocument(), false); len(ps) > 0 {
		return nil, Changes{}, ps
	}
	return &merged, ch, nil
}
