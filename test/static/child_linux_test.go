//go:build deep

package static

import "syscall"

// childAttributes end the program when the tests are killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
