// Package testkit has what the tests of several packages need: a TestMain that
// finds leaks, skips that can't lie, huge pages, and a page server too simple to be
// wrong.
package testkit
