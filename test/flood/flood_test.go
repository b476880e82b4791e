//go:build deep && linux

package flood

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
	"github.com/tandemgw/tandem/test/rig"
)

const (
	connections = 10_000
	descriptors = 1024 // of the program
)

func TestMain(m *testing.M) {
	if targets := os.Getenv("TANDEM_FLOOD_TARGETS"); targets != "" {
		flood(strings.Split(targets, ","), os.Getenv("TANDEM_FLOOD_MANY") != "")
		return
	}
	rig.Main(m)
}

// flood opens silent connections and keeps them until standard input ends. A connection that the program closes is
// opened again, at most twice.
func flood(targets []string, many bool) {
	var opened sync.WaitGroup
	open := func(i int) net.Conn {
		d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 100, 1)}}
		if many {
			d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 100, byte(1+i/len(targets)%200))}
		}
		c, err := d.Dial("tcp4", targets[i%len(targets)])
		if err != nil {
			return nil
		}
		return c
	}
	work := make(chan int)
	for range 16 {
		opened.Go(func() {
			for i := range work {
				c := open(i)
				go func() {
					for again := 0; c != nil && again < 2; again++ {
						_, _ = io.Copy(io.Discard, c) // until the program closes it
						_ = c.Close()
						c = open(i)
					}
				}()
			}
		})
	}
	for i := range connections {
		work <- i
	}
	close(work)
	opened.Wait()
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestSilentConnections checks that with 1,024 file descriptors the program carries calls, is ready, and answers
// clients that have a token within a second while there are 10,000 silent connections.
func TestSilentConnections(t *testing.T) {
	world, calls, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	limited := filepath.Join(t.TempDir(), "tandem")
	script := fmt.Sprintf("#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", descriptors, rig.Binary(t))
	if err := os.WriteFile(limited, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	l, p, err := demo.Start(ctx, t.TempDir(), limited, world, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		rig.Stop(t, p)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := p.Provision(ctx, world, func(fixtures.Customer) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitReady(ctx, l); err != nil {
		t.Fatal(err)
	}
	var targets []string
	for i := range 10 { // most go to the API
		u := p.Ready.Provisioning
		switch i {
		case 0:
			u = p.Ready.Management
		case 1:
			u = p.Ready.Metrics
		}
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, parsed.Host)
	}
	ready := strings.TrimSuffix(p.Ready.Metrics, "/metrics") + "/readyz"
	for _, many := range []string{"", "1"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TANDEM_FLOOD_TARGETS="+strings.Join(targets, ","), "TANDEM_FLOOD_MANY="+many)
		stop, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		said, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make(chan string, 1)
		go func() {
			s, _ := bufio.NewReader(said).ReadString('\n') // an incomplete line fails the comparison
			line <- s
		}()
		slowest := time.Duration(0)
		ask := func(url, token string) {
			if d := get(t, url, token); d > slowest {
				slowest = d
			}
		}
		for opening := true; opening; {
			select {
			case s := <-line:
				if s != "open\n" {
					t.Fatalf("the flood printed %q", s)
				}
				opening = false
			default:
				ask(ready, "")
			}
		}
		for range 10 {
			ask(p.Ready.Provisioning+"/accounts?api-version=2024-02-29-preview", p.Token)
			ask(p.Ready.Management+"/manage/v1/health", "")
			ask(ready, "")
		}
		played := 0
		for _, c := range calls {
			if len(c.Expect.Tried) > 0 || played == 6 {
				continue
			}
			played++
			if r := l.Play(ctx, c); len(r.Problems) > 0 {
				t.Errorf("call %s: %s", c.Name, strings.Join(r.Problems, "; "))
			}
		}
		if h, err := p.Manage.Health(ctx); err != nil || h.Status != api.HealthStatusReady {
			t.Errorf("health over the socket: %+v %v", h, err)
		}
		m, err := rig.ReadMetrics(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		open, _ := m.Sum("tandem_http_connections")
		evicted, _ := m.Sum("tandem_http_connection_events_total", `event="evicted"`)
		t.Logf("from many addresses: %v; slowest response %v; %v HTTP connections open, %v evicted, %v of %d "+
			"descriptors in use", many != "", slowest, open, evicted, m["process_open_fds"], descriptors)
		if slowest > time.Second {
			t.Errorf("a response took %v, want at most 1s", slowest)
		}
		if evicted == 0 || m["process_open_fds"] >= descriptors {
			t.Errorf("%v connections were evicted, %v descriptors are in use", evicted, m["process_open_fds"])
		}
		_ = stop.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the flood ended with %v", err)
		}
	}
}

// get sends a request on a new connection from its own address and returns how long the response took. While a flood
// opens connections faster than a new one can send its request, get may have to retry, as decision 14 says: the time
// includes all attempts.
func get(t *testing.T, url, token string) time.Duration {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 200, 1)}}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: d.DialContext,
		DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := http.StatusOK
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	} else if strings.Contains(url, "/manage/") {
		want = http.StatusUnauthorized
	}
	begin := time.Now()
	res, err := client.Do(req)
	for err != nil && time.Since(begin) < time.Second {
		t.Logf("GET %s, retrying: %v", url, err)
		res, err = client.Do(req)
	}
	if err != nil {
		t.Errorf("GET %s: %v", url, err)
		return time.Since(begin)
	}
	_ = res.Body.Close() // only the status matters
	if res.StatusCode != want {
		t.Errorf("GET %s: %s", url, res.Status)
	}
	return time.Since(begin)
}
