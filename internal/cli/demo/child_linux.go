package demo

import "syscall"

// childAttributes keep Ctrl-C from reaching the child past us, and end it when we are killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
