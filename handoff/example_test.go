package handoff_test

import (
	"fmt"

	"faultline/handoff"
)

// What a client sends is checked against the image before it is served.
func ExampleCheckRegions() {
	regions := []handoff.Region{
		{Address: 0x7f0000000000, Size: 3 << 30, Offset: 0, PageSize: 4096},
		{Address: 0x7f0100000000, Size: 1 << 30, Offset: 3 << 30, PageSize: 4096},
	}
	fmt.Println(handoff.CheckRegions(regions, 4<<30))
	regions[1].Address = 0x7f0080000000
	fmt.Println(handoff.CheckRegions(regions, 4<<30))
	// Output:
	// <nil>
	// bad regions: 0x7f0000000000+0xc0000000 and 0x7f0080000000+0x40000000 overlap
}
