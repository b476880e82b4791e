package main

import (
	"bufio"
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	_ "modernc.org/sqlite" // Kamailio reads its numbers from a SQLite file

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/store"
	"github.com/tandemgw/tandem/internal/store/provisioning"
)

//go:embed uac.xml
var uac []byte

//go:embed uas.xml
var uas []byte

//go:embed kamailio.cfg
var kamailioConfig []byte

// number returns the i-th provisioned number. Operators get their numbers in blocks, so by default numbers come in
// blocks of 1,000 with gaps between them; scattered, any two are at least 97 apart, which is the worst case for an
// index that stores neighbours together.
func (o *options) number(i int) string {
	if o.scattered {
		return "+4420" + strconv.Itoa(10000000+(i*97)%89999999)
	}
	return "+4420" + strconv.Itoa(10000000+i/1000*20000+i%1000)
}

// value returns the i-th number's header value.
func value(i int) string { return fmt.Sprintf("c-%03d", (i+1)%1000) }

// called returns the outside number to call from the i-th number. Its last three digits repeat the header value, so
// that the called SIPp can detect a wrong one.
func called(i int) string { return fmt.Sprintf("+1555%04d%03d", i%9000+1000, (i+1)%1000) }

// prepare creates the data that the runs need, unless an earlier run has left it.
func prepare(o *options) error {
	done := filepath.Join(o.dir, "prepared")
	want := fmt.Sprintf("v2 %d %v", o.numbers, o.scattered)
	if b, err := os.ReadFile(done); err == nil && string(b) == want {
		return scenarios(o)
	}
	if err := os.RemoveAll(o.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	fmt.Printf("# preparing %d numbers in %s\n", o.numbers, o.dir)
	if err := provision(o); err != nil {
		return fmt.Errorf("provision numbers for Tandem: %w", err)
	}
	if err := kamailioNumbers(o); err != nil {
		return fmt.Errorf("write numbers for Kamailio: %w", err)
	}
	f, err := os.Create(filepath.Join(o.dir, "calls.csv"))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "RANDOM")
	r := rand.New(rand.NewPCG(1, 1))
	for range min(o.numbers, 100_000) {
		i := r.IntN(o.numbers)
		fmt.Fprintf(w, "%s;%s;\n", o.number(i), called(i))
	}
	if err := errors.Join(w.Flush(), f.Close(), os.WriteFile(done, []byte(want), 0o644)); err != nil {
		return err
	}
	return scenarios(o)
}

func scenarios(o *options) error {
	return errors.Join(os.WriteFile(filepath.Join(o.dir, "uac.xml"), uac, 0o644),
		os.WriteFile(filepath.Join(o.dir, "uas.xml"), uas, 0o644),
		os.WriteFile(filepath.Join(o.dir, "kamailio.cfg"), kamailioConfig, 0o644))
}

// provision fills Tandem's data directory through its own directory, as a bulk import does.
func provision(o *options) error {
	ctx := context.Background()
	data := filepath.Join(o.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	cfg, err := config.Load(config.Source{Data: data})
	if err != nil {
		return err
	}
	lock, err := db.LockDir(data)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	log := slog.New(slog.DiscardHandler)
	d, err := db.Open(ctx, cfg.Database, log, nil, store.Schemas()...)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	st := provisioning.New(d, outbox.New(d, cfg.Feed, log, nil), services.All().Services())
	dir := directory.New(st, directory.Config{}, log, nil)
	account := domain.Account{Name: "bench", HasServiceDetails: true,
		TeamsTenantID: "00000000-0000-4000-8000-000000000001",
		Services:      map[domain.Service]domain.AccountService{operatorconnect.Service: {Enabled: true}}}
	if _, err := dir.PutAccount(ctx, account, directory.Write{}); err != nil {
		return err
	}
	all := iter.Seq[domain.Number](func(yield func(domain.Number) bool) {
		for i := range o.numbers {
			n := domain.Number{TelephoneNumber: domain.E164(o.number(i)), AccountName: "bench", HasConfiguration: true,
				CustomSIPHeader: value(i),
				Services:        map[domain.Service]domain.NumberService{operatorconnect.Service: {Enabled: true}}}
			if !yield(n) {
				return
			}
		}
	})
	_, err = dir.Import(ctx, "bench", 0, all)
	return err
}

// kamailioNumbers writes the same numbers for Kamailio's hash table.
func kamailioNumbers(o *options) (err error) {
	d, err := sql.Open("sqlite", filepath.Join(o.dir, "numbers.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	for _, q := range []string{
		"create table version(id integer primary key, table_name varchar(32), table_version integer)",
		"insert into version(table_name,table_version) values('numbers',2)",
		"create table numbers(id integer primary key, key_name varchar(64), key_type integer default 0, value_type " +
			"integer default 0, key_value varchar(128), expires integer default 0)",
	} {
		if _, err := d.Exec(q); err != nil {
			return err
		}
	}
	tx, err := d.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	st, err := tx.Prepare("insert into numbers(key_name,key_type,value_type,key_value,expires) values(?,0,0,?,0)")
	if err != nil {
		return err
	}
	for i := range o.numbers {
		if _, err := st.Exec(o.number(i), value(i)); err != nil {
			return err
		}
	}
	return tx.Commit()
}
