package client_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/client"
)

// TestEventStreamFormat reads streams as the HTML standard (section 9.2) allows them: every kind of line end, comments,
// fields that are unknown, ids without data, data on several lines, an incomplete event at the end.
func TestEventStreamFormat(t *testing.T) {
	t.Parallel()
	streams := []string{
		"\ufeff:comment\r\nid: 1\r\nevent: x\r\nretry: 5\r\ndata: {\"kind\":\"a\",\r\ndata: \"id\":\"1\"}\r\n\r\n",
		"id:2\rdata:{\"kind\":\"b\",\"id\":\"2\",\"new\":true}\r\rid: 3\r\r",
		"id: 4\x00\nunknown\ndata: {\"kind\":\"c\",\"id\":\"4\"}\n\n",
		"id: 5\n\nid: 6\ndata: {\"kind\":\"lost\",\"id\":\"6\"}\n",
	}
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Last-Event-ID"))
		if len(streams) == 0 {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusGone)
			_, _ = io.WriteString(w, `{"status":410,"code":"resync"}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, streams[0])
		streams = streams[1:]
	}))
	defer s.Close()
	c, err := client.New(s.URL, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var last error
	for e, err := range c.Events(t.Context(), "") {
		if last = err; err == nil {
			got = append(got, e.Kind+e.ID)
		}
	}
	if diff := cmp.Diff([]string{"a1", "b2", "c4"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	// An id with a NUL is ignored, one without data counts, and one of an incomplete event does not.
	if diff := cmp.Diff([]string{"", "1", "3", "3", "5"}, asked); diff != "" {
		t.Errorf("Last-Event-ID (-want +got):\n%s", diff)
	}
	if !client.HasCode(last, "resync") {
		t.Errorf("the sequence ended with %v, want resync", last)
	}
}

// TestEventsThatCannotBeRead ends the sequence instead of asking again and again.
func TestEventsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, stream := range map[string]string{
		"a page":       "<!DOCTYPE html>\n<title>Sign in to the network</title>\n",
		"not JSON":     "id: 1\ndata: {\n\n",
		"a long line":  "data: " + strings.Repeat("x", 2<<20) + "\n\n",
		"a long event": strings.Repeat("data: "+strings.Repeat("x", 1<<19)+"\n", 5) + "\n",
	} {
		requests := 0
		ctx, stop := context.WithCancel(t.Context())
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if requests++; requests == 2 {
				stop()
			}
			if name != "a page" { // whose type the server detects
				w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			}
			_, _ = io.WriteString(w, stream)
		}))
		c, err := client.New(s.URL, client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var last error
		for e, err := range c.Events(ctx, "") {
			if last = err; err == nil {
				t.Errorf("%s: event %+v", name, e)
			}
		}
		if requests != 1 || last == nil {
			t.Errorf("%s: %d requests, error %v", name, requests, last)
		}
		stop()
		s.Close()
	}
}
