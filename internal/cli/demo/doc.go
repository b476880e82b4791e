// Package demo is `tandem demo`: it starts Tandem and the simulated neighbours it stands between, provisions customers and
// numbers over HTTP as a BSS would, places calls both ways for every service, and shows what happened.
//
// Tandem runs as a child process of the very program the demo is part of, with a configuration file, a data directory and
// tokens like any other, so that what the demo shows is what an operator gets: there is no special way in. What each call
// must look like on the far side comes from internal/sim/fixtures, which were written from the published pages.
//
// Main types: Product is a running Tandem; Command is the command. End-to-end tests start Product too.
package demo
