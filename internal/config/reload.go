package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/config/strict"
)

// reloadable are the settings, with all below them, that a reload applies: docs/runbook.md lists them.
var reloadable = []string{
	"log.level", "log.levels",
	"metrics.certificateFile", "metrics.keyFile", "metrics.certificate",
	"manage.certificateFile", "manage.keyFile", "manage.certificate",
	"provisioning.certificateFile", "provisioning.keyFile", "provisioning.certificate",
	"front.certificateFile", "front.keyFile", "front.certificate",
	"manage.allowedSources", "manage.trustedProxies", "manage.requestsPerMinute",
	"provisioning.allowedSources", "provisioning.trustedProxies", "provisioning.requestsPerMinute",
	"front.allowedSources", "front.trustedProxies", "front.requestsPerMinutePerSource",
	"calls.limits.maxCalls", "calls.limits.maxCallsPerSecond", "calls.limits.retryAfter", "calls.headers",
	"calls.groups.maxCalls", "calls.groups.maxCallsPerSecond", "calls.groups.allowedSources",
	"calls.groups.peers.allowedSources",
	"calls.groups.tls.certificateFile", "calls.groups.tls.keyFile", "calls.groups.tls.certificate",
	"calls.groups.tls.rootsFile",
}

// listeners matches the settings that FreePorts replaces; they would differ at each reload.
var listeners = regexp.MustCompile(`^[a-z]+\.listen$|^calls\.groups\[\d+\]\.(bind|advertised)\.`)

// Changes are the settings, by path, in which a configuration differs from the running one.
type Changes struct {
	Applied []string // in effect now
	Restart []string // in effect after a restart
}

// Reload reads and checks the configuration again, from the source of l. It returns a copy of l with the new values of
// the settings that can change while the process runs, and the settings that differ. The error is strict.Problems.
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
	// Turning TLS on or off needs a new listener.
	turned := map[string]bool{"metrics": l.Metrics.Plain() != next.Metrics.Plain(),
		"manage":       l.Manage.Plain() != next.Manage.Plain(),
		"provisioning": l.Provisioning.Plain() != next.Provisioning.Plain(),
		"front":        l.Front.Plain() != next.Front.Plain()}
	ch.Applied, ch.Restart = strict.Merge(&merged.Config, &next.Config, func(path string) bool {
		if listener, key, _ := strings.Cut(path, "."); turned[listener] &&
			(key == "certificateFile" || key == "keyFile" || key == "certificate") {
			return false
		}
		return slices.ContainsFunc(reloadable, func(p string) bool {
			return path == p || strings.HasPrefix(path, p+".")
		})
	})
	if l.Source.FreePorts {
		ch.Restart = slices.DeleteFunc(ch.Restart, listeners.MatchString)
	}
	// Old and new settings are valid by themselves, but may conflict with each other.
	if ps := merged.validate(strict.NewDocument(), false); len(ps) > 0 {
		for i := range ps {
			ps[i].Message += " (the new configuration is valid, but this needs other changes in it that only a " +
				"restart applies: restart)"
		}
		return nil, Changes{}, ps
	}
	merged.Warnings = next.Warnings // with their places in the file
	return &merged, ch, nil
}
