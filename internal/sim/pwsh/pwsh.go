// Package pwsh plays PowerShell 7 with Tandem's worker.ps1 and the MicrosoftTeams module: a program that takes cmdlets
// as lines of JSON and does them in a tenant of sim/microsoft, by the HTTPS service there, as the module does. It is
// strict where the reference pages of the cmdlets are, and breaks in the ways of [Fault].
//
// A test calls [Child] first in its TestMain, so that its program can be started as the child, and [Install] for the
// command to configure:
//
//	command, err := pwsh.Install(t.TempDir(), pwsh.Config{URL: cloud.URL(microsoft.Teams), Roots: authority.PEM()})
//
// What the real module returns was not seen: the forms here are those of its reference pages and of public reports.
package pwsh

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config says which service the child uses, and what it is.
type Config struct {
	URL     string // of the Teams service
	Roots   []byte // PEM
	Version string // of the module; default 7.9.0
	Unroll  bool   // lists of one item are returned as the item
}

// Fault is what goes wrong with a cmdlet, once. Give one to Arm.
type Fault struct {
	Cmdlet string // "" is the loading of the module
	Kind   Kind
	Text   string // of Refuse and Print, and the id of Tenant
	Code   string // of Refuse
}

// Kind is a kind of fault.
type Kind string

// The kinds. "After" means that the cmdlet was done.
const (
	Die       Kind = "die"
	DieAfter  Kind = "dieAfter"
	Hang      Kind = "hang"
	HangAfter Kind = "hangAfter"
	Garbage   Kind = "garbage" // some lines that are not of the protocol, before the answer
	Flood     Kind = "flood"   // thousands of them, and no answer
	Huge      Kind = "huge"    // a line of 8 MiB, and no answer
	Early     Kind = "early"   // the answer to another request, and no answer
	Nothing   Kind = "nothing" // success is reported, but nothing was done
	Refuse    Kind = "refuse"
	Print     Kind = "print"  // Text goes to stderr and to the warnings
	Tenant    Kind = "tenant" // Get-CsTenant returns this tenant
)

const variable = "TANDEM_SIM_PWSH"

// Install writes the configuration into dir, and returns a command that starts this program as the child.
func Install(dir string, cfg Config) (command string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600); err != nil {
		return "", err
	}
	command = filepath.Join(dir, "pwsh")
	start := fmt.Sprintf("#!/bin/sh\n%s='%s' exec '%s' \"$@\"\n", variable, dir, self)
	return command, os.WriteFile(command, []byte(start), 0o700)
}

// Arm has the child that was installed in dir break, in the order of the faults of each cmdlet.
func Arm(dir string, faults ...Fault) error {
	raw, err := json.Marshal(faults)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "faults.json"), raw, 0o600)
}

// Seen returns the requests that children of dir got, one JSON object each, in their order.
func Seen(dir string) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "seen.jsonl"))
	return strings.FieldsFunc(string(raw), func(r rune) bool { return r == '\n' }), err
}

// Child returns if this process was not started by the command of Install; else it is the child, and exits.
func Child() {
	dir := os.Getenv(variable)
	if dir == "" {
		return
	}
	c := child{dir: dir, out: bufio.NewWriter(os.Stdout)}
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

type child struct {
	dir    string
	out    *bufio.Writer
	cfg    Config
	client *http.Client
	token  string
	target string // from service discovery
}

// request is a line to the child.
type request struct {
	ID         int
	Protocol   int
	Module     string
	Cmdlet     string
	Parameters map[string]any
	Select     []string
}

type object = map[string]any

func (c *child) run() error {
	raw, err := os.ReadFile(filepath.Join(c.dir, "config.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &c.cfg); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.cfg.Roots)
	c.client = &http.Client{Timeout: time.Minute,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}

	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			return err
		}
		if err := c.record(in.Text()); err != nil {
			return err
		}
		c.serve(r)
	}
	return in.Err()
}

// record keeps a request for Seen.
func (c *child) record(line string) error {
	f, err := os.OpenFile(filepath.Join(c.dir, "seen.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.WriteString(line + "\n")
	return err
}

// fault takes the next fault of a cmdlet, if there is one.
func (c *child) fault(cmdlet string) (f Fault) {
	raw, err := os.ReadFile(filepath.Join(c.dir, "faults.json"))
	var all []Fault
	if err != nil || json.Unmarshal(raw, &all) != nil {
		return f
	}
	at := slices.IndexFunc(all, func(f Fault) bool { return f.Cmdlet == cmdlet })
	if at < 0 {
		return f
	}
	f = all[at]
	if err := Arm(c.dir, slices.Delete(all, at, at+1)...); err != nil {
		panic(err)
	}
	return f
}

// serve does a request and answers it.
func (c *child) serve(r request) {
	f := c.fault(r.Cmdlet)
	var items []any
	warnings := []string{}
	err := error(nil)
	switch f.Kind {
	case Die:
		os.Exit(3)
	case Hang:
		select {}
	case Garbage:
		c.print(f.Text+" { no JSON", "null", "[1]", `{"id":0,"done":true}`, "\x00\xff")
	case Flood:
		c.print(slices.Repeat([]string{f.Text}, 5000)...)
		select {}
	case Huge:
		c.print(fmt.Sprintf(`{"id":%d,"item":"%s"}`, r.ID, strings.Repeat("x", 8<<20)))
		select {}
	case Early:
		c.send(object{"id": r.ID + 1, "done": true})
		select {}
	case Print:
		fmt.Fprintln(os.Stderr, f.Text)
		warnings = append(warnings, f.Text)
	case Refuse:
		err = &cmdletError{f.Text, f.Code}
	case Tenant:
		items = []any{object{"TenantId": f.Text}}
	}

	switch {
	case f.Kind == Refuse || f.Kind == Nothing || f.Kind == Tenant:
	case r.Protocol != 0:
		c.hello(r)
		return
	default:
		items, err = c.do(r.Cmdlet, r.Parameters)
	}
	switch f.Kind {
	case DieAfter:
		os.Exit(3)
	case HangAfter:
		select {}
	}
	if e, ok := err.(*cmdletError); ok {
		c.send(object{"id": r.ID, "error": object{"text": e.text, "code": e.code}})
		return
	}
	for _, item := range items {
		if len(r.Select) > 0 {
			c.send(object{"id": r.ID, "item": c.selected(item, r.Select)})
		}
	}
	c.send(object{"id": r.ID, "done": true, "warnings": warnings})
}

// hello loads the module.
func (c *child) hello(r request) {
	version := c.cfg.Version
	if version == "" {
		version = "7.9.0"
	}
	if r.Protocol != 1 || r.Module != "MicrosoftTeams" {
		c.send(object{"id": r.ID, "error": object{"text": "The specified module '" + r.Module + "' was not loaded " +
			"because no valid module file was found in any module directory.",
			"code": "Modules_ModuleNotFound,Microsoft.PowerShell.Commands.ImportModuleCommand"}})
		return
	}
	c.send(object{"id": r.ID, "done": true, "protocol": 1, "version": version})
}

func (c *child) send(answer object) {
	raw, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	c.print(string(raw))
}

func (c *child) print(lines ...string) {
	for _, line := range lines {
		_, _ = c.out.WriteString(line + "\n")
	}
	_ = c.out.Flush() // the parent may have gone: the next read ends the program
}

// selected returns properties of an object: null where it has none.
func (c *child) selected(item any, names []string) object {
	o, _ := item.(object)
	out := object{}
	for name, v := range o {
		at := slices.IndexFunc(names, func(n string) bool { return n == "*" || strings.EqualFold(n, name) })
		if at < 0 {
			continue
		}
		if list, ok := v.([]any); ok && c.cfg.Unroll && len(list) == 1 {
			v = list[0]
		}
		out[name] = v
	}
	for _, n := range names {
		if !slices.ContainsFunc(keys(out), func(k string) bool { return strings.EqualFold(k, n) }) && n != "*" {
			out[n] = nil
		}
	}
	return out
}

func keys(o object) (names []string) {
	for name := range o {
		names = append(names, name)
	}
	return names
}
