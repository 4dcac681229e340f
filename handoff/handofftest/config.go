package handofftest

import (
	"errors"
	"fmt"

	"faultline/uffd"
)

// A Version is a generation of Firecracker's handshake, named by the first
// release that spoke it.
type Version string

// The generations. The first two close the connection right after sending.
const (
	V1_1  Version = "1.1"  // no page size
	V1_7  Version = "1.7"  // page_size_kib
	V1_12 Version = "1.12" // page_size too
)

// HugePage is the only page size besides the default of 4096, in bytes.
const HugePage = 2 << 20

// Config says what client to start.
type Config struct {
	// Socket is the path at which the server listens.
	Socket string
	// Regions of the client's memory, at ascending addresses in this order.
	Regions []Region
	// PageSize in bytes: HugePage for hugetlbfs, 0 for 4096.
	PageSize uint64
	// Version of the message; "" is V1_12.
	Version Version
	// Reference is the path of a file with the content that the image must have;
	// "" expects zeros everywhere. It is mapped, so it must not shrink.
	Reference string
	// Features to negotiate; 0 is EVENT_REMOVE, as Firecracker does.
	Features uffd.Features
	// NoFeatures negotiates none at all, as Firecracker up to 1.11 did for a
	// guest without a balloon.
	NoFeatures bool
}

// A Region of the client's memory. Sizes and gaps must be multiples of
// Config.PageSize, offsets of 4096.
type Region struct {
	Size   uint64 // bytes
	Offset uint64 // bytes into the image and the reference
	Gap    uint64 // bytes of address space left unmapped before the region
}

var (
	// ErrGone means that the client process has ended.
	ErrGone = errors.New("the client is gone")
	// ErrNoHugePages means that the kernel's pool of huge pages can't hold the
	// client; raise vm.nr_hugepages.
	ErrNoHugePages = errors.New("not enough free huge pages")
	// ErrNoKVM means that this machine can't run a KVM guest.
	ErrNoKVM = errors.New("KVM is not available")
)

// normalize fills in the defaults and refuses what can't be mapped.
func (c Config) normalize() (Config, error) {
	if c.PageSize == 0 {
		c.PageSize = 4096
	}
	if c.Version == "" {
		c.Version = V1_12
	}
	if c.Features == 0 && !c.NoFeatures {
		c.Features = uffd.EventRemove
	}
	if c.PageSize != 4096 && c.PageSize != HugePage {
		return c, fmt.Errorf("page size %d: it must be 4096 or %d", c.PageSize, HugePage)
	}
	if len(c.Regions) == 0 {
		return c, errors.New("a client needs at least one region")
	}
	for i, r := range c.Regions {
		if r.Size == 0 || r.Size%c.PageSize != 0 || r.Gap%c.PageSize != 0 || r.Offset%4096 != 0 {
			return c, fmt.Errorf("region %d (size %#x, gap %#x, offset %#x) is empty or does not consist of whole pages of %d bytes",
				i, r.Size, r.Gap, r.Offset, c.PageSize)
		}
	}
	return c, nil
}
