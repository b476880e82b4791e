package child

import "syscall"

// attributes returns attributes that keep Ctrl-C from the child, and kill it when its parent dies.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
