package pager

import (
	"fmt"
	"time"
)

// ActionKind says what an Action asks for.
type ActionKind uint8

// What the core can ask of whoever runs it.
const (
	// ActionFetch: get the source's content of the span into slot Slot, without
	// waiting for it here, and report it with Core.Fetched.
	ActionFetch ActionKind = iota + 1
	// ActionCopy: install the span from slot Slot, at SlotOffset in it.
	ActionCopy
	// ActionZero: install zeros.
	ActionZero
	// ActionPoison: make accesses to the span raise SIGBUS.
	ActionPoison
	// ActionWake: let those who wait in the span try again.
	ActionWake
	// ActionRelease: nobody will ask for the content of slot Slot again.
	ActionRelease
	// ActionKill: the client can't be kept from seeing wrong bytes or from hanging
	// for ever; end it.
	ActionKill
)

var actionNames = [...]string{"", "fetch", "copy", "zero", "poison", "wake", "release", "kill"}

func (k ActionKind) String() string { return actionNames[k] }

// An Action is what Core.Next asks for. Fetch is answered by Core.Fetched; Copy,
// Zero, Poison, Wake and Kill by Core.Complete, each exactly once.
type Action struct {
	Kind ActionKind
	// Background is set where nobody waits: a loop looks for events again before
	// it takes another.
	Background bool
	Span       Span
	Slot       int
	SlotOffset uint64 // bytes

	first pageRef
	pages int
	block int32         // entry of Core.blocks, or -1
	since time.Duration // when the oldest fault that it answers was taken
}

// A Span is a range of the client's addresses and what it shows.
type Span struct {
	Address  uint64
	Size     uint64 // bytes
	Offset   uint64 // bytes into the source
	PageSize uint64
}

// String writes the action for logs and test failures.
func (a Action) String() string {
	return fmt.Sprintf("%v %#x+%#x slot %d+%#x", a.Kind, a.Span.Address, a.Span.Size, a.Slot, a.SlotOffset)
}

// Pages is the number of pages in the span.
func (s Span) Pages() int { return int(s.Size / s.PageSize) }

// Config is what a Core needs to know. Regions must be given; every other field
// has a useful zero value.
type Config struct {
	Regions []Region
	// BlockSize in bytes is the unit of fetching: a fault fetches and installs the
	// block around it. At least a page, at most 64; zero means 64 pages of 4 KiB.
	// The core cuts blocks at multiples of it in the source.
	BlockSize uint64
	// Slots is how many blocks may be fetched or held at once. Zero means 12: with
	// fewer the engine and its fetchers wait for each other's wake-ups (a full restore
	// took 198 ms with 8 and 160 ms with 12), and a session's memory stays within 0.2%
	// of a 2 GiB image.
	Slots int
	// Prefetch fills what nobody asked for yet, from the first region on, with at
	// most three quarters of the slots.
	Prefetch bool
	// FetchAttempts is how often content is asked for while someone waits for it
	// before the page is poisoned. Zero means 3.
	FetchAttempts int
	// FetchRetry is the first pause between two attempts; it doubles. Zero means 10 ms.
	FetchRetry time.Duration
	// Patience is how long the kernel may keep refusing to install anything before
	// the core fails closed. Zero means 10 s.
	Patience time.Duration
}

func (cfg Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.Slots, 12)
	def(&cfg.FetchAttempts, 3)
	if cfg.BlockSize == 0 {
		cfg.BlockSize = 64 * 4096
	}
	if cfg.FetchRetry == 0 {
		cfg.FetchRetry = 10 * time.Millisecond
	}
	if cfg.Patience == 0 {
		cfg.Patience = 10 * time.Second
	}
	return cfg
}
