// Package restore tests the restore of a database with the program's commands, as an operator runs them.
package restore
