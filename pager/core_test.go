package pager

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testBase = 0x10000000

// testCore has one region of 16 pages in blocks of four.
func testCore(t *testing.T, cfg Config) *Core {
	t.Helper()
	if cfg.Regions == nil {
		cfg.Regions = []Region{{Address: testBase, Size: 16 * modelPage, PageSize: modelPage}}
	}
	if cfg.BlockSize == 0 {
		cfg.BlockSize = 4 * modelPage
	}
	c, err := NewCore(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// mustNext takes the next action, which must be of the given kind and cover pages
// of the first region.
func mustNext(t *testing.T, c *Core, kind ActionKind, first, pages uint64) Action {
	t.Helper()
	var a Action
	ok := c.Next(&a)
	if !ok || a.Kind != kind || a.Span.Address != testBase+first*modelPage || a.Span.Size != pages*modelPage {
		t.Fatalf("the next action is %v (%v), not %v of %d pages from %d", a, ok, kind, pages, first)
	}
	return a
}

func mustIdle(t *testing.T, c *Core) {
	t.Helper()
	if a := (Action{}); c.Next(&a) {
		t.Fatalf("there is %v to do", a)
	}
}

// ready brings the core to where the block around a page, at which somebody waits,
// has been fetched.
func ready(t *testing.T, c *Core, page uint64) {
	t.Helper()
	c.Fault(testBase + page*modelPage)
	c.Fetched(mustNext(t, c, ActionFetch, page/4*4, 4), 0, 0)
}

func finished(c *Core, a Action) { c.Complete(a, int64(a.Span.Size), 0) }

func TestFaultFetchesAndCopiesTheBlock(t *testing.T) {
	c := testCore(t, Config{})
	ready(t, c, 6)
	finished(c, mustNext(t, c, ActionCopy, 4, 4))
	mustIdle(t, c)
	if s := c.Stats(); s.PagesCopied != 4 || s.Absent != 12 || s.Content.Count != 1 {
		t.Errorf("figures: %+v", s)
	}
}

func TestZerosInTheSourceAreNotCopied(t *testing.T) {
	c := testCore(t, Config{})
	c.Fault(testBase)
	c.Fetched(mustNext(t, c, ActionFetch, 0, 4), 0b0110, 0)
	finished(c, mustNext(t, c, ActionCopy, 0, 1))
	finished(c, mustNext(t, c, ActionZero, 1, 2))
	finished(c, mustNext(t, c, ActionCopy, 3, 1))
	mustIdle(t, c)
}

// Regions may begin anywhere in the source; blocks are cut by the source's offsets.
func TestBlocksFollowTheSource(t *testing.T) {
	c := testCore(t, Config{Regions: []Region{{Address: testBase, Size: 16 * modelPage, Offset: 3 * modelPage, PageSize: modelPage}}})
	c.Fault(testBase)
	if a := mustNext(t, c, ActionFetch, 0, 1); a.Span.Offset != 3*modelPage {
		t.Errorf("offset %#x", a.Span.Offset)
	}
	c.Fault(testBase + 15*modelPage)
	if a := mustNext(t, c, ActionFetch, 13, 3); a.Span.Offset != 16*modelPage {
		t.Errorf("offset %#x", a.Span.Offset)
	}
}

func TestRepeatedFaultsCollapse(t *testing.T) {
	c := testCore(t, Config{})
	for range 1000 {
		c.Fault(testBase + 5*modelPage)
	}
	a := mustNext(t, c, ActionFetch, 4, 4)
	mustIdle(t, c)
	c.Fetched(a, 0, 0)
	c.Fault(testBase + 5*modelPage)
	finished(c, mustNext(t, c, ActionCopy, 4, 4))
	mustIdle(t, c)
	if s := c.Stats(); s.Duplicates != 1000 {
		t.Errorf("%d of 1001 faults count as repeated", s.Duplicates)
	}
	c.Remove(testBase+5*modelPage, modelPage)
	for range 1000 {
		c.Fault(testBase + 5*modelPage)
	}
	if c.pages.n != 1 {
		t.Errorf("%d faults on one page are queued", c.pages.n)
	}
	finished(c, mustNext(t, c, ActionZero, 5, 1))
	mustIdle(t, c)
}

// A copy that is refused after its page was removed must not take the waiter along.
func TestRefusalAfterARemoval(t *testing.T) {
	c := testCore(t, Config{})
	ready(t, c, 1)
	a := mustNext(t, c, ActionCopy, 0, 4)
	c.Remove(testBase+modelPage, modelPage)
	c.Complete(a, 0, unix.EAGAIN)
	at, _ := c.Deadline()
	c.Tick(at)
	finished(c, mustNext(t, c, ActionZero, 1, 1))
	finished(c, mustNext(t, c, ActionCopy, 0, 1))
	finished(c, mustNext(t, c, ActionCopy, 2, 2))
	mustIdle(t, c)
}

// A negotiated EXACT_ADDRESS leaves addresses as they were.
func TestAddressesInsideAPage(t *testing.T) {
	c := testCore(t, Config{FetchAttempts: 1})
	c.Fault(testBase + 4*modelPage + 0x123)
	c.Fetched(mustNext(t, c, ActionFetch, 4, 4), 0, 0b1111)
	mustNext(t, c, ActionPoison, 4, 1)
}

// A removal that is read while a copy is on its way takes the page out of its hands:
// the page is given up after the copy lands, however late its completion is told.
func TestRemovalTakesTheClaimAway(t *testing.T) {
	c := testCore(t, Config{})
	ready(t, c, 1)
	a := mustNext(t, c, ActionCopy, 0, 4)
	c.Remove(testBase+modelPage, 2*modelPage)
	mustIdle(t, c)
	finished(c, a)
	finished(c, mustNext(t, c, ActionZero, 1, 1)) // whoever waits is answered anew
	mustIdle(t, c)
	for p, want := range []page{present, present, removed, present} {
		if got := c.state(pageRef{0, uint32(p)}); got != want {
			t.Errorf("page %d is %04b, not %04b", p, got, want)
		}
	}
}

func TestFaultOutsideEveryRegionCondemns(t *testing.T) {
	c := testCore(t, Config{})
	c.Fault(testBase - 1)
	if a := (Action{}); !c.Next(&a) || a.Kind != ActionKill {
		t.Errorf("next is %v", a)
	}
	mustIdle(t, c)
}

// What someone waits for goes before what nobody does, even if that was ready first.
func TestDemandGoesFirst(t *testing.T) {
	c := testCore(t, Config{Prefetch: true, Slots: 4})
	first := mustNext(t, c, ActionFetch, 0, 4)
	second := mustNext(t, c, ActionFetch, 4, 4)
	third := mustNext(t, c, ActionFetch, 8, 4)
	if !first.Background || !second.Background || !third.Background {
		t.Error("prefetching is not marked as background")
	}
	mustIdle(t, c) // a quarter of the slots is kept for demand
	c.Fetched(first, 0, 0)
	c.Fetched(second, 0, 0)
	ready(t, c, 12)
	if a := mustNext(t, c, ActionCopy, 12, 4); a.Background {
		t.Error("demand is marked as background")
	}
	if a := mustNext(t, c, ActionCopy, 0, 4); !a.Background {
		t.Error("a copy that nobody waits for is not marked as background")
	}
}

// A prefetched block that somebody then wants is demand.
func TestPrefetchBecomesDemand(t *testing.T) {
	c := testCore(t, Config{Prefetch: true, Slots: 4})
	first := mustNext(t, c, ActionFetch, 0, 4)
	second := mustNext(t, c, ActionFetch, 4, 4)
	c.Fetched(first, 0, 0)
	c.Fetched(second, 0, 0)
	c.Fault(testBase + 7*modelPage)
	if a := mustNext(t, c, ActionCopy, 4, 4); a.Background {
		t.Error("it is marked as background")
	}
	finished(c, mustNext(t, c, ActionCopy, 0, 4))
}

// The kernel reports parts of a huge page and gives up only the whole.
func TestRemoveOfPartOfAHugePage(t *testing.T) {
	const huge = 2 << 20
	c := testCore(t, Config{Regions: []Region{{Address: 64 * huge, Size: 4 * huge, PageSize: huge}}})
	c.Remove(64*huge+4096, 2*huge) // all of page 1, and parts of 0 and 2
	for p, want := range []page{absent, removed, absent, absent} {
		if got := c.state(pageRef{0, uint32(p)}); got != want {
			t.Errorf("page %d is %04b, not %04b", p, got, want)
		}
	}
}

func TestRemoveReachesPastTheRegion(t *testing.T) {
	c := testCore(t, Config{})
	c.Remove(testBase-4*modelPage, 6*modelPage)
	c.Remove(testBase+15*modelPage, 1<<40)
	c.Remove(testBase+4*modelPage, ^uint64(0))
	if s := c.Stats(); s.Absent != 13 {
		t.Errorf("%d pages are absent, not 13", s.Absent)
	}
}

// A recorded page at which somebody faults all the same was mostly just late, and
// only has to be woken. Where it is missing, the client gave it up and could not say
// so; waking would repeat for ever.
func TestFaultOnAPresentPage(t *testing.T) {
	for _, present := range []bool{true, false} {
		c := testCore(t, Config{})
		ready(t, c, 0)
		finished(c, mustNext(t, c, ActionCopy, 0, 4))
		c.Fault(testBase + 2*modelPage)
		a := mustNext(t, c, ActionZero, 2, 1)
		if present {
			c.Complete(a, 0, unix.EEXIST)
			mustNext(t, c, ActionWake, 2, 1)
		} else {
			finished(c, a)
		}
		mustIdle(t, c)
	}
}

// Poison is never replaced by zeros, which a late message could ask for.
func TestFaultOnAPoisonedPage(t *testing.T) {
	c := testCore(t, Config{FetchAttempts: 1})
	c.Fault(testBase)
	c.Fetched(mustNext(t, c, ActionFetch, 0, 4), 0, 0b1111)
	finished(c, mustNext(t, c, ActionPoison, 0, 1))
	c.Fault(testBase)
	c.Complete(mustNext(t, c, ActionPoison, 0, 1), 0, unix.EEXIST)
	mustNext(t, c, ActionWake, 0, 1)
	c.Fault(testBase)
	mustNext(t, c, ActionPoison, 0, 1)
}

func TestEveryAttemptIsMadeBeforePoison(t *testing.T) {
	c := testCore(t, Config{FetchAttempts: 3, FetchRetry: time.Millisecond})
	c.Fault(testBase + modelPage)
	for attempt := range 3 {
		c.Fetched(mustNext(t, c, ActionFetch, 0, 4), 0, 0b0010)
		if attempt == 0 { // the rest of the block is not held back
			finished(c, mustNext(t, c, ActionCopy, 0, 1))
			finished(c, mustNext(t, c, ActionCopy, 2, 2))
		}
		if attempt == 2 {
			break
		}
		mustIdle(t, c)
		at, ok := c.Deadline()
		if !ok {
			t.Fatal("nothing is due, and no event may ever come")
		}
		c.Tick(at)
	}
	finished(c, mustNext(t, c, ActionPoison, 1, 1))
	mustIdle(t, c)
}

// Zeros can always be had, also where the content that was there before could not.
func TestRemovalEndsADecisionToPoison(t *testing.T) {
	c := testCore(t, Config{FetchAttempts: 1})
	c.Fault(testBase)
	c.Fetched(mustNext(t, c, ActionFetch, 0, 4), 0, 0b1111)
	c.Remove(testBase, modelPage)
	finished(c, mustNext(t, c, ActionZero, 0, 1))
	mustIdle(t, c)
}

// Nobody is harmed by what nobody asks for.
func TestFailedPrefetchPoisonsNothing(t *testing.T) {
	c := testCore(t, Config{Prefetch: true})
	c.Fetched(mustNext(t, c, ActionFetch, 0, 4), 0, 0b1111)
	mustNext(t, c, ActionFetch, 4, 4)
	if c.Stats().PagesPoisoned != 0 || c.Filled() {
		t.Error("the block is not simply left absent")
	}
}

func TestBusyIsRetriedAfterAPause(t *testing.T) {
	c := testCore(t, Config{})
	ready(t, c, 0)
	a := mustNext(t, c, ActionCopy, 0, 4)
	for range 1000 { // without limit: a client may be frozen inside a madvise
		c.Complete(a, 0, unix.EAGAIN)
		mustIdle(t, c)
		at, ok := c.Deadline()
		if !ok || at <= c.now || at > c.now+maxBackoff {
			t.Fatalf("deadline %v (%v) at %v", at, ok, c.now)
		}
		c.Tick(at)
		a = mustNext(t, c, ActionCopy, 0, 4)
	}
	c.Complete(a, 2*modelPage, unix.EAGAIN) // it came half-way
	at, _ := c.Deadline()
	c.Tick(at)
	finished(c, mustNext(t, c, ActionCopy, 2, 2))
	mustIdle(t, c)
}

func TestOutOfMemoryFailsClosed(t *testing.T) {
	c := testCore(t, Config{Patience: time.Second})
	ready(t, c, 0)
	kinds := map[ActionKind]int{}
	for range 10_000 {
		var a Action
		if !c.Next(&a) {
			at, due := c.Deadline()
			if !due {
				break
			}
			c.Tick(at)
			continue
		}
		kinds[a.Kind]++
		if a.Kind == ActionKill {
			if c.now < 2*time.Second {
				t.Errorf("killed after %v", c.now)
			}
			break
		}
		c.Complete(a, 0, unix.ENOMEM)
	}
	if kinds[ActionCopy] == 0 || kinds[ActionPoison] == 0 || kinds[ActionKill] != 1 {
		t.Errorf("actions: %v", kinds)
	}
}

// A span over several mappings is tried page by page, and nothing is dropped.
func TestSpanOverSeveralMappings(t *testing.T) {
	c := testCore(t, Config{})
	ready(t, c, 2)
	c.Complete(mustNext(t, c, ActionCopy, 0, 4), 0, unix.ENOENT)
	finished(c, mustNext(t, c, ActionCopy, 0, 1))
	finished(c, mustNext(t, c, ActionCopy, 1, 1))
	c.Complete(mustNext(t, c, ActionCopy, 2, 1), 0, unix.ENOENT) // in no mapping
	mustNext(t, c, ActionWake, 2, 1)
	finished(c, mustNext(t, c, ActionCopy, 3, 1))
	mustIdle(t, c)
	c.Fault(testBase + 2*modelPage) // new memory is there
	finished(c, mustNext(t, c, ActionZero, 2, 1))
}

// What could not be had when nobody asked for it is tried again before a client is
// left to itself.
func TestLeaveTriesUntilAllIsThere(t *testing.T) {
	c := testCore(t, Config{Prefetch: true})
	for first := uint64(0); first < 16; first += 4 {
		a := mustNext(t, c, ActionFetch, first, 4)
		c.Fetched(a, 0, 0b0100)
		finished(c, mustNext(t, c, ActionCopy, first, 2))
		finished(c, mustNext(t, c, ActionCopy, first+3, 1))
	}
	mustIdle(t, c)
	c.Leave()
	for range 3 {
		for first := uint64(0); first < 16; first += 4 {
			c.Fetched(mustNext(t, c, ActionFetch, first, 4), 0, 0b0100)
		}
		mustIdle(t, c)
		at, ok := c.Deadline()
		if !ok || c.Filled() {
			t.Fatal("the attempts have ended")
		}
		c.Tick(at)
	}
	for first := uint64(0); first < 16; first += 4 {
		c.Fetched(mustNext(t, c, ActionFetch, first, 4), 0, 0)
		finished(c, mustNext(t, c, ActionCopy, first+2, 1))
	}
	if !c.Filled() {
		t.Error("it is not filled")
	}
}

// A source page that the kernel can't read is like one that could not be fetched.
func TestUnreadableContent(t *testing.T) {
	c := testCore(t, Config{FetchAttempts: 2, FetchRetry: 1})
	ready(t, c, 1)
	c.Complete(mustNext(t, c, ActionCopy, 0, 4), modelPage, unix.EFAULT)
	c.Complete(mustNext(t, c, ActionCopy, 1, 1), 0, unix.EFAULT)
	finished(c, mustNext(t, c, ActionCopy, 2, 1))
	finished(c, mustNext(t, c, ActionCopy, 3, 1))
	mustIdle(t, c)
	c.Tick(1)
	c.Fetched(mustNext(t, c, ActionFetch, 0, 4), 0, 0)
	c.Complete(mustNext(t, c, ActionCopy, 1, 1), 0, unix.EFAULT)
	finished(c, mustNext(t, c, ActionPoison, 1, 1))
	mustIdle(t, c)
}

func TestRefusedPoisonCondemns(t *testing.T) {
	c := testCore(t, Config{FetchAttempts: 1})
	c.Fault(testBase)
	c.Fetched(mustNext(t, c, ActionFetch, 0, 4), 0, 1)
	finished(c, mustNext(t, c, ActionCopy, 1, 3))
	c.Complete(mustNext(t, c, ActionPoison, 0, 1), 0, unix.EINVAL) // before Linux 6.6
	if a := (Action{}); !c.Next(&a) || a.Kind != ActionKill {
		t.Errorf("next is %v", a)
	}
}

func TestAddressSpaceGone(t *testing.T) {
	c := testCore(t, Config{Prefetch: true})
	ready(t, c, 0)
	c.Complete(mustNext(t, c, ActionCopy, 0, 4), 0, unix.ESRCH)
	mustIdle(t, c)
	if s := c.Stats(); !c.Ended() || s.PagesCopied != 0 {
		t.Errorf("ended: %v, %+v", c.Ended(), s)
	}
}

func TestBadRegions(t *testing.T) {
	r := Region{Address: testBase, Size: 16 * modelPage, PageSize: modelPage}
	for name, regions := range map[string][]Region{
		"none":        {},
		"empty":       {{Address: testBase, PageSize: modelPage}},
		"misaligned":  {{Address: testBase + 1, Size: modelPage, PageSize: modelPage}},
		"half a page": {{Address: testBase, Size: 100, PageSize: modelPage}},
		"no pages":    {{Address: testBase, Size: modelPage}},
		"odd pages":   {{Address: testBase, Size: 3000, PageSize: 3000}},
		"overflow":    {{Address: 1<<64 - modelPage, Size: 2 * modelPage, PageSize: modelPage}},
		"overlap":     {r, {Address: testBase + 15*modelPage, Size: modelPage, PageSize: modelPage}},
	} {
		if _, err := NewCore(Config{Regions: regions}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// In its stride, faults that are answered one after another, a core allocates
// nothing.
func TestHotPathAllocatesNothing(t *testing.T) {
	const pages = 1 << 16
	c := testCore(t, Config{Regions: []Region{{Address: testBase, Size: pages * modelPage, PageSize: modelPage}}, BlockSize: modelPage})
	var a Action
	p := uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		c.Fault(testBase + p*modelPage)
		p++
		c.Next(&a)
		c.Fetched(a, 0, 0)
		c.Next(&a)
		finished(c, a)
	}); n != 0 {
		t.Errorf("%v allocations a fault", n)
	}
}

func TestHistogramQuantiles(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	for d := time.Duration(1); d <= 1000; d++ {
		h.Add(d * time.Microsecond)
	}
	for q, exact := range map[float64]time.Duration{0: 1, 0.5: 500, 0.99: 990, 1: 1000} {
		exact *= time.Microsecond
		if got := h.Quantile(q); got < exact || got > exact+exact/4+1 {
			t.Errorf("quantile %v is %v, should be within 25%% above %v", q, got, exact)
		}
	}
	for i := range len(h.Buckets) {
		if b := bucket(bucketEnd(i)); b != i {
			t.Errorf("bucket %d ends at %v, which is in bucket %d", i, bucketEnd(i), b)
		}
	}
}
