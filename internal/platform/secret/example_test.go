package secret_test

import (
	"errors"
	"fmt"

	"github.com/tandemgw/tandem/internal/platform/secret"
)

func ExampleKeyring() {
	ring, err := secret.Ephemeral() // a node opens the keyring in its data directory with secret.Open
	if err != nil {
		fmt.Println(err)
		return
	}
	at := secret.Place{Table: "signing_keys", Row: "k1", Column: "private"}
	sealed, err := ring.Seal(at, []byte("private key"))
	if err != nil {
		fmt.Println(err)
		return
	}
	plain, err := ring.Open(at, sealed)
	fmt.Println(string(plain), err)

	// A value copied over another row's does not open.
	_, err = ring.Open(secret.Place{Table: "signing_keys", Row: "k2", Column: "private"}, sealed)
	fmt.Println(errors.Is(err, secret.ErrNotOpened))
	// Output:
	// private key <nil>
	// true
}

func ExampleText() {
	s := secret.New("hunter2")
	fmt.Printf("%v %+v %q\n", s, struct{ Password secret.Text }{s}, s)
	fmt.Println(s.Reveal())
	// Output:
	// [secret] {Password:[secret]} [secret]
	// hunter2
}
