package domain

import "context"

// Actor identifies who requested a change, as the audit log records it.
type Actor struct {
	Kind string // "client" (API client), "administrator" (local socket or portal) or "system"
	ID   string // stable id: the token's client id, the local user or the part of the system
	// RequestID is the id of the request, for finding it in the log.
	RequestID string
}

type actorKey struct{}

// WithActor returns ctx carrying a.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorFrom returns the actor in ctx, or the system if there is none.
func ActorFrom(ctx context.Context) Actor {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		return a
	}
	return Actor{Kind: "system", ID: "tandem"}
}
