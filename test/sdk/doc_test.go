// Package sdk_test has Microsoft's own libraries talk to the simulators, so that these are not checked by Tandem's own
// clients alone. Its tests are long ones (deep), because they install what they use.
package sdk_test
