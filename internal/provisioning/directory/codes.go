package directory

// The error codes of the directory, as they appear in error.code and x-ms-error-code. The published contract names
// none, so these are ours; docs/provisioning-errors.md lists them for callers. The comment gives the kind and the HTTP
// status that follows from it.
const (
	// Not found (404).

	CodeAccountNotFound      = "AccountNotFound"               // no account with the name in the path or accountName
	CodeNumberNotFound       = "NumberNotFound"                // the number does not exist, or not on that account
	CodeLabelNotFound        = "LabelNotFound"                 // the account has no such Direct Routing label
	CodeRequestNotFound      = "RequestForInformationNotFound" // that tenant has made no request
	CodeCivicAddressNotFound = "CivicAddressNotFound"          // the account's Teams tenant has no such address

	// Invalid (400): the request as a whole.

	CodeBatchRejected        = "BatchRejected"        // at least one item is bad; details names them; nothing changed
	CodeTooManyItems         = "TooManyItems"         // more than 100 items
	CodeAccountHasNumbers    = "AccountHasNumbers"    // DELETE of an account with numbers, without deleteNumbers=true
	CodeInvalidPageSize      = "InvalidPageSize"      // Query.Limit or Query.Skip out of range
	CodeRepeatabilityInvalid = "RepeatabilityInvalid" // the repeatability id is empty or longer than 256 bytes

	// CodeRepeatabilityMismatch (400): the id was used for another request.
	CodeRepeatabilityMismatch = "RepeatabilityMismatch"
	// CodeRepeatabilityExpired (412, Repeatability-Result: rejected): first-sent is older than 24 hours or in the
	// future, so that it cannot be known whether the request has been executed.
	CodeRepeatabilityExpired = "RepeatabilityFirstSentOutOfRange"
	// CodeConditionNotMet (412): If-Match, If-None-Match or If-Unmodified-Since does not hold.
	CodeConditionNotMet = "ConditionNotMet"

	// Invalid (400): a field.

	CodeInvalidAccountName        = "InvalidAccountName"          // not 1–100 of letters, digits, "_" and "-"
	CodeInvalidCorrelationID      = "InvalidCorrelationId"        // longer than 1,024 bytes, or with control characters
	CodeInvalidTenantID           = "InvalidTenantId"             // not a GUID
	CodeInvalidSubdomain          = "InvalidSubdomain"            // no host label of 1–10, or a full name of over 48
	CodeInvalidSubdomainToken     = "InvalidSubdomainToken"       // not 1–100 of letters, digits, "=", "_" and "-"
	CodeInvalidTelephoneNumber    = "InvalidTelephoneNumber"      // not "+" and 2–15 digits, the first not 0
	CodeAccountNameMismatch       = "AccountNameMismatch"         // an item's accountName differs from the path's
	CodeDuplicateNumber           = "DuplicateNumber"             // the number appears earlier in the same batch
	CodeInvalidCustomSIPHeader    = "InvalidCustomSipHeader"      // not 1–100 of letters, digits, "_" and "-"
	CodeCustomHeaderUnsupported   = "CustomSipHeaderNotSupported" // no service enabled on the number carries the header
	CodeInvalidAssignmentStatus   = "InvalidAssignmentStatus"     // neither assigned nor unassigned
	CodeInvalidTeamsConfiguration = "InvalidTeamsConfiguration"   // usage missing, or a value too long
	CodeInvalidRelationship       = "InvalidCustomerRelationship" // status or comment too long
	CodeUnknownService            = "UnknownService"              // a service or setting that the resource cannot have
	CodeServiceNotEnabled         = "ServiceNotEnabledOnAccount"  // the account has not enabled the number's service
	CodeServicesExcludeEachOther  = "ServicesExcludeEachOther"    // two services that one number cannot have together

	// Conflict (409).

	CodeNumberElsewhere = "NumberAssignedToAnotherAccount" // delete it there first; the answer does not say where
	CodeServiceInUse    = "ServiceInUse"                   // numbers of the account use the service to be disabled
	CodeSubdomainInUse  = "SubdomainInUse"                 // numbers of the account use the subdomain to be changed
	CodeSubdomainTaken  = "SubdomainTaken"                 // another account has that subdomain, in whatever case
	CodeLabelOnboarded  = "LabelOnboarded"                 // the onboarding of the tenant owns the label and its tokens
	CodeLabelState      = "LabelState"                     // the label is not what the change needs: active, pending
	CodeTenantInUse     = "TeamsTenantIdInUse"             // numbers of tenant-bound services exist
)
