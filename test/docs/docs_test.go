// Package docs_test keeps the documentation true: every command that a lab prints, and every console block of the
// README and of docs, is run against a lab; every complete configuration is checked; every relative link leads
// somewhere.
package docs_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tandemgw/tandem/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

const root = "../.."

// limit is how long a failing test waits.
const limit = 2 * time.Minute

// pages returns the Markdown files of the repository's root and of docs.
func pages(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, p := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, files...)
	}
	if len(out) < 20 {
		t.Fatalf("only %d pages were found", len(out))
	}
	return out
}

// block is a fenced block of a page.
type block struct {
	file  string
	line  int    // of its first line
	info  string // what follows the fence
	lines []string
}

func (b block) at(i int) string {
	return fmt.Sprintf("%s:%d", strings.TrimPrefix(b.file, root+"/"), b.line+i)
}

func blocks(t *testing.T, file string) (fenced []block, prose string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	open := false
	for i, l := range strings.Split(string(raw), "\n") {
		switch {
		case strings.HasPrefix(l, "```"):
			if open = !open; open {
				fenced = append(fenced, block{file: file, line: i + 2, info: strings.TrimPrefix(l, "```")})
			}
		case open:
			b := &fenced[len(fenced)-1]
			b.lines = append(b.lines, l)
		default:
			text.WriteString(l + "\n")
		}
	}
	if open {
		t.Errorf("%s: a fence is not closed", file)
	}
	return fenced, text.String()
}

// lab is a running "tandem serve --lab".
type lab struct {
	dir   string // where it was started; its data is in lab below
	start string // what it printed
	api   string // URL of the Provisioning API
	env   []string
}

// startLab starts a lab as a reader of the documentation does, but on free ports.
func startLab(t *testing.T) *lab {
	t.Helper()
	x := &lab{dir: t.TempDir()}
	for _, d := range []string{"bin", "home"} {
		if err := os.Mkdir(filepath.Join(x.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(rig.Binary(t), filepath.Join(x.dir, "bin", "tandem")); err != nil {
		t.Fatal(err)
	}
	x.env = []string{"PATH=" + filepath.Join(x.dir, "bin") + ":" + os.Getenv("PATH"),
		"HOME=" + filepath.Join(x.dir, "home"), "TANDEM_DATA=" + filepath.Join(x.dir, "lab")}
	cmd := exec.Command("bin/tandem", "serve", "--lab", "--free-ports", "--data", "./lab")
	cmd.Dir, cmd.Env = x.dir, x.env
	var out, log output
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("serve --lab: %v\n%s", err, log.String())
		}
		for _, bad := range []string{"WARNING: DATA RACE", "panic"} {
			if strings.Contains(log.String(), bad) {
				t.Errorf("serve --lab logged %q:\n%s", bad, log.String())
			}
		}
	})
	last := regexp.MustCompile(`(http://[0-9.:]+)/accounts/northwind\?api-version=[^']*'\n`)
	out.wait(t, ended, &log, func(s string) bool { return last.MatchString(s) })
	x.start = out.String()
	x.api = last.FindStringSubmatch(x.start)[1]
	return x
}

// output collects what a process prints.
type output struct {
	mu      sync.Mutex // guards the fields below
	b       bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// wait waits until what was printed satisfies done.
func (o *output) wait(t *testing.T, ended chan error, log fmt.Stringer, done func(string) bool) {
	t.Helper()
	timeout := time.After(limit)
	for {
		o.mu.Lock()
		if done(o.b.String()) {
			o.mu.Unlock()
			return
		}
		if o.changed == nil {
			o.changed = make(chan struct{})
		}
		changed := o.changed
		o.mu.Unlock()
		select {
		case <-changed:
		case err := <-ended:
			ended <- err
			t.Fatalf("the lab ended: %v\n%s\n%s", err, o.String(), log)
		case <-timeout:
			t.Fatalf("the lab is not ready:\n%s\n%s", o.String(), log)
		}
	}
}

// shell runs commands one after the other in one shell.
type shell struct {
	in  io.WriteCloser
	out output
	cmd *exec.Cmd
	n   int
}

func (x *lab) shell(t *testing.T) *shell {
	t.Helper()
	s := &shell{cmd: exec.Command("bash", "--norc", "--noprofile")}
	s.cmd.Dir, s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = x.dir, x.env, &s.out, &s.out
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.in.Close()
		_ = s.cmd.Wait() // the status of the last command, which run has reported
	})
	return s
}

// run runs a command and returns what it printed, and its exit status.
func (s *shell) run(t *testing.T, command string) (text string, status int) {
	t.Helper()
	s.n++
	before := len(s.out.String())
	if _, err := fmt.Fprintf(s.in, "%s\nprintf '\\036%d %%d\\n' $?\n", command, s.n); err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("\x1e%d ", s.n)
	s.out.wait(t, make(chan error), &s.out, func(all string) bool {
		_, rest, ok := strings.Cut(all, mark)
		return ok && strings.Contains(rest, "\n")
	})
	text, rest, _ := strings.Cut(s.out.String()[before:], mark)
	if _, err := fmt.Sscanf(rest, "%d", &status); err != nil {
		t.Fatal(err)
	}
	return text, status
}

// TestLabSaysWhatToTry: the text that a lab prints fits 80 columns and says that it is not for production, and every
// command in it does what it says.
func TestLabSaysWhatToTry(t *testing.T) {
	t.Parallel()
	x := startLab(t)
	if !strings.Contains(x.start, "Not for production") {
		t.Errorf("the lab is not labelled:\n%s", x.start)
	}
	_, hints, ok := strings.Cut(x.start, "in another terminal:\n")
	if !ok {
		t.Fatalf("nothing to try:\n%s", x.start)
	}
	for l := range strings.SplitSeq(x.start, "\n") {
		if n := len([]rune(l)); n > 80 || l != strings.TrimRight(l, " ") {
			t.Errorf("%d columns, or spaces at the end: %q", n, l)
		}
	}
	want := map[string]string{
		"--to +441632960101": "200 OK\nIt reached teams-1, ", "--to +442890180001": "200 OK\nIt reached core-fixed, ",
		"explain": "teamsDirectRouting", "peers": "teams-3", "status": "ready", "TOKEN=": "", "export": "",
		"curl": `"name":"northwind"`, "invite": "https://onboard.tandem.example:",
	}
	sh := x.shell(t)
	for _, command := range strings.Split(strings.ReplaceAll(hints, "\\\n", ""), "\n") {
		command = strings.TrimSpace(command)
		if command == "" || strings.HasPrefix(command, "#") {
			continue
		}
		out, status := sh.run(t, command)
		found := false
		for part, text := range want {
			if strings.Contains(command, part) && !(strings.Contains(command, "explain") && part != "explain") {
				found = true
				delete(want, part)
				if status != 0 || !strings.Contains(out, text) {
					t.Errorf("$ %s\n%s\nexit status %d, want 0 and %q", command, out, status, text)
				}
			}
		}
		if !found {
			t.Errorf("the test does not know what %q should do", command)
		}
	}
	if len(want) > 0 {
		t.Errorf("not printed: %v", want)
	}
}

// TestConsoleBlocksAreTrue runs the console blocks of each page in one shell, against one lab. A line after "$ " or,
// continued, "> " is a command; other lines are its output. "…" in a line stands for any text, alone for any lines.
func TestConsoleBlocksAreTrue(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl", "jq"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: make setup installs it", err)
		}
	}
	x := startLab(t)
	ran := 0
	for _, page := range pages(t) {
		fenced, _ := blocks(t, page)
		var sh *shell
		for _, b := range fenced {
			if b.info != "console" {
				continue
			}
			if sh == nil {
				sh = x.shell(t)
			}
			ran += x.runBlock(t, sh, b)
		}
	}
	if ran < 25 {
		t.Errorf("only %d commands were run", ran)
	}
}

// runBlock runs the commands of a block and returns how many they were.
func (x *lab) runBlock(t *testing.T, sh *shell, b block) int {
	t.Helper()
	ran := 0
	for i := 0; i < len(b.lines); {
		at := b.at(i)
		command, ok := strings.CutPrefix(b.lines[i], "$ ")
		if !ok {
			t.Errorf("%s: %q is neither a command nor output", at, b.lines[i])
			return ran
		}
		for i++; i < len(b.lines) && strings.HasPrefix(b.lines[i], "> "); i++ {
			command += "\n" + b.lines[i][2:]
		}
		var want []string
		for ; i < len(b.lines) && !strings.HasPrefix(b.lines[i], "$ "); i++ {
			want = append(want, b.lines[i])
		}
		ran++
		out, status := sh.run(t, strings.ReplaceAll(command, "http://127.0.0.1:8080", x.api))
		out = strings.ReplaceAll(out, x.api, "http://127.0.0.1:8080")
		if status != 0 || !matches(want, out) {
			t.Errorf("%s: $ %s\nexit status %d, printed:\n%s\nwant:\n%s", at, command, status, out,
				strings.Join(want, "\n"))
		}
	}
	return ran
}

// matches reports whether out is the lines of want, as TestConsoleBlocksAreTrue describes.
func matches(want []string, out string) bool {
	var re strings.Builder
	re.WriteString("^")
	for _, l := range want {
		if l == "…" {
			re.WriteString(`(?:.*\n)*?`)
			continue
		}
		re.WriteString(strings.ReplaceAll(regexp.QuoteMeta(strings.TrimRight(l, " ")), "…", ".*") + `[ \r]*\n`)
	}
	re.WriteString(`[\r\n]*$`)
	return regexp.MustCompile(re.String()).MatchString(strings.TrimRight(out, "\n") + "\n")
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		want []string
		out  string
		is   bool
	}{
		{nil, "", true}, {nil, "x\n", false},
		{[]string{"a…c", "…", "z"}, "abc\r\n1\n2\nz\n", true}, {[]string{"a…c", "…", "z"}, "abc\nz", true},
		{[]string{"a", "z"}, "a\n1\nz\n", false}, {[]string{"a.c"}, "abc\n", false}, {[]string{"a"}, "ab\n", false},
	} {
		if got := matches(c.want, c.out); got != c.is {
			t.Errorf("matches(%q, %q) = %v", c.want, c.out, got)
		}
	}
}

// TestConfigurationsAreValid: a block that a page calls tandem.yaml is a complete configuration.
func TestConfigurationsAreValid(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, page := range pages(t) {
		fenced, _ := blocks(t, page)
		for _, b := range fenced {
			if b.info != "yaml tandem.yaml" {
				continue
			}
			checked++
			file := filepath.Join(t.TempDir(), "tandem.yaml")
			if err := os.WriteFile(file, []byte(strings.Join(b.lines, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if out, err := exec.CommandContext(ctx, rig.Binary(t), "config", "check", "--offline", "--config",
				file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", b.at(0), err, out)
			}
		}
	}
	if checked < 2 {
		t.Errorf("only %d configurations were found", checked)
	}
}

// TestLinksLeadSomewhere checks every relative link of every page, with its anchor, and that every decision is listed.
func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code := regexp.MustCompile("`[^`]*`")
	anchors := map[string]map[string]bool{}
	anchorsOf := func(file string) map[string]bool {
		if anchors[file] == nil {
			_, prose := blocks(t, file)
			anchors[file] = slugs(prose)
		}
		return anchors[file]
	}
	linked := map[string]bool{}
	for _, page := range pages(t) {
		_, prose := blocks(t, page)
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(prose, ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			linked[page+" "+file] = true
			if anchor != "" && !anchorsOf(file)[anchor] {
				t.Errorf("%s links to %s: %s has no such heading", page, m[1], file)
			}
		}
	}
	index := filepath.Join(root, "docs/decisions/README.md")
	for _, page := range pages(t) {
		if filepath.Dir(page) == filepath.Dir(index) && page != index && !linked[index+" "+page] {
			t.Errorf("docs/decisions/README.md does not list %s", filepath.Base(page))
		}
		if filepath.Dir(page) == filepath.Join(root, "docs") && filepath.Base(page) != "README.md" &&
			!linked[filepath.Join(root, "docs/README.md")+" "+page] {
			t.Errorf("docs/README.md does not list %s", filepath.Base(page))
		}
	}
}

// slugs returns the anchors of a page's headings, as GitHub makes them.
func slugs(prose string) map[string]bool {
	out := map[string]bool{}
	heading := regexp.MustCompile(`(?m)^#+ +(.+)$`)
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for _, m := range heading.FindAllStringSubmatch(prose, -1) {
		out[strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(m[1])), ""), " ", "-")] = true
	}
	return out
}
