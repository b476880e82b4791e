// Command docgen writes docs/cli.md from the commands themselves; run it with go generate, in internal/cli.
package main

import (
	"log"
	"os"

	"github.com/tandemgw/tandem/internal/cli"
)

func main() {
	log.SetFlags(0)
	if err := os.WriteFile("../../docs/cli.md", []byte(cli.Reference()), 0o644); err != nil {
		log.Fatal(err)
	}
}
