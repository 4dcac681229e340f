package testkit

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"go.uber.org/goleak"
)

// Main runs the tests, checks that no goroutine and no descriptor is left, and
// exits. Call it from TestMain:
//
//	func TestMain(m *testing.M) { testkit.Main(m) }
func Main(m interface{ Run() int }) {
	before := descriptors()
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintf(os.Stderr, "after all tests goroutines are left: %v\n", err)
		code = 1
	}
	if leaked := newDescriptors(before, descriptors()); code == 0 && len(leaked) > 0 {
		fmt.Fprintf(os.Stderr, "after all tests %d descriptors are left open: %s\n", len(leaked), strings.Join(leaked[:min(len(leaked), 10)], ", "))
		code = 1
	}
	os.Exit(code)
}

// Descriptors lists the open descriptors of this process, as "NUMBER -> what",
// less those of the runtime's poller. Compare two lists to find a leak.
func Descriptors() []string { return descriptors() }

func descriptors() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasSuffix(link, "/fd") { // the directory we are reading
			continue
		}
		if link == "anon_inode:[eventpoll]" || link == "anon_inode:[eventfd]" {
			continue
		}
		list = append(list, e.Name()+" -> "+link)
	}
	return list
}

func newDescriptors(before, after []string) []string {
	return slices.DeleteFunc(after, func(d string) bool { return slices.Contains(before, d) })
}
