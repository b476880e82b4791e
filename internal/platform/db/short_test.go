//go:build !deep

package db_test

const cutStep = 13 // statements between the points at which an upgrade is interrupted
