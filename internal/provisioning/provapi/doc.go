// Package provapi serves the Provisioning API, api-version 2024-02-29-preview, over HTTP: the 18 operations of the published
// contract (api/provisioning/2024-02-29-preview.yaml) on top of the directory.
//
// It holds what is HTTP and JSON and nothing else: the route table with the role each operation needs (route.go), reading
// of parameters, headers and bodies with an error that names what is wrong, rendering, page cursors, repeatable answers and
// the one mapping from faults to statuses (errors.go). Every rule about accounts and numbers is the directory's.
//
// The router is our own. The contract's actions put a colon into a path segment (/accounts/{name}:deleteNumbers), which
// net/http's patterns cannot say, and a number's "+" must be taken raw and as %2B; so paths are split and decoded here,
// against one table that the tests compare with the document. That also is why no server code is generated from it.
//
// Who asks, from where and how often is decided by the [Authenticator], [Sources] and [Limiter] handed in. The main type
// is [API], an http.Handler safe for concurrent use.
package provapi
