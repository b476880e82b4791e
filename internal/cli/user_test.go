package cli

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
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

// Users that were refused fail the command, all or some, with a summary after the table.
func TestRefusedUsersFailTheCommand(t *testing.T) {
	t.Parallel()
	refused := api.UserOutcome{User: "anna@contoso.example", Code: "NumberInUse", Reason: "it is Ben's"}
	accepted := api.UserOutcome{User: "ben@contoso.example", Number: "+442079460001"}
	for _, c := range []struct {
		users []api.UserOutcome
		code  int
		want  string
	}{
		{[]api.UserOutcome{accepted, accepted}, exitOK, "being"},
		{[]api.UserOutcome{refused, refused}, exitConflict, "UsersRefused: 2 of 2 users refused"},
		{[]api.UserOutcome{accepted, refused}, exitConflict, "UsersRefused: 1 of 2 users refused"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(api.UserOutcomes{Users: c.users})
		}))
		defer server.Close()
		for _, command := range []string{"user activate contoso anna@contoso.example --next-number",
			"user deactivate contoso anna@contoso.example"} {
			for _, output := range []string{"text", "json"} {
				var out, errs strings.Builder
				code := Run(t.Context(), Program{Args: append(strings.Fields(command), "--url", server.URL, "--output",
					output), Stdout: &out, Stderr: &errs})
				text := out.String() + errs.String()
				for _, x := range c.users {
					if !strings.Contains(out.String(), x.User) || !strings.Contains(out.String(), x.Reason) {
						t.Errorf("%s: no %q, %q in %s", command, x.User, x.Reason, &out)
					}
				}
				if code != c.code || c.code != exitOK && !strings.Contains(errs.String(), c.want) ||
					output == "text" && !strings.Contains(text, c.want) {
					t.Errorf("%s: exit code %d, want %d and %q:\n%s", command, code, c.code, c.want, text)
				}
			}
		}
	}
}
