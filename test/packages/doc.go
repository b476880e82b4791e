// Package packages holds tests of what operators install, with the build tag deep: the Debian package in a Debian, the
// program as the container image has it, the alert rules and the dashboard on a Prometheus that scrapes Tandem.
package packages
