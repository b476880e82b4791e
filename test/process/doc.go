// Package process tests the program as a process: with a log that nothing reads, with a log reader that has ended, and
// under signals. It runs the built program.
package process
