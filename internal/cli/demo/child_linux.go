package demo

import "syscall"

// childAttributes returns attributes that keep Ctrl-C from the child, and kill it when its parent dies.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
