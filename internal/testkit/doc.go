// Package testkit has what the tests of several packages need: a TestMain that
// finds leaks, skips that can't lie, huge pages, a snapshot file like a guest's,
// and a page server too simple to be wrong.
//
// It does not import testing, because the demo command uses its snapshot files;
// [TB] is satisfied by *testing.T, *testing.B and *testing.F.
package testkit

// TB is the part of testing.TB that is needed here.
type TB interface {
	Helper()
	Cleanup(func())
	Skip(args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}
