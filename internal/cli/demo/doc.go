// Package demo is `tandem demo`: it starts Tandem and simulators of its neighbours, provisions customers and numbers
// over HTTP as a BSS would, places calls in both directions for every service, and shows the result.
//
// Tandem runs as a child process of the same program, with a configuration file, a data directory and tokens like any
// other, so the demonstration shows what an operator gets: it has no special access. What each call must look like on
// the far side is in internal/sim/fixtures, which were written from the published pages.
//
// Main type: Product, a running Tandem, which end-to-end tests use too. Main functions: Run, the demonstration, and
// StartLab, the simulators of tandem serve --lab.
package demo
