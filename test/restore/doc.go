// Package restore runs the program as an operator does who puts a database back: by its commands.
package restore
