package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// controlFile holds the URL of a lab's control, which nobody can guess who cannot read the file.
const controlFile = "control"

// ErrNotRunning is returned by TryAt if no lab uses the directory.
var ErrNotRunning = errors.New("no lab runs there")

// serve lets other processes of this machine place calls with TryAt. The returned function ends that.
func (l *Lab) serve(dir string) (stop func() error, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	path := "/" + rand.Text()
	var one sync.Mutex // one call at a time, so that its INVITE can be told from others
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var q Question
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		one.Lock()
		defer one.Unlock()
		t, err := l.Try(r.Context(), q)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(t) // the caller may have left
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until stop
	}()
	file := filepath.Join(dir, controlFile)
	stop = func() error {
		err := errors.Join(os.Remove(file), server.Close())
		<-ended
		return err
	}
	if err := os.WriteFile(file, []byte("http://"+listener.Addr().String()+path+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// TryAt has the lab whose Options.Control is dir try a call. It returns ErrNotRunning if there is none.
func TryAt(ctx context.Context, dir string, q Question) (*Trial, error) {
	url, err := os.ReadFile(filepath.Join(dir, controlFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	} else if err != nil {
		return nil, err
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSpace(string(url)), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(r)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	} else if err != nil {
		return nil, errors.Join(ErrNotRunning, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(b)))
	}
	t := new(Trial)
	return t, json.Unmarshal(b, t)
}
