// Package microsoft simulates the part of Microsoft's cloud that onboards a tenant to Direct Routing: the login, the
// Graph subset, and the HTTPS service behind the Teams administration module. Three strict HTTPS servers on ports of
// their own share the state of any number of tenants.
//
//	cloud, err := microsoft.New(microsoft.Config{Authority: authority, DNS: "127.0.0.1:5300"})
//	contoso := cloud.AddTenant(microsoft.Spec{Name: "contoso", Users: 500, Foreign: 3, Seed: 7})
//	cloud.Register(microsoft.App{ID: id, MultiTenant: true, …})
//	cloud.URL(microsoft.Graph) // "https://127.0.0.1:port"; paths begin with /v1.0
//
// It refuses what it does not know: paths, verbs, query options, names in $select and members of bodies. Refusals are
// the rows of data/refusals.json, each with its source; a test plays them all. What the real service answers was not
// measured: marks [K] (general knowledge) and [I] (inference) in that file and in comments name what to check first.
//
// State is changed by requests, or by Tenant.Edit as a person would; Tenant.Dump writes it for comparison. Nothing
// sleeps: Cloud.Advance moves the clock, with which delays, tokens and operations end. Cloud.Requests and
// Cloud.Mutations count; Cloud.Walk signs a person in without a browser.
//
// Cloud.Inject disturbs requests that match: refused before the effect (429 with any Retry-After, 5xx), connection
// broken after the effect, no answer before or after it, half of a list done, sign-in expired, claims challenge, any
// AADSTS code of the table. Parts of a batch are disturbed like requests of their own.
//
// The known pains of onboarding, by their number in the list of cases, and the switch that gives the input:
//
//	 1  Settings.ConsentRefusals, ConsentMissing, ConsentLag
//	 2  Tenant.Consent with fewer permissions than the App asks for; tokens keep the permissions that they have
//	 3  Settings.SignInFrequency, SignInError
//	 4  Tenant.Revoke, Tenant.Outdate; Fault Challenge. Without the capability cp1: a plain 401
//	 5  not here: it concerns the PowerShell worker's child
//	 6  always: purging is refused to applications; Settings.BinBlocksDomain has the remains block a domain, or not
//	 7  SKU.Enabled, Warning, Suspended, LockedOut, Extra, AppliesTo; Settings.WarningSeatsFail
//	 8  Settings.ExpireAtPage, PageLife; Tenant.ExpirePages
//	 9  always: @removed with "changed" and "deleted"; Tenant.LoseDelta, Settings.DeltaLostStatus: 410, 400
//	10  Fault Refuse with RetryAfter; batches are answered in reverse order; 424 for what depends on a failed part
//	11  Tenant.EndOperations: "skipped", "failed", "entryFailed", "running"
//	12  Settings.BlameOnPremises; State.Unlicense leaves plans as "Deleted"; Number.Source
//	13  Number.Target with an id that does not exist, VoiceApp; a user in the bin keeps its numbers
//	14  State.Unlicense on a holder: unassigning is refused
//	15  always: an extension makes another number; tel: is refused; a number without "+" is the same number
//	16  State.Groups and GroupGrants; groups within groups give nothing; Teams.User/users shows direct policies only
//	17  State.Configurations of the Global emergency policy; Add copies it; Settings.CopyGlobalNumbers for plain lists
//	18  Settings.OddReads; State.Configurations for what has an order; a route without priority gets one
package microsoft
