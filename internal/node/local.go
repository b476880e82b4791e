package node

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"os/user"
	"strconv"

	"github.com/tandemgw/tandem/internal/domain"
)

type localUserKey struct{}

// withPeer adds to a connection's context which user is at its other end, for the audit log.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if uid, ok := peerUID(c); ok {
		return context.WithValue(ctx, localUserKey{}, localUser(uid))
	}
	return ctx
}

// localUser returns a user's id in the audit log: "local:root", or "local:1000" if the user has no name.
func localUser(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil && u.Username != "" {
		return "local:" + u.Username
	}
	return "local:" + id
}

// localActor returns who sent a request over the Unix socket.
func localActor(r *http.Request) domain.Actor {
	id, _ := r.Context().Value(localUserKey{}).(string)
	return domain.Actor{Kind: "administrator", ID: cmp.Or(id, "local")}
}
