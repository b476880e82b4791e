//go:build !linux

package demo

import "syscall"

// childAttributes returns attributes that keep Ctrl-C from the child.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
