package handofftest

import (
	"fmt"
	"time"
)

// MaxThreads is how many threads may touch pages at once, over all commands.
const MaxThreads = 32

// Via is how a page is accessed.
type Via string

// The ways.
const (
	ViaCPU     Via = ""        // a load or store, so the fault comes from user mode
	ViaPipe    Via = "pipe"    // write(2) from the page to a pipe, or read(2) into it
	ViaProcess Via = "process" // process_vm_readv or process_vm_writev of itself
)

// TouchSpec says which pages to touch, and how. The zero value reads all
// untouched pages, in order, from one thread.
type TouchSpec struct {
	// Pages to touch, in this order unless Random is set. nil means those that no
	// command has touched yet.
	Pages []uint64
	// Fraction of all the client's pages to touch at most; 0 is no limit.
	Fraction float64
	// Random touches in a random order that Seed determines. It is applied before
	// Fraction, so that a part is a random part.
	Random bool
	Seed   uint64
	// Threads share the pages; 0 is 1, and MaxThreads the most.
	Threads int
	// Write stores eight bytes, different each time and for each page, instead of
	// loading one. The rest of the page must keep its content.
	Write bool
	Via   Via
	// Storm sends signals to the touching threads all the while, which makes the
	// kernel report the same fault again and again.
	Storm bool
	// Samples asks for every latency, not only the summary.
	Samples bool
}

// TouchResult says how touching went.
type TouchResult struct {
	Count   uint64        // pages touched, poisoned ones included
	Wall    time.Duration // for all of them
	First   time.Duration // until the first was there
	Latency Latency       // of single accesses
	// Samples are the latencies in nanoseconds, sorted, if they were asked for.
	Samples []int64 `json:",omitempty"`
	// Poisoned are the pages whose access raised SIGBUS or failed with EFAULT.
	Poisoned []uint64 `json:",omitempty"`
}

// Latency summarizes the time of single accesses. Percentiles are exact: the
// time of the access at that rank.
type Latency struct {
	Min, Mean, P50, P90, P99, P999, Max time.Duration
}

// Touch accesses pages, one load or store each, and times every one.
func (c *Client) Touch(spec TouchSpec) (*TouchResult, error) {
	return call[*TouchResult](c, opTouch, spec)
}

// Write stores eight bytes into each of the pages, different ones every time.
func (c *Client) Write(pages ...uint64) error {
	if len(pages) == 0 {
		return nil
	}
	r, err := c.Touch(TouchSpec{Pages: pages, Write: true})
	if err == nil && len(r.Poisoned) > 0 {
		err = fmt.Errorf("client %d: write: pages %v are poisoned", c.PID, r.Poisoned)
	}
	return err
}

// A PageRange is Count pages from First.
type PageRange struct{ First, Count uint64 }

// CheckResult is the outcome of Check.
type CheckResult struct {
	Checked   uint64 // pages looked at
	Different uint64 // pages that had not the content they must have
	// First are the first differences, at most 16.
	First []Difference `json:",omitempty"`
}

// A Difference is a page that has not the content it must have.
type Difference struct {
	Page        uint64
	Address     uint64 // of the page, in the client
	ImageOffset uint64 // of the page's content, bytes into the image
	At          uint64 // the first byte that differs, from the start of the page
	Want        string // what must be there: "image", "zeros" or "own write"
	Saw         string // what is there: "image", "zeros", "SIGBUS" or bytes in hexadecimal
}

func (d Difference) String() string {
	return fmt.Sprintf("page %d (address %#x, image offset %#x) differs at byte %d: want %s, saw %s",
		d.Page, d.Address, d.ImageOffset, d.At, d.Want, d.Saw)
}

// Err is nil if nothing differed.
func (r *CheckResult) Err() error {
	if r.Different == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d pages have wrong content; the first: %v", r.Different, r.Checked, r.First[0])
}

// Check compares the given pages, or all if there are none, with what they must
// contain. It touches them.
func (c *Client) Check(pages ...uint64) (*CheckResult, error) {
	return call[*CheckResult](c, opCheck, pages)
}

// Balloon gives the pages up with madvise(MADV_DONTNEED), as a VMM does when a
// balloon inflates. It returns once the kernel has, which it does only after the
// server has read the event. From then on the pages must read zero.
func (c *Client) Balloon(ranges ...PageRange) error {
	_, err := call[struct{}](c, opBalloon, ranges)
	return err
}

// Poison says what an access to a page met.
type Poison struct {
	SIGBUS bool // a load raised it
	EFAULT bool // a system call that reads the page failed with it
}

// Poisoned accesses a page by a load and by a system call.
func (c *Client) Poisoned(page uint64) (Poison, error) {
	return call[Poison](c, opPoisoned, page)
}

// Resident lists the pages that are in memory, as mincore(2) tells, without
// touching any.
func (c *Client) Resident() ([]PageRange, error) {
	return call[[]PageRange](c, opResident, nil)
}

// GuestSpec says how a KVM guest walks over the client's memory.
type GuestSpec struct {
	// Stride is the distance, in units of 4096 bytes, between one page and the
	// next; 0 is 1. It must have no divisor in common with the number of pages,
	// and be smaller.
	Stride uint64
}

// GuestResult is what a guest computed.
type GuestResult struct {
	Pages uint64 // pages of 4096 bytes that it read
	// Sum goes over the first 32 bits of every page in the order of the walk:
	// rotated left by one, then added to. Want is the sum over what they must contain.
	Sum, Want uint32
	Wall      time.Duration // from before the machine was made
}

// RunGuest runs a virtual machine whose memory is all of the client's, at most
// 3 GiB, with one processor that reads a word of each page and adds them up. Its
// faults come from kernel mode. The error is ErrNoKVM where there is no /dev/kvm
// or the machine is not an amd64. A guest that meets a poisoned page fails, or,
// depending on the kernel, takes the client with it.
func (c *Client) RunGuest(spec GuestSpec) (*GuestResult, error) {
	return call[*GuestResult](c, opGuest, spec)
}
