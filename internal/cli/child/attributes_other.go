//go:build !linux

package child

import "syscall"

// attributes returns attributes that keep Ctrl-C from the child.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
