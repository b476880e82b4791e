// Package provisioning contains the contract of the Provisioning API as an OpenAPI document, for tests, for clients and
// for other implementations. It contains no functions.
package provisioning

import _ "embed" // for the documents

// Document20240229Preview is the OpenAPI 3.0.3 document of api-version 2024-02-29-preview.
//
//go:embed 2024-02-29-preview.yaml
var Document20240229Preview []byte
