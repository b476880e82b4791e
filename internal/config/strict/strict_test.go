package strict_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/config/strict"
)

type peer struct {
	Name     string   `yaml:"name"`
	Address  string   `yaml:"address"`
	Priority int      `yaml:"priority"`
	Secret   string   `yaml:"secret" secret:"true"`
	Allow    []string `yaml:"allow"`
}

type common struct {
	Level string `yaml:"level"`
}

type settings struct {
	Log    common            `yaml:"log"`
	Wait   time.Duration     `yaml:"wait"`
	On     bool              `yaml:"on"`
	Weight int8              `yaml:"weight"`
	Bytes  int64             `yaml:"bytes"`
	Peers  []peer            `yaml:"peers"`
	Words  []string          `yaml:"words"`
	Labels map[string]string `yaml:"labels"`
}

func TestEveryMistakeIsReportedWithItsPlace(t *testing.T) {
	t.Parallel()
	text := `log: {levle: info}
wait: 5
wait: 6s
on: yes
weight: 300
bytes: many
unheardOf: 1
peers:
  - name: a
    address: {a: b}
    priority: [1]
    name: b
  - just text
  -
words: one
labels:
  x: {y: z}
`
	var s settings
	_, problems := strict.Decode("t.yaml", []byte(text), &s)
	got := problems.Error()
	want := `t.yaml:1:7: log.levle: unknown key; did you mean "level"?
t.yaml:2:7: wait: want a duration, got "5": add a unit, such as "5s"
t.yaml:3:1: wait: given twice, first on line 2; keep one
t.yaml:4:5: on: want true or false, got "yes"
t.yaml:5:9: weight: want a whole number, got "300"
t.yaml:6:8: bytes: want a whole number, got "many"
t.yaml:7:1: unheardOf: unknown key; known keys: log, wait, on, weight, bytes, peers, words, labels
t.yaml:10:14: peers[0].address: want a string, got a mapping
t.yaml:11:15: peers[0].priority: want a whole number, got a list
t.yaml:12:5: peers[0].name: given twice, first on line 9; keep one
t.yaml:13:5: peers[1]: want a mapping ("key: value" lines), got a string
t.yaml:14:4: peers[2]: empty item; set a value or remove it
t.yaml:15:8: words: want a list, got a string; write "- " before each item
t.yaml:17:6: labels.x: want a string, got a mapping`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestDecodeReadsOverDefaults(t *testing.T) {
	t.Parallel()
	s := settings{Wait: time.Second, Weight: 7, Words: []string{"default"}}
	doc, problems := strict.Decode("t.yaml", []byte("wait: 1m30s\nwords: [112, +44, '#', true]\nweight:\npeers:\n- "+
		"name: x\n  address: ::1\n"), &s)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if s.Wait != 90*time.Second || s.Weight != 7 || !reflect.DeepEqual(s.Words, []string{"112", "+44", "#", "true"}) ||
		s.Peers[0].Address != "::1" {
		t.Errorf("decoded %+v", s)
	}
	for path, want := range map[string]string{
		"peers[0].address":  "t.yaml:6:3: peers[0].address: no",
		"peers[0].priority": "t.yaml:5:3: peers[0].priority: no",
		"labels.none":       "t.yaml:1:1: labels.none: no",
	} {
		if got := doc.At(path, "no").String(); got != want {
			t.Errorf("At(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestSyntaxErrorHasItsPlace(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"log: {level: info":              "t.yaml:1:6: not YAML: ",
		"a: b\n c: d\n":                  "t.yaml:1:4: not YAML: mapping value is not allowed",
		"log: &x {level: a}\nwait: *x\n": "t.yaml:1:6: log: anchors and aliases are not supported",
		"log: !!map {}\n":                "t.yaml:1:6: log: tag \"!!map\" is not supported",
		"wait: 1s\n---\nwait: 2s\n":      "t.yaml:3:1: a second document begins here",
		"- a\n":                          "t.yaml:1:1: want a mapping",
	} {
		_, problems := strict.Decode("t.yaml", []byte(text), &settings{})
		if len(problems) == 0 || !strings.HasPrefix(problems[0].String(), want) {
			t.Errorf("Decode(%q) = %v, want %s…", text, problems, want)
		}
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	s := settings{Words: []string{"a"}}
	doc := strict.NewDocument()
	for _, a := range []string{"log.level=debug", "peers[0].address=192.0.2.1", "peers[0].name=x # y: *z", "words[1]=b",
		"words[0]=\"q\\\"\"", "labels.k=v", "on=true", "wait=250ms", "peers[1]={name: second, priority: 3}",
		"peers[1].allow=[::1, 10.0.0.1]"} {
		if ps := doc.Set("--set", a, &s); len(ps) > 0 {
			t.Errorf("Set(%q): %v", a, ps)
		}
	}
	want := settings{Log: common{"debug"}, Wait: 250 * time.Millisecond, On: true, Words: []string{`q"`, "b"},
		Labels: map[string]string{"k": "v"},
		Peers: []peer{{Name: "x # y: *z", Address: "192.0.2.1"},
			{Name: "second", Priority: 3, Allow: []string{"::1", "10.0.0.1"}}}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if ps := doc.Set("--set", "words=", &s); len(ps) > 0 || len(s.Words) != 0 {
		t.Errorf("words= left %v, %v", s.Words, ps)
	}
	for a, want := range map[string]string{
		"nonsense":         `--set: "nonsense": want path=value, such as log.level=debug`,
		"lgo.level=x":      `--set: lgo.level: unknown key "lgo"; did you mean "log"?`,
		"wait=5":           `--set: wait: want a duration, got "5": add a unit, such as "5s"`,
		"peers[7].name=x":  `--set: peers[7].name: "peers" has 2 items; [2] would append one`,
		"log.level.deep=x": `--set: log.level.deep: "log.level" has no settings below it`,
		"log[0]=x":         `--set: log[0]: "log" is not a list`,
		"peers[x]=y":       `--set: peers[x]: want a list index such as [0] after "peers"`,
	} {
		if got := doc.Set("--set", a, &s).Error(); got != want {
			t.Errorf("Set(%q) = %q, want %q", a, got, want)
		}
	}
	if got := doc.At("wait", "no").String(); got != "--set: wait: no" {
		t.Errorf("At(wait) = %q", got)
	}
}

// tree returns settings as config show prints them.
func tree(t *testing.T, s settings) any {
	t.Helper()
	tree, err := strict.Tree(&s)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestEncodeIsReadBack(t *testing.T) {
	t.Parallel()
	in := settings{Log: common{"info"}, Wait: 2 * time.Hour, On: true, Bytes: -5, Weight: 1,
		Peers: []peer{{Name: "yes", Secret: "hush", Address: "::1"},
			{Name: "a: b # c", Allow: []string{"10.0.0.1"}}},
		Words:  []string{"null", "", "12", "-", "*", "[::1]:5060", strings.Repeat("long ", 30)},
		Labels: map[string]string{"k": "", "a b": "c"}}
	for _, doc := range []func(reflect.Type, string) string{
		nil,
		func(_ reflect.Type, f string) string { return f + " is.\nSecond line.\n" },
	} {
		var b strings.Builder
		if err := strict.Encode(&b, &in, strict.Options{Doc: doc}); err != nil {
			t.Fatal(err)
		}
		var out settings
		if _, ps := strict.Decode("out", []byte(b.String()), &out); len(ps) > 0 {
			t.Fatalf("%v\n%s", ps, b.String())
		}
		if diff := cmp.Diff(tree(t, in), tree(t, out)); diff != "" || out.Peers[0].Secret != "hush" {
			t.Errorf("read back (-want +got):\n%s\n%s", diff, b.String())
		}
	}
	var b strings.Builder
	if err := strict.Encode(&b, &in, strict.Options{Mask: true}); err != nil || strings.Contains(b.String(), "hush") ||
		!strings.Contains(b.String(), strict.Masked) {
		t.Errorf("masked: %v\n%s", err, b.String())
	}
	if s := fmt.Sprint(tree(t, in)); strings.Contains(s, "hush") {
		t.Errorf("Tree shows the secret: %s", s)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("wait: 5s\npeers:\n  - name: a\n    address: 10.0.0.1\n")
	f.Add("log: {level: info}\nwords: [a, b]\nlabels: {a: b}\n")
	f.Add("a: &x [*x]\n")
	f.Add("? - a\n: b\n")
	f.Add("words: |\n  x\nlog: !!str x\n<<: {a: b}\n")
	f.Fuzz(func(t *testing.T, text string) {
		var s settings
		doc, problems := strict.Decode("f", []byte(text), &s)
		_ = doc.At("peers[0].name", "x")
		if len(problems) > 0 {
			return
		}
		var b strings.Builder
		if err := strict.Encode(&b, &s, strict.Options{}); err != nil {
			t.Fatal(err)
		}
		var again settings
		if _, ps := strict.Decode("again", []byte(b.String()), &again); len(ps) > 0 {
			t.Fatalf("the output is not read back: %v\n%s", ps, b.String())
		}
		if !reflect.DeepEqual(tree(t, s), tree(t, again)) {
			t.Fatalf("read back differs:\n%#v\n%#v", s, again)
		}
	})
}
