package uffd

import (
	"fmt"
	"math/bits"
	"strings"
)

// Features is a set of UFFD_FEATURE_* bits as negotiated by UFFDIO_API
// (userfaultfd(2), "UFFDIO_API"). Bits without a name here survive as they are.
type Features uint64

// The features, with the first kernel that has each.
const (
	PagefaultFlagWP  Features = 1 << iota // write-protect faults; Linux 5.7
	EventFork                             // fork events; 4.11, needs CAP_SYS_PTRACE
	EventRemap                            // mremap events; 4.11
	EventRemove                           // madvise MADV_DONTNEED, MADV_REMOVE and MADV_FREE events; 4.11
	MissingHugetlbfs                      // missing faults on hugetlbfs; 4.11
	MissingShmem                          // missing faults on shared memory; 4.11
	EventUnmap                            // munmap events; 4.11
	Sigbus                                // SIGBUS instead of fault messages; 4.14
	ThreadID                              // fault messages name the thread; 4.14
	MinorHugetlbfs                        // minor faults on hugetlbfs; 5.13
	MinorShmem                            // minor faults on shared memory; 5.14
	ExactAddress                          // fault addresses are not rounded down; 5.18
	WPHugetlbfsShmem                      // write-protect faults beyond anonymous memory; 5.19
	WPUnpopulated                         // write-protection of pages that are not there yet; 6.4
	Poison                                // UFFDIO_POISON; 6.6
	WPAsync                               // write-protect faults that resolve themselves; 6.7
	Move                                  // UFFDIO_MOVE; 6.8
)

// featureNames holds the header's names without UFFD_FEATURE_, by bit.
var featureNames = [...]string{
	"PAGEFAULT_FLAG_WP", "EVENT_FORK", "EVENT_REMAP", "EVENT_REMOVE", "MISSING_HUGETLBFS", "MISSING_SHMEM",
	"EVENT_UNMAP", "SIGBUS", "THREAD_ID", "MINOR_HUGETLBFS", "MINOR_SHMEM", "EXACT_ADDRESS", "WP_HUGETLBFS_SHMEM",
	"WP_UNPOPULATED", "POISON", "WP_ASYNC", "MOVE",
}

// Has reports whether every feature of want is in the set.
func (f Features) Has(want Features) bool { return f&want == want }

// String lists the names, separated by spaces, in the order of their bits; a bit
// without a name is written as a hexadecimal number. The empty set is "none".
func (f Features) String() string {
	if f == 0 {
		return "none"
	}
	var names []string
	for rest := uint64(f); rest != 0; rest &= rest - 1 {
		bit := bits.TrailingZeros64(rest)
		if bit < len(featureNames) {
			names = append(names, featureNames[bit])
		} else {
			names = append(names, fmt.Sprintf("%#x", uint64(1)<<bit))
		}
	}
	return strings.Join(names, " ")
}
