package zone

// Serial is the serial number of a version of the zone (RFC 1035 §3.3.13). It is never 0 (RFC 2136 §7.11).
type Serial uint32

// After reports whether s is newer than t, by the serial number arithmetic of RFC 1982 §3.2. It is false both ways if
// they are 2³¹ apart.
func (s Serial) After(t Serial) bool { return s != t && s-t < 1<<31 }

// Next returns the serial that follows s: at, the time in seconds, if that is newer, else one more than s. The serials
// of an old copy of the database, restored, thus continue above those handed out before.
func (s Serial) Next(at uint32) Serial {
	next := s + 1
	if t := Serial(at); t.After(next) {
		next = t
	}

	return max(next, 1)
}
