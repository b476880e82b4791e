package record

import "errors"

// Files returns the closed files: those of calls, then those of refused calls, each oldest first.
func (s *Spool) Files() ([]string, error) {
	calls, err := s.calls.files(fileSuffix)
	refused, err2 := s.refused.files(fileSuffix)
	return append(calls, refused...), errors.Join(err, err2)
}
