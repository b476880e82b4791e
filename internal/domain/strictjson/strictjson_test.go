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
