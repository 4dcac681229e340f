package pager_test

import (
	"fmt"

	"faultline/pager"
)

// The core decides without a kernel: a fault goes in, actions come out.
func ExampleCore() {
	core, err := pager.NewCore(pager.Config{
		Regions:   []pager.Region{{Address: 0x10000000, Size: 1 << 20, Offset: 0, PageSize: 4096}},
		BlockSize: 4 * 4096,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	core.Fault(0x10005000) // somebody waits for the sixth page
	var a pager.Action
	for core.Next(&a) {
		fmt.Println(a.Kind, a.Span.Pages(), "pages at offset", a.Span.Offset)
		switch a.Kind {
		case pager.ActionFetch: // done at once here; its second page is all zeros
			core.Fetched(a, 0b0010, 0)
		case pager.ActionCopy, pager.ActionZero:
			core.Complete(a, int64(a.Span.Size), 0)
		}
	}
	fmt.Println(core.Stats().Absent, "pages are still absent")
	// Output:
	// fetch 4 pages at offset 16384
	// copy 1 pages at offset 16384
	// zero 1 pages at offset 20480
	// copy 2 pages at offset 24576
	// 252 pages are still absent
}
