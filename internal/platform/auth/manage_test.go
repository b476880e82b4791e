package auth

import (
	"context"
	"fmt"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/platform/web"
)

// TestClientsArePaged: the pages together are the list, and a cursor that was not made by them is refused.
func TestClientsArePaged(t *testing.T) {
	t.Parallel()
	ring, err := secret.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	store := &memory{}
	for i := range 7 {
		if err := store.AddClient(t.Context(), Client{ID: fmt.Sprintf("c%d", i), Secret: "hash"}); err != nil {
			t.Fatal(err)
		}
	}
	o := &Operations{Clients: NewClients(store), Sealer: ring}
	list := func(limit *int, cursor *string) (api.ListClients200JSONResponse, error) {
		r, err := o.ListClients(context.Background(),
			api.ListClientsRequestObject{Params: api.ListClientsParams{Limit: limit, Cursor: cursor}})
		if err != nil {
			return api.ListClients200JSONResponse{}, err
		}
		return r.(api.ListClients200JSONResponse), nil
	}
	for limit, pages := range map[int]int{1: 7, 3: 3, 7: 1, 500: 1, 0: 1} {
		var got string
		size, next := &limit, (*string)(nil)
		if limit == 0 {
			size = nil // the default
		}
		for i := 0; i == 0 || next != nil; i++ {
			page, err := list(size, next)
			if err != nil || i >= pages {
				t.Fatalf("limit %d, page %d: %v", limit, i, err)
			}
			for _, c := range page.Clients {
				got += c.ID
			}
			if next = nil; page.Next != "" {
				next = &page.Next
			}
		}
		if got != "c0c1c2c3c4c5c6" {
			t.Errorf("limit %d: %s", limit, got)
		}
	}
	other, err := web.SealCursor(ring, "page numbers", "c1")
	if err != nil {
		t.Fatal(err)
	}
	for _, cursor := range []string{"x", other} {
		if _, err := list(new(2), &cursor); code(err) != web.CodeInvalidContinuation {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
}
