package handofftest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"faultline/internal/kvm"
)

// runGuest has a virtual machine read every page.
func (m *memory) runGuest(spec GuestSpec) (*GuestResult, error) {
	stride := max(1, spec.Stride)
	var memory [][]byte
	result := &GuestResult{}
	for _, r := range m.regions {
		memory = append(memory, r.bytes)
		result.Pages += r.Size / 4096
	}
	begin := time.Now()
	sum, err := kvm.Sum(memory, stride)
	if errors.Is(err, kvm.ErrUnavailable) {
		return nil, fmt.Errorf("%w: %w", ErrNoKVM, err)
	} else if err != nil {
		return nil, err
	}
	result.Wall = time.Since(begin)
	result.Sum, result.Want = sum, m.wantSum(result.Pages, stride)
	for n := range m.pages {
		m.state[n].touched.Store(true)
	}
	return result, nil
}

// wantSum computes what the guest must get. No write covers the start of a page
// of 4096 bytes, so only balloons matter.
func (m *memory) wantSum(pages, stride uint64) (sum uint32) {
	small := m.pageSize / 4096
	for i, at := uint64(0), uint64(0); i < pages; i++ {
		var word uint32
		if n := at / small; !m.state[n].ballooned.Load() {
			word = binary.LittleEndian.Uint32(m.image(n)[at%small*4096:])
		}
		sum = bits.RotateLeft32(sum, 1) + word
		if at += stride; at >= pages {
			at -= pages
		}
	}
	return sum
}
