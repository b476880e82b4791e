package strictjson_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
)

// TestNamesCostNoMoreThanTheirLength: the path of each of many members below a long name must not copy that name.
func TestNamesCostNoMoreThanTheirLength(t *testing.T) {
	var b strings.Builder
	fmt.Fprintf(&b, `{"%s":{`, strings.Repeat("n", 256<<10))
	for i := range 10_000 {
		fmt.Fprintf(&b, `"%d":0,`, i)
	}
	b.WriteString(`"last":0}}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := strictjson.Parse([]byte(b.String())); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
		t.Errorf("a body of %d bytes took %d bytes of memory", b.Len(), used)
	}
}

func TestLongPathsAreCutInMessages(t *testing.T) {
	long := strings.Repeat("n", 1000)
	_, err := strictjson.Parse([]byte(`{"` + long + `":{"` + long + `":[{"a":1,"a":2}]}}`))
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != strictjson.CodeDuplicateField || f.Target != long[:300]+"…" {
		t.Errorf("%v, want DuplicateField at the first 300 bytes of the path", err)
	}
}

// TestTypeErrorsAreInWords: they name the member, its place, the type that it must have and the one that it has.
func TestTypeErrorsAreInWords(t *testing.T) {
	for body, want := range map[string]string{
		`{"numbers":[{},{},{},{"telephoneNumber":442079460123}]}`: "numbers[3].telephoneNumber must be a string, " +
			"not a number",
		`{"numbers":{}}`:                      "numbers must be an array, not an object",
		`{"numbers":[null]}`:                  "numbers[0] must be an object, not null",
		`{"numbers":[{"enabled":"true"}]}`:    "numbers[0].enabled must be a boolean, not a string",
		`{"numbers":[{"roles":[["x"]]}]}`:     "numbers[0].roles[0] must be a string, not an array",
		`{"numbers":[{"roles":true}]}`:        "numbers[0].roles must be an array, not a boolean",
		`{"numbers":[{"detail":"a number"}]}`: "numbers[0].detail must be an object, not a string",
		`[]`:                                  "the body must be an object, not an array",
		`7`:                                   "the body must be an object, not a number",
	} {
		n, err := strictjson.Parse([]byte(body))
		if err == nil {
			var r strictjson.Reader
			list := r.Object(n, "").Take("numbers", true)
			if r.Is(list, strictjson.KindArray, "numbers") {
				for i, item := range list.Items {
					o := r.Object(item, strictjson.Index("numbers", i))
					o.Str("telephoneNumber", false)
					o.Bool("enabled", false)
					o.Strings("roles", false)
					o.Child("detail", false)
				}
			}
			err = r.Err()
		}
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != strictjson.CodeInvalidType || f.Message != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}
