//go:build deep

package packages_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandemgw/tandem/test/rig"
)

// builder makes packages of a copy of the working tree.
type builder struct {
	t    *testing.T
	root string // of the module
}

func newBuilder(t *testing.T) *builder {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	b := &builder{t, root}
	b.run(root, nil, "make", ".cache/bin/nfpm")
	return b
}

// run runs a command and returns its standard output. extra is added to the environment.
func (b *builder) run(dir string, extra []string, name string, args ...string) string {
	b.t.Helper()
	c := exec.CommandContext(b.t.Context(), name, args...)
	var stderr bytes.Buffer
	c.Dir, c.Env, c.Stderr = dir, append(os.Environ(), extra...), &stderr
	out, err := c.Output()
	if err != nil {
		b.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// copyTree copies the files that git knows to dir.
func (b *builder) copyTree(dir string) {
	b.t.Helper()
	files := b.run(b.root, nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	for name := range strings.SplitSeq(strings.Trim(files, "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(b.root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not committed yet
		}
		to := filepath.Join(dir, name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, data, 0o755)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, ".cache/bin"), 0o755); err != nil {
		b.t.Fatal(err)
	}
	const nfpm = ".cache/bin/nfpm"
	if err := os.Symlink(filepath.Join(b.root, nfpm), filepath.Join(dir, nfpm)); err != nil {
		b.t.Fatal(err)
	}
}

// deb builds the package in dir and returns its file name.
func (b *builder) deb(dir, version string, extra ...string) string {
	b.t.Helper()
	env := append([]string{"PACKAGE_VERSION=" + version, "SOURCE_DATE_EPOCH=1795000000"}, extra...)
	return filepath.Join(dir, b.run(dir, env, "scripts/package.sh"))
}

// debian is a root file system of Debian 12.
type debian struct {
	t    *testing.T
	b    *builder
	root string
}

// newDebian makes one. The packages are a list with commas.
func newDebian(t *testing.T, b *builder, packages string) *debian {
	t.Helper()
	dir, err := os.MkdirTemp("", "tandem-packages-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Mounts live in namespaces that have ended; --one-file-system would keep one that has not.
		if out, err := exec.Command("rm", "-rf", "--one-file-system", dir).CombinedOutput(); err != nil {
			t.Errorf("remove %s: %v\n%s", dir, err, out)
		}
	})
	d := &debian{t, b, filepath.Join(dir, "root")}
	b.run(b.root, nil, "bash", "-euo", "pipefail", "-c", `. scripts/root.sh; make_root "$1" "$2"`, "-", d.root,
		packages)
	return d
}

// command returns a command that runs in the root, in its own namespaces; with its own loopback interface and no other
// network if alone.
func (d *debian) command(ctx context.Context, alone bool, args ...string) *exec.Cmd {
	unshare := []string{"--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"}
	up := ":"
	if alone {
		unshare, up = append(unshare, "--net"), "ip link set lo up"
	}
	script := `. scripts/root.sh; mount_root "$1"; ` + up + `; shift; exec chroot "$@"`
	a := append(unshare, "bash", "-euo", "pipefail", "-c", script, "-", d.root, d.root, "env", "-i", "LANG=C.UTF-8",
		"DEBIAN_FRONTEND=noninteractive", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	c := exec.CommandContext(ctx, "unshare", append(a, args...)...)
	c.Dir = d.b.root
	return c
}

// try runs a command in the root and returns its output, standard error too.
func (d *debian) try(args ...string) (string, error) {
	out, err := d.command(d.t.Context(), false, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (d *debian) run(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.t.Fatalf("in the Debian root: %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// add copies a file of the host into the root.
func (d *debian) add(name, to string, mode fs.FileMode) {
	d.t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write(to, string(data), mode)
}

func (d *debian) write(name, text string, mode fs.FileMode) {
	d.t.Helper()
	path := filepath.Join(d.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	_ = os.Remove(path) // it may not exist
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		d.t.Fatal(err)
	}
}

func (d *debian) read(name string) string {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.root, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(data)
}

// want checks that a path exists in the root, or does not.
func (d *debian) want(name string, exists bool) {
	d.t.Helper()
	if _, err := os.Lstat(filepath.Join(d.root, name)); (err == nil) != exists {
		d.t.Errorf("%s exists: %v, want %v", name, err == nil, exists)
	}
}

// unit reads the values of a setting of the installed unit.
func (d *debian) unit(setting string) string {
	d.t.Helper()
	line := regexp.MustCompile(`(?m)^` + setting + `=(.*)$`)
	m := line.FindStringSubmatch(d.read("lib/systemd/system/tandem.service"))
	if m == nil {
		d.t.Fatalf("the unit has no %s", setting)
	}
	return m[1]
}

// service is the installed program, started as the unit says.
type service struct {
	cmd *exec.Cmd
	log *bytes.Buffer
	pid int // as the host sees it
}

// asUnit returns the start of a command line that gives a program the user, limits and capabilities of the unit.
func (d *debian) asUnit() []string {
	d.t.Helper()
	return []string{"prlimit", "--nofile=" + d.files(), "setpriv", "--reuid=" + d.unit("User"),
		"--regid=" + d.unit("Group"), "--init-groups", "--no-new-privs", "--bounding-set=-all,+net_bind_service",
		"--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service", "sh", "-c",
		"umask " + d.unit("UMask") + `; exec "$@"`, "-"}
}

// files returns the unit's LimitNOFILE, or this machine's limit if that is lower: a container may not raise it.
func (d *debian) files() string {
	d.t.Helper()
	want, err := strconv.ParseUint(d.unit("LimitNOFILE"), 10, 64)
	if err != nil {
		d.t.Fatal(err)
	}
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		d.t.Fatal(err)
	}
	return strconv.FormatUint(min(want, l.Max), 10)
}

// start runs ExecStartPre and ExecStart, and waits until Tandem is ready.
func (d *debian) start() *service {
	d.t.Helper()
	d.run(append(d.asUnit(), strings.Fields(d.unit("ExecStartPre"))...)...)
	s := &service{cmd: d.command(context.Background(), true, append(d.asUnit(),
		strings.Fields(d.unit("ExecStart"))...)...), log: &bytes.Buffer{}}
	s.cmd.Stderr, s.cmd.Stdout = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { kill(s.cmd) })
	deadline := time.Now().Add(time.Minute)
	for {
		out, err := d.try("tandem", "status")
		if err == nil && strings.HasPrefix(out, "ready") {
			break
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("not ready: %v\n%s\n%s", err, out, s.log)
		}
		time.Sleep(100 * time.Millisecond) // between two looks at the state
	}
	s.pid = child(s.cmd.Process.Pid)
	return s
}

// child returns the process at the end of a chain of only children.
func child(pid int) int {
	for {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // empty if it has ended
		next, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err != nil {
			return pid
		}
		pid = next
	}
}

// kill ends a command that runs a program in namespaces, if it still runs. The program goes first: it has changed its
// user, so that the end of its parent does not kill it any more.
func kill(c *exec.Cmd) {
	if c.ProcessState == nil {
		_ = syscall.Kill(child(c.Process.Pid), syscall.SIGKILL)
		_ = c.Process.Kill() // it may have ended already
		_ = c.Wait()
	}
}

// proc returns a field of a /proc file of the process.
func (s *service) proc(t *testing.T, file, field string) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.pid, file))
	if err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(bytes.NewReader(raw))
	for sc.Scan() {
		if rest, ok := strings.CutPrefix(sc.Text(), field); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	t.Fatalf("%s has no %q", file, field)
	return ""
}

// stop ends the process as systemd does, and checks that it ends well within the unit's time.
func (s *service) stop(d *debian) {
	d.t.Helper()
	limit, err := time.ParseDuration(d.unit("TimeoutStopSec"))
	if err != nil {
		d.t.Fatal(err)
	}
	if err := syscall.Kill(s.pid, syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil || !strings.Contains(s.log.String(), "shutdown complete") {
			d.t.Errorf("it ended with %v:\n%s", err, s.log)
		}
	case <-time.After(limit):
		d.t.Fatalf("it did not end within TimeoutStopSec=%v", limit)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("must run as root: it makes a root file system")
	}
}

// TestTheSameSourceGivesTheSamePackage builds the package twice: in directories with different names, the second time
// without a build cache.
func TestTheSameSourceGivesTheSamePackage(t *testing.T) {
	b := newBuilder(t)
	one, two := t.TempDir(), filepath.Join(t.TempDir(), "a/longer/name")
	b.copyTree(one) // both before the first build: the source may change meanwhile
	b.copyTree(two)
	build := func(dir string, extra ...string) []byte {
		data, err := os.ReadFile(b.deb(dir, "1.0.0", extra...))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	first, second := build(one), build(two, "GOCACHE="+t.TempDir())
	if !bytes.Equal(first, second) {
		t.Fatal("two builds of the same source differ")
	}
	t.Logf("two builds of %d bytes, equal", len(first))
}

// TestDebianPackage installs, starts, upgrades, removes and purges the package in a Debian 12. systemd is installed
// there but not running, as it cannot run in a chroot: the test starts what the unit starts, as the unit's user, with
// its limits and capabilities. TestMaintainerScriptsUnderSystemd covers what the scripts ask systemd to do.
func TestDebianPackage(t *testing.T) {
	needRoot(t)
	b := newBuilder(t)
	dir := t.TempDir()
	b.copyTree(dir)
	first, second := b.deb(dir, "1.0.0"), b.deb(dir, "1.0.1")
	d := newDebian(t, b, "systemd,iproute2")
	d.add(first, "root/first.deb", 0o644)
	d.add(second, "root/second.deb", 0o644)

	d.run("apt-get", "install", "-y", "--no-install-recommends", "/root/first.deb")
	if got := d.run("tandem", "version"); !strings.Contains(got, "1.0.0") {
		t.Errorf("tandem version = %q, want 1.0.0", got)
	}
	for name, want := range map[string]string{
		"/usr/bin/tandem":         "755 root:root",
		"/etc/tandem":             "750 root:tandem",
		"/etc/tandem/tandem.yaml": "640 root:tandem",
		"/var/lib/tandem":         "700 tandem:tandem",

		"/lib/systemd/system/tandem.service":            "644 root:root",
		"/usr/lib/sysctl.d/10-tandem.conf":              "644 root:root",
		"/usr/share/bash-completion/completions/tandem": "644 root:root",
		"/usr/share/zsh/vendor-completions/_tandem":     "644 root:root",
		"/usr/share/man/man1/tandem-serve.1.gz":         "644 root:root",
		"/usr/share/doc/tandem/copyright":               "644 root:root",
	} {
		if got := d.run("stat", "-c", "%a %U:%G", name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	d.want("etc/systemd/system/multi-user.target.wants/tandem.service", true)
	if got := d.run("dpkg-query", "-W", "-f", "${Conffiles}", "tandem"); !strings.Contains(got,
		"/etc/tandem/tandem.yaml ") {
		t.Errorf("conffiles %q, want the configuration", got)
	}

	// The unit: no complaints, and little that a taken-over process could do.
	if out := d.run("systemd-analyze", "verify", "--man=no", "tandem.service"); strings.Contains(out, "tandem") {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
	out := d.run("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", "tandem.service")
	lines := strings.Split(out, "\n")
	t.Log(lines[len(lines)-1])

	s := d.start()
	limit := d.files()
	t.Logf("LimitNOFILE=%s; the program got %s, the most that this machine allows", d.unit("LimitNOFILE"), limit)
	for _, x := range [][3]string{
		{"limits", "Max open files", limit + " " + limit + " files"},
		{"status", "CapEff:", "0000000000000400"}, // CAP_NET_BIND_SERVICE, bit 10
		{"status", "CapBnd:", "0000000000000400"},
		{"status", "NoNewPrivs:", "1"},
	} {
		if got := s.proc(t, x[0], x[1]); got != x[2] {
			t.Errorf("%s %s = %s, want %s", x[0], x[1], got, x[2])
		}
	}
	if uid, want := s.proc(t, "status", "Uid:"), d.run("id", "-u", "tandem"); !strings.HasPrefix(uid, want+" ") {
		t.Errorf("uids %s, want the user tandem, %s", uid, want)
	}
	const account = `{"name":"acme","serviceDetails":{"zoomPhoneCloudPeering":{"enabled":true,"syncEnabled":false}}}`
	d.write("root/account.json", account, 0o600)
	d.run("tandem", "account", "put", "/root/account.json")

	// An upgrade keeps a changed configuration and leaves the process alone; it is restarted by systemd only.
	const mine = "\nlog: {format: json}\n"
	config := d.read("etc/tandem/tandem.yaml") + mine
	d.write("etc/tandem/tandem.yaml", config, 0o640)
	d.run("chgrp", "tandem", "/etc/tandem/tandem.yaml")
	d.run("dpkg", "-i", "/root/second.deb")
	if got := d.read("etc/tandem/tandem.yaml"); got != config {
		t.Errorf("after the upgrade the configuration is\n%s", got)
	}
	if got := d.run("tandem", "status"); !strings.Contains(got, "version 1.0.0") {
		t.Errorf("the old process does not run any more after the upgrade:\n%s", got)
	}
	s.stop(d)
	s = d.start()
	if got := d.run("tandem", "status"); !strings.Contains(got, "version 1.0.1") {
		t.Errorf("status after the restart:\n%s", got)
	}
	if !strings.Contains(s.log.String(), `"msg":"ready"`) {
		t.Errorf("the changed configuration is not in effect:\n%s", s.log)
	}
	if got := d.run("tandem", "account", "list"); !strings.Contains(got, "acme") {
		t.Errorf("the account is lost after the upgrade:\n%s", got)
	}
	s.stop(d)

	d.run("apt-get", "remove", "-y", "tandem")
	for name, exists := range map[string]bool{"usr/bin/tandem": false, "lib/systemd/system/tandem.service": false,
		"var/lib/tandem/tandem.db": true, "var/lib/tandem/keyring.json": true, "etc/tandem/tandem.yaml": true} {
		d.want(name, exists)
	}
	d.run("dpkg", "-i", "/root/second.deb")
	s = d.start()
	if got := d.run("tandem", "account", "list"); !strings.Contains(got, "acme") {
		t.Errorf("the account is lost after removal and installation:\n%s", got)
	}
	s.stop(d)

	d.run("apt-get", "purge", "-y", "tandem")
	for _, name := range []string{"usr/bin/tandem", "var/lib/tandem", "etc/tandem", "etc/systemd/system/tandem.service",
		"etc/systemd/system/multi-user.target.wants/tandem.service"} {
		d.want(name, false)
	}
	d.run("id", "tandem") // the user stays
}

// fakeSystemctl records its calls. It is active if /run/active exists.
const fakeSystemctl = `#!/bin/sh
echo "$*" >>/run/calls
case "$*" in
*is-active*) [ -e /run/active ] ;;
*is-enabled*) echo enabled ;;
esac
`

// TestMaintainerScriptsUnderSystemd checks what the scripts ask systemd to do; a program takes the place of
// systemctl.
func TestMaintainerScriptsUnderSystemd(t *testing.T) {
	needRoot(t)
	b := newBuilder(t)
	dir := t.TempDir()
	b.copyTree(dir)
	d := newDebian(t, b, "adduser,procps")
	for _, v := range []string{"1.0.0", "1.0.1"} {
		d.add(b.deb(dir, v), "root/"+v+".deb", 0o644)
	}
	d.write("usr/bin/systemctl", fakeSystemctl, 0o755)
	if err := os.MkdirAll(filepath.Join(d.root, "run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	step := func(what, want string, args ...string) {
		t.Helper()
		d.write("run/calls", "", 0o644)
		out := d.run(args...)
		var got []string
		for l := range strings.Lines(d.read("run/calls")) {
			f := slices.DeleteFunc(strings.Fields(l), func(w string) bool { return strings.HasPrefix(w, "--") })
			if f[len(f)-1] == "tandem.service" && !strings.HasPrefix(f[0], "is-") && f[0] != "preset" {
				got = append(got, f[0])
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: systemctl was called to %q, want %q\n%s", what, got, want, out)
		}
	}
	active := func(is bool) {
		if is {
			d.write("run/active", "", 0o644)
		} else {
			_ = os.Remove(filepath.Join(d.root, "run/active"))
		}
	}
	step("the first installation", "start", "dpkg", "-i", "/root/1.0.0.deb")
	active(true)
	step("an upgrade", "restart", "dpkg", "-i", "/root/1.0.1.deb")
	d.write("etc/tandem/tandem.yaml", "calls: {unknown: 1}\n", 0o644)
	step("an upgrade that refuses the configuration", "", "dpkg", "-i", "/root/1.0.1.deb")
	if out := d.run("dpkg", "-i", "/root/1.0.1.deb"); !strings.Contains(out, "the previous version keeps running") ||
		!strings.Contains(out, "unknown") {
		t.Errorf("an upgrade that refuses the configuration does not say so:\n%s", out)
	}
	d.write("etc/tandem/tandem.yaml", "log: {level: info}\n", 0o644)
	active(false)
	step("an upgrade while someone has stopped it", "", "dpkg", "-i", "/root/1.0.1.deb")
	active(true)
	step("the removal", "stop", "dpkg", "-r", "tandem")
	active(false)
	step("an installation after a removal", "start", "dpkg", "-i", "/root/1.0.1.deb")
	active(true)
	step("the purge", "stop", "dpkg", "-P", "tandem")
}

// TestTheImageRuns runs the program in a root that has only what the Dockerfile's last stage copies, as its user.
func TestTheImageRuns(t *testing.T) {
	needRoot(t)
	b := newBuilder(t)
	dockerfile, err := os.ReadFile(filepath.Join(b.root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	build, final, _ := strings.Cut(string(dockerfile), "\nFROM scratch\n")
	dir := t.TempDir()
	b.copyTree(dir)
	// The build stage, with its /out elsewhere.
	out := filepath.Join(dir, "out")
	for l := range strings.SplitSeq(strings.ReplaceAll(build, "\\\n", " "), "\n") {
		if cmd, ok := strings.CutPrefix(l, "RUN "); ok {
			b.run(dir, []string{"VERSION=1.2.3"}, "bash", "-euc", strings.ReplaceAll(cmd, "/out/", out+"/"))
		}
	}
	root, err := os.MkdirTemp("", "tandem-image-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	var user, env, entry, cmd string
	for l := range strings.SplitSeq(final, "\n") {
		word, rest, _ := strings.Cut(l, " ")
		switch word {
		case "COPY":
			f := strings.Fields(rest)
			from, to := strings.Replace(f[len(f)-2], "/out/", out+"/", 1), filepath.Join(root, f[len(f)-1])
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			b.run(dir, nil, "cp", "-a", "--dereference", from, to)
		case "USER":
			user = rest
		case "ENV":
			env = rest
		case "ENTRYPOINT":
			entry = strings.Trim(rest, `[]"`)
		case "CMD":
			cmd = strings.Trim(rest, `[]"`)
		}
	}
	chroot, err := exec.LookPath("chroot")
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) *exec.Cmd {
		a := append([]string{"--net", "--fork", "--kill-child", "sh", "-c", `ip link set lo up; exec "$@"`, "-", "env",
			"-i", env, chroot, "--userspec=" + user, root, entry}, args...)
		return exec.CommandContext(t.Context(), "unshare", a...)
	}
	c := run(cmd)
	var log bytes.Buffer
	c.Stderr = &log
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(c) })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.Contains(line, "ready") {
		t.Fatalf("serve printed %q, %v\n%s", line, err, log.String())
	}
	status, err := run("status").CombinedOutput()
	if err != nil || !strings.Contains(string(status), "version 1.2.3") {
		t.Errorf("tandem status: %v\n%s", err, status)
	}
	if err := syscall.Kill(child(c.Process.Pid), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("it ended with %v\n%s", err, log.String())
	}
}

// TestTheUnitAllowsEverySystemCall runs the demonstration, with its calls over UDP, TCP and TLS, and checks that all
// system calls of the program are among those that the unit allows.
func TestTheUnitAllowsEverySystemCall(t *testing.T) {
	b := newBuilder(t)
	unit, err := os.ReadFile(filepath.Join(b.root, "deploy/systemd/tandem.service"))
	if err != nil {
		t.Fatal(err)
	}
	filter := regexp.MustCompile(`(?m)^SystemCallFilter=(.*)$`).FindSubmatch(unit)
	if filter == nil {
		t.Fatal("the unit has no SystemCallFilter")
	}
	allowed := map[string]bool{}
	var expand func(string)
	expand = func(group string) {
		for l := range strings.Lines(b.run(b.root, nil, "systemd-analyze", "syscall-filter", group)) {
			switch l = strings.TrimSpace(l); {
			case l == group || strings.HasPrefix(l, "#"):
			case strings.HasPrefix(l, "@"):
				expand(l)
			default:
				allowed[l] = true
			}
		}
	}
	expand(string(filter[1]))
	dir := t.TempDir()
	program := filepath.Join(dir, "tandem")
	b.run(b.root, []string{"CGO_ENABLED=0"}, "go", "build", "-o", program, "./cmd/tandem")
	trace := filepath.Join(dir, "trace")
	b.run(dir, nil, "strace", "-f", "-qq", "-o", trace, program, "demo", "--once", "--output", "json")
	raw, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\d+ +([a-z_0-9]+)\(`).FindAllSubmatch(raw, -1) {
		seen[string(m[1])] = true
	}
	for name := range seen {
		if !allowed[name] {
			t.Errorf("%s is used, but %s does not allow it", name, filter[1])
		}
	}
	if len(seen) < 30 {
		t.Errorf("only %d system calls were seen", len(seen))
	}
	for _, no := range []string{"AF_NETLINK", "AF_PACKET"} {
		if bytes.Contains(raw, []byte("socket("+no)) {
			t.Errorf("a socket of %s was opened, which RestrictAddressFamilies refuses", no)
		}
	}
}
