package fault

import (
	"errors"
	"syscall"
)

// CannotListen builds an error for a listener that cannot be opened: setting is the configuration's key of its address.
func CannotListen(setting, address string, cause error) *Error {
	text := "cannot listen on %s"
	switch {
	case errors.Is(cause, syscall.EADDRINUSE):
		text = "%s is in use; ss -lntup shows by which process. Configure another address, or run " +
			"tandem serve --free-ports"
	case errors.Is(cause, syscall.EADDRNOTAVAIL):
		text = "%s is no address of this machine; configure one that ip address shows"
	case errors.Is(cause, syscall.EACCES):
		text = "no permission to listen on %s; configure a port above 1023, or give the process CAP_NET_BIND_SERVICE"
	}
	return New(Internal, "CannotListen", text, address).At(setting).Because(cause)
}
