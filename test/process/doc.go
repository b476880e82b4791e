// Package process shows how the program behaves as a process: with a log that nothing reads, with a reader that went
// away, and under signals. It runs the built program.
package process
