//go:build !amd64

package kvm

import (
	"fmt"
	"runtime"
)

// Sum is only there on amd64; elsewhere it fails with ErrUnavailable.
func Sum([][]byte, uint64) (uint32, error) {
	return 0, fmt.Errorf("run a guest on %s: %w: its code is for amd64", runtime.GOARCH, ErrUnavailable)
}
