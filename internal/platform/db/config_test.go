package db_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
)

// TestRemoteDatabaseNeedsTLS covers the values of libpq's sslmode; allow and prefer may fall back to plain text.
func TestRemoteDatabaseNeedsTLS(t *testing.T) {
	for _, key := range []string{"PGHOST", "PGSSLMODE", "PGSERVICE", "PGSSLROOTCERT"} { // os.Getenv is what pgx reads
		if _, set := os.LookupEnv(key); set {
			t.Skipf("%s is set", key)
		}
	}
	for url, host := range map[string]string{
		"postgres://u:secret@db.example/t":                                   "db.example",
		"postgres://u:secret@db.example/t?sslmode=disable":                   "db.example",
		"postgres://u:secret@db.example/t?sslmode=allow":                     "db.example",
		"postgres://u:secret@db.example/t?sslmode=prefer":                    "db.example",
		"postgresql://u:secret@192.0.2.1:5433/t":                             "192.0.2.1",
		"postgres://u:secret@[2001:db8::1]/t":                                "2001:db8::1",
		"postgres://u:secret@[::ffff:192.0.2.1]/t":                           "::ffff:192.0.2.1",
		"postgres://u:secret@127.0.0.1,b.example/t":                          "b.example",
		"postgres://u:secret@/t?host=db.example":                             "db.example",
		"host=db.example user=u password=secret":                             "db.example",
		"host='db.example' user=u password=secret sslmode=prefer":            "db.example",
		"host=/run/postgresql,db.example user=u password=secret":             "db.example",
		"postgres://u:secret@localhost.example/t":                            "localhost.example",
		"postgres://u:secret@db.example/t?sslmode=require":                   "",
		"postgres://u:secret@db.example/t?sslmode=verify-ca":                 "",
		"postgres://u:secret@db.example/t?sslmode=verify-full":               "",
		"postgres://u:secret@a.example,b.example/t?sslmode=verify-full":      "",
		"host=db.example user=u password=secret sslmode=verify-full":         "",
		"postgres://u:secret@localhost/t":                                    "",
		"postgres://u:secret@127.0.0.1/t":                                    "",
		"postgres://u:secret@127.9.9.9/t?sslmode=disable":                    "",
		"postgres://u:secret@[::1]:5432/t":                                   "",
		"postgres://u:secret@[::ffff:127.0.0.1]:5432/t":                      "",
		"postgres://u:secret@/t?host=/run/postgresql":                        "",
		"host=/run/postgresql user=u":                                        "",
		"host=@abstract user=u":                                              "",
		"postgres://u:secret@127.0.0.1,localhost/t":                          "",
		"postgres://u:secret@%2Frun%2Fpostgresql/t?sslmode=disable&user=abc": "",
	} {
		c := db.Default()
		c.Driver, c.URL = db.Postgres, url
		errs := c.Validate()
		switch {
		case host == "" && len(errs) > 0:
			t.Errorf("%s is refused: %v", url, errs)
		case host != "" && (len(errs) != 1 || fault.As(errs[0]).Target != "url"):
			t.Errorf("%s: %v, want one mistake at url", url, errs)
		case host != "":
			for _, want := range []string{"the connection to " + host + " may be without TLS", "sslmode=verify-full",
				"insecure: true"} {
				if !strings.Contains(fmt.Sprint(errs), want) {
					t.Errorf("%s: %v does not say %q", url, errs, want)
				}
			}
		}
		if strings.Contains(fmt.Sprint(errs), "secret") {
			t.Errorf("the mistake shows the password: %v", errs)
		}
		c.Insecure = true
		if errs := c.Validate(); len(errs) > 0 {
			t.Errorf("%s with insecure is refused: %v", url, errs)
		}
	}
}

func TestConnectionStringMistakes(t *testing.T) {
	for _, url := range []string{"nonsense", "mysql://db/t", "postgres://u:secret@2001:db8::1:5432/t",
		"postgres://u:secret@127.0.0.1/t?sslmode=strong", "postgres://u:se cret@127.0.0.1:x/t"} {
		c := db.Default()
		c.Driver, c.URL = db.Postgres, url
		errs := c.Validate()
		if len(errs) != 1 || fault.As(errs[0]).Target != "url" ||
			!strings.Contains(fmt.Sprint(errs), "IPv6 address in brackets") ||
			strings.Contains(fmt.Sprint(errs), "cret") {
			t.Errorf("%s: %v, want one mistake at url with a remedy and without the text", url, errs)
		}
	}
}

func TestConnectionStringFiles(t *testing.T) {
	c := db.Default()
	c.Driver, c.URL = db.Postgres, "postgres://u:secret@db.example/t?sslmode=verify-full&sslrootcert="+
		filepath.Join(t.TempDir(), "none.pem")
	if errs := c.Validate(); len(errs) > 0 {
		t.Errorf("the files of another machine are checked: %v", errs)
	}
	if err := c.CheckFiles(); err == nil || fault.As(err).Target != "url" ||
		!strings.Contains(err.Error(), "none.pem: no such file") || strings.Contains(err.Error(), "secret") {
		t.Errorf("CheckFiles = %v, want the missing file", err)
	}
	for _, url := range []string{"postgres://u@db.example/t?sslmode=verify-full", "postgres://u@127.0.0.1/t"} {
		if c.URL = url; c.CheckFiles() != nil {
			t.Errorf("CheckFiles of %s = %v", url, c.CheckFiles())
		}
	}
}
