package kvm

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"faultline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// ordinary memory, with a random word in each page.
func ordinary(t *testing.T, pages int) []byte {
	t.Helper()
	m, err := unix.Mmap(-1, 0, pages*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	for at := 0; at < len(m); at += 4096 {
		binary.LittleEndian.PutUint32(m[at:], rand.Uint32())
	}
	return m
}

func TestSum(t *testing.T) {
	const pages = 300
	m := ordinary(t, pages)
	for _, stride := range []int{1, 7, 299} {
		got, err := Sum([][]byte{m[:4096], m[4096:]}, uint64(stride))
		if errors.Is(err, ErrUnavailable) {
			testkit.Skip(t, err.Error(), testkit.HasKVM())
		}
		if err != nil {
			t.Fatal(err)
		}
		var want uint32
		for i := range pages {
			want = bits.RotateLeft32(want, 1) + binary.LittleEndian.Uint32(m[i*stride%pages*4096:])
		}
		if got != want {
			t.Errorf("stride %d: got %#x, want %#x", stride, got, want)
		}
	}
}

func TestSumRefuses(t *testing.T) {
	m := ordinary(t, 6)
	for _, test := range []struct {
		memory [][]byte
		stride uint64
	}{{nil, 1}, {[][]byte{m}, 2}, {[][]byte{m}, 0}, {[][]byte{m}, 7}, {[][]byte{m[:5000]}, 1}} {
		if _, err := Sum(test.memory, test.stride); err == nil {
			t.Errorf("%d mappings with stride %d were taken", len(test.memory), test.stride)
		}
	}
}
