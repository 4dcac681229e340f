package uffd

import (
	"testing"
	"unsafe"
)

// The numbers that ioctl_userfaultfd(2) has on amd64 and arm64.
func TestRequestNumbers(t *testing.T) {
	for name, n := range map[string][2]uintptr{
		"UFFDIO_API":          {uffdioAPI, 0xc018aa3f},
		"UFFDIO_REGISTER":     {uffdioRegister, 0xc020aa00},
		"UFFDIO_UNREGISTER":   {uffdioUnregister, 0x8010aa01},
		"UFFDIO_WAKE":         {uffdioWake, 0x8010aa02},
		"UFFDIO_COPY":         {uffdioCopy, 0xc028aa03},
		"UFFDIO_ZEROPAGE":     {uffdioZeropage, 0xc020aa04},
		"UFFDIO_POISON":       {uffdioPoison, 0xc020aa08},
		"USERFAULTFD_IOC_NEW": {userfaultfdIocNew, 0xaa00},
		"struct uffd_msg":     {unsafe.Sizeof(Message{}), 32},
	} {
		if n[0] != n[1] {
			t.Errorf("%s is %#x, not %#x", name, n[0], n[1])
		}
	}
}

func FuzzParseInfo(f *testing.F) {
	f.Add([]byte("pos:\t0\nflags:\t02004002\nmnt_id:\t15\nino:\t1057\npending:\t0\ntotal:\t3\nAPI:\taa:80000008:1ffff\n"))
	f.Add([]byte("pending:\t1\ntotal:\t1\nAPI:\tab:0:1ffff\n"))
	f.Add([]byte("pending:\t-1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		info, err := parseInfo(text)
		if err == nil && info.Features&initialized != 0 {
			t.Errorf("the kernel's own bit shows in %v", info.Features)
		}
	})
}

func TestFeatureNames(t *testing.T) {
	for features, want := range map[Features]string{
		0:                                      "none",
		EventRemove | MissingShmem:             "EVENT_REMOVE MISSING_SHMEM",
		PagefaultFlagWP | Move | 1<<17 | 1<<63: "PAGEFAULT_FLAG_WP MOVE 0x20000 0x8000000000000000",
	} {
		if got := features.String(); got != want {
			t.Errorf("%#x is %q, not %q", uint64(features), got, want)
		}
	}
}
