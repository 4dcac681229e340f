package testkit

import "testing"

import "os"

// Skip skips a test. With CI=true in the environment it fails instead if
// couldHaveRun says that this machine has what the test needs: a skip must not
// hide that nothing was tested.
func Skip(t testing.TB, why string, couldHaveRun bool) {
	t.Helper()
	if couldHaveRun && os.Getenv("CI") == "true" {
		t.Fatalf("skipped, although this machine could have run it: %s", why)
	}
	t.Skip("SKIPPED: " + why)
}

// HasKVM reports whether the machine has /dev/kvm, whether or not it may be used.
func HasKVM() bool {
	_, err := os.Stat("/dev/kvm")
	return err == nil
}
