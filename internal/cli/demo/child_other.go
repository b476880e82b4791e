//go:build !linux

package demo

import "syscall"

// childAttributes keep Ctrl-C from reaching the child past us.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
