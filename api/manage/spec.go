// Package manage contains the contract of the management API: what Tandem offers beyond the published Provisioning API.
// The document is written by hand before the code; server and client are tested against it.
package manage

import _ "embed"

//go:generate go tool -modfile=../../tools/go.mod oapi-codegen -config codegen.yaml v1.yaml

// V1 is the OpenAPI 3.0.3 document of version 1, as YAML.
//
//go:embed v1.yaml
var V1 []byte
