// Package provapi serves the Provisioning API, api-version 2024-02-29-preview, over HTTP: the 18 operations of the
// published contract (api/provisioning/2024-02-29-preview.yaml) on top of the directory.
//
// It contains only HTTP and JSON: the route table with the role each operation needs (route.go), parsing of parameters,
// headers and bodies with errors that name what is wrong, rendering, page cursors, repeatable answers and the form of
// errors (errors.go); what all HTTP front ends share is in package web. All rules about accounts and numbers are in the
// directory. labels.go has the management API's operations on labels.
//
// The router is our own. The contract's actions put a colon into a path segment (/accounts/{name}:deleteNumbers), which
// net/http's patterns cannot express, and the "+" of a number must be accepted raw and as %2B; so paths are split and
// decoded here, against one table that the tests compare with the document. For the same reason no server code is
// generated from the document.
//
// The [Authenticator], [Sources] and [Limiter] in [Deps] decide who may call, from where and how often. The main type
// is [API], an http.Handler that is safe for concurrent use.
package provapi
