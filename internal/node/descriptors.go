package node

import (
	"fmt"
	"log/slog"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/platform/db"
)

// How the file descriptors of the process are shared.
const (
	filesReserved     = 64     // maximum for files of the index and records, listeners, the log, connections to issuers
	socketConnections = 32     // maximum connections of the management socket
	sipConnections    = 20_000 // maximum of package transport
	leastDescriptors  = 64     // for connections; with fewer a start is refused
	leastHTTP         = 8      // minimum of the setting maxConnections of a listener
	fewSIP            = 2_000  // a SIP share below this is logged as a warning
)

// shareDescriptors divides limit file descriptors among the listeners: files and the database come first, then HTTP
// gets what its listeners may use, at most half of the rest, and SIP the remainder. It returns cfg with limits that
// fit, and the maximum number of SIP connections.
func shareDescriptors(cfg config.Config, limit int, log *slog.Logger) (_ config.Config, sip int, err error) {
	files := filesReserved + socketConnections + cfg.Database.MaxConnections + 1
	if cfg.Database.Driver == db.SQLite {
		files += 2 * (cfg.Database.MaxConnections + 1) // each also has the write-ahead log and its index open
	}
	rest := limit - files
	if rest < leastDescriptors {
		return cfg, 0, fmt.Errorf("the limit of %d open files is too low: files and the database need %d, "+
			"connections another %d; raise it (systemd: LimitNOFILE=65536, shell: ulimit -n 65536) or lower "+
			"database.maxConnections", limit, files, leastDescriptors)
	}
	var used []*config.Listener
	want := 0
	for _, x := range []*config.Listener{&cfg.Provisioning.Listener, &cfg.Manage.Listener, &cfg.Metrics,
		&cfg.Front.Listener} {
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
		log.Warn("the limit of open files is low; connection limits are lowered to fit; "+
			"raise it (systemd: LimitNOFILE=65536, shell: ulimit -n 65536)", "limit", limit,
			"wanted", files+want+sipConnections, "http", http, "httpWanted", want, "sip", sip)
	}
	return cfg, sip, nil
}
