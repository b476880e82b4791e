package edge

// Cause values of ITU-T Q.850, which Reason (RFC 3326) and call records carry.
const (
	causeNoAnswer                = 19  // no answer from user (user alerted)
	causeDestinationOutOfOrder   = 27  // destination out of order
	causeNormalUnspecified       = 31  // normal, unspecified
	causeTemporaryFailure        = 41  // temporary failure
	causeRecoveryOnTimerExpiry   = 102 // recovery on timer expiry
	causeInterworkingUnspecified = 127 // interworking, unspecified
)
