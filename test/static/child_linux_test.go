//go:build deep

package static

import "syscall"

// childAttributes returns attributes that make the kernel kill the program when the tests are killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
