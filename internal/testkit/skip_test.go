package testkit

import (
	"fmt"
	"slices"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// A recorder is a TB that only takes notes.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()                      {}
func (r *recorder) Skip(args ...any)             { r.skipped = fmt.Sprint(args...) }
func (r *recorder) Fatalf(f string, args ...any) { r.failed = fmt.Sprintf(f, args...); panic(r) }

func (r *recorder) run(f func()) {
	defer func() { recover() }()
	f()
}

func TestSkipCantLie(t *testing.T) {
	for _, test := range []struct {
		ci            string
		could, failed bool
	}{{"", false, false}, {"", true, false}, {"true", false, false}, {"true", true, true}} {
		t.Setenv("CI", test.ci)
		var r recorder
		r.run(func() { Skip(&r, "no such device", test.could) })
		if (r.failed != "") != test.failed || (r.skipped != "") == test.failed {
			t.Errorf("%+v: skipped %q, failed %q", test, r.skipped, r.failed)
		}
	}
}

func TestHugePagesAreGivenBack(t *testing.T) {
	unlock, err := lockPool()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	before, free, err := pool()
	if err != nil {
		Skip(t, err.Error(), false)
	}
	restore, err := raisePool(free + 3)
	if err != nil {
		Skip(t, err.Error(), false)
	}
	if _, now, err := pool(); err != nil || now < free+3 {
		t.Errorf("%d huge pages are free: %v", now, err)
	}
	if err := restore(); err != nil {
		t.Error(err)
	}
	if after, _, err := pool(); err != nil || after != before {
		t.Errorf("the pool has %d pages, had %d: %v", after, before, err)
	}
}

func TestDescriptorsFindsALeak(t *testing.T) {
	before := Descriptors()
	unlock, err := lockFile(t.TempDir() + "/lock")
	if err != nil {
		t.Fatal(err)
	}
	if leaked := newDescriptors(before, Descriptors()); len(leaked) != 1 {
		t.Errorf("found %v, want the one file", leaked)
	}
	unlock()
	if !slices.Equal(before, Descriptors()) {
		t.Errorf("found %v, want %v", Descriptors(), before)
	}
}
