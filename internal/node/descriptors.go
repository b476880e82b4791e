package node

import (
	"fmt"
	"log/slog"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/platform/db"
)

// What files take, at most: the index's and the records' files, listeners, the log, connections to issuers; and bounds.
const (
	filesReserved     = 64
	socketConnections = 32     // of the management socket
	sipConnections    = 20_000 // package transport's own bound
	leastDescriptors  = 64     // below this for connections a start is refused
	leastHTTP         = 8      // the least connections that a listener may be configured to take
	fewSIP            = 2_000  // a share of SIP below this is worth a warning
)

// shareDescriptors gives each listener its share of limit file descriptors: files and the database come first, then HTTP
// takes what its listeners may, half of the rest at most, and SIP the other half or more. It returns cfg with limits
// that fit, and SIP's.
func shareDescriptors(cfg config.Config, limit int, log *slog.Logger) (_ config.Config, sip int, err error) {
	files := filesReserved + socketConnections + cfg.Database.MaxConnections + 1
	if cfg.Database.Driver == db.SQLite {
		files += 2 * (cfg.Database.MaxConnections + 1) // each has the log and its index open too
	}
	rest := limit - files
	if rest < leastDescriptors {
		return cfg, 0, fmt.Errorf("the limit of %d open files is too low: files and the database need %d, connections %d more; "+
			"raise it (systemd: LimitNOFILE=65536, shell: ulimit -n 65536) or lower database.maxConnections",
			limit, files, leastDescriptors)
	}
	var used []*config.Listener
	want := 0
	for _, x := range []*config.Listener{&cfg.Provisioning.Listener, &cfg.Manage.Listener, &cfg.Metrics} {
		if x.Listen != config.Off {
			used = append(used, x)
			want += x.MaxConnections
		}
	}
	http := min(want, rest/2)
	if http < want {
		for _, x := range used {
			x.MaxConnections = max(leastHTTP, x.MaxConnections*http/want)
			x.MaxConnectionsPerSource = min(x.MaxConnectionsPerSource, max(4, x.MaxConnections/4))
		}
	}
	sip = min(sipConnections, rest-http)
	if http < want || cfg.Has(config.RoleEdge) && sip < fewSIP {
		log.Warn("the limit of open files is low: connections are limited to fit; "+
			"raise it (systemd: LimitNOFILE=65536, shell: ulimit -n 65536)", "limit", limit, "wanted", files+want+sipConnections, "http", http, "httpWanted", want, "sip", sip)
	}
	return cfg, sip, nil
}
