package zone_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/test/rig"
)

// command runs a command of the program against the deployment, and returns its output and exit code.
func (d *deployment) command(args ...string) (string, int) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), rig.Binary(d.t), append(args, "--data", filepath.Join(d.dir, "data"))...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		d.t.Fatal(err)
	}

	return string(out), cmd.ProcessState.ExitCode()
}

// An operator sees what the zone has at a name, asks all name servers for it, and has the delegation checked.
func TestInspect(t *testing.T) {
	t.Parallel()
	parent := dnspeer.BINDPrimary(t, "example.com", "$ORIGIN example.com.\n$TTL 60\n@ SOA a b 1 60 60 60 60\n@ NS a\n"+
		"a A 127.0.0.1\ngw NS ns1.gw\ngw NS ns2.operator.example.\ngw NS ns3.operator.example.\n"+
		"gw NS ns4.foreign.example.\nns1.gw A 192.0.2.53\n", "")
	d := deploy(t, "", fmt.Sprintf("  parents: [%q]", parent.Addr))
	d.put("contoso", "acme")
	d.provisioned("contoso", "acme")

	z, err := d.client().Zone(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range z.Records {
		got = append(got, strings.Join([]string{r.Name, r.Type, r.Data, r.Source}, " "))
		if time.Since(r.Added) > time.Hour || r.TTL != 60 {
			t.Errorf("record %+v", r)
		}
	}
	want := []string{"acme.1r1." + base + " A 192.0.2.11 account:contoso",
		"acme.1r1." + base + ` TXT "MS=ms1acme" account:contoso`,
		"acme.1r2." + base + " A 198.51.100.11 account:contoso",
		"acme.1r2." + base + ` TXT "MS=ms2acme" account:contoso`}
	if !slices.Equal(got, want) || z.Serial == 0 || z.RecordsInAll < int64(len(want)) {
		t.Errorf("zone %+v, want records %q", z, want)
	}

	r, err := d.client().CheckZone(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) > 0 || len(r.Servers) != 3 || r.Servers[2].Serial != z.Serial {
		t.Errorf("report %+v", r)
	}
	if left := time.Until(r.Until); left > time.Minute || r.Until.IsZero() {
		t.Errorf("who asked too early may be told so for another %v", left)
	}
	for _, x := range []struct {
		args string
		code int
		want string
	}{
		{"zone check acme.1r2", 0, "acme.1r2." + base},
		{"zone check", 1, "ns4.foreign.example"},
		{"zone show", 0, "ns1." + base + "."},
		{"zone show provapi", 0, "provapi." + base},
		{"zone show nosuch", 3, "no account has it as a label"},
		{"zone check x." + base, 3, "no account has it as a label"},
	} {
		if out, code := d.command(strings.Fields(x.args)...); code != x.code || !strings.Contains(out, x.want) {
			t.Errorf("%s: exit code %d, want %d:\n%s", x.args, code, x.code, out)
		}
	}
}
