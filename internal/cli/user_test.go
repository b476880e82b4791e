package cli

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "github.com/tandemgw/tandem/api/manage"
)

// Spellings of one number with extensions are read; others are named by their line, and not guessed.
func TestReadAssignments(t *testing.T) {
	t.Parallel()
	items, err := readAssignments("list.csv", []byte("\ufeffupn,number,callerID\r\n"+
		"a@x.example,tel:+3221231212;ext=1236\r\nb@x.example, 3221231212;ext=1237,Main\n\n# none\nc@x.example,\n"))
	want := []api.UserItem{{User: "a@x.example", Number: "tel:+3221231212;ext=1236"},
		{User: "b@x.example", Number: "3221231212;ext=1237", CallerID: "Main"}, {User: "c@x.example"}}
	if diff := cmp.Diff(want, items); diff != "" || err != nil {
		t.Errorf("items (-want +got):\n%s, %v", diff, err)
	}

	_, err = readAssignments("list.csv", []byte("a@x.example,+32 2 123 12 12 ext. 1238\n"+
		"b@x.example\nc@x.example,+3221231213\na@x.example,+3221231213\n"))
	for _, text := range []string{`list.csv, line 1: "+32 2 123 12 12 ext. 1238" is not a number`,
		"list.csv, line 2: want user,number[,callerID]", "line 4: a@x.example is also in line 1",
		"line 4: +3221231213 is also in line 3"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want one with %s", err, text)
		}
	}
	if _, usage := errors.AsType[usageError](err); !usage {
		t.Errorf("%v is not a mistake of the caller", err)
	}
}
