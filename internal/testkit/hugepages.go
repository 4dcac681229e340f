package testkit

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

const hugePages = "/sys/kernel/mm/hugepages/hugepages-2048kB/"

// HugePages sees to it that n huge pages of 2 MiB are free until the end of the
// test, and restores the size of the pool then. Where it may not or can't, the
// test is skipped. Two tests, also of different packages, must not do so at the
// same time; a lock keeps them apart.
func HugePages(t testing.TB, n int) {
	t.Helper()
	unlock, err := lockPool()
	if err != nil {
		t.Fatalf("lock the pool of huge pages: %v", err)
	}
	t.Cleanup(unlock)
	restore, err := raisePool(n)
	if err != nil {
		Skip(t, fmt.Sprintf("%d huge pages of 2 MiB are needed: %v", n, err), false)
	}
	t.Cleanup(func() {
		if err := restore(); err != nil {
			t.Errorf("restore the pool of huge pages: %v", err)
		}
	})
}

func lockPool() (unlock func(), err error) {
	return lockFile(os.TempDir() + "/faultline-hugepages.lock")
}

// raisePool makes the pool large enough for n pages more than are in use, if the
// kernel has them to give. The lock must be held until it is restored.
func raisePool(n int) (restore func() error, err error) {
	size, free, err := pool()
	if err != nil {
		return nil, err
	}
	restore = func() error { return nil }
	if free < n {
		if err := setPool(size + n - free); err != nil {
			return nil, err
		}
		restore = func() error { return setPool(size) }
	}
	if _, free, err = pool(); err == nil && free < n {
		err = fmt.Errorf("only %d are free", free)
	}
	if err != nil {
		return nil, errors.Join(err, restore())
	}
	return restore, nil
}

// pool reads how many huge pages there are, and how many are neither in use nor
// promised.
func pool() (size, free int, err error) {
	size, err = readNumber(hugePages + "nr_hugepages")
	if err != nil {
		return 0, 0, err
	}
	if free, err = readNumber(hugePages + "free_hugepages"); err != nil {
		return 0, 0, err
	}
	reserved, err := readNumber(hugePages + "resv_hugepages")
	return size, free - reserved, err
}

func setPool(n int) error {
	return os.WriteFile(hugePages+"nr_hugepages", []byte(strconv.Itoa(n)), 0)
}

func readNumber(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
