// Package mutants holds the tests to their word: each rule of the kernel that the
// engine lives by is broken in turn, in a copy of one file, and the test that is
// said to guard it must fail.
package mutants

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A mutant is a rule, how to break it, and the test that notices.
type mutant struct {
	rule     string
	file     string
	old, new string
	pkg, run string
}

var all = []mutant{
	{
		"drain, then act", "pager/loop.go",
		"if n < len(e.events) {", "if true {",
		"pager", "TestDrainThenAct",
	}, {
		"a claim ends with a removal", "pager/core.go",
		"	if p.has(claimed) {\n		p |= again\n	}\n", "",
		"pager", "TestRemovalTakesTheClaimAway",
	}, {
		"deciding and installing are one step against reading", "pager/schedule_test.go",
		"case !x.installing():", "case true:",
		"pager", "TestPromise",
	}, {
		"EAGAIN is not an error", "pager/complete.go",
		"case errno == unix.EAGAIN:", "case errno == unix.EBUSY:",
		"pager", "TestPromise|TestBusyIsRetriedAfterAPause",
	}, {
		"the count of a failed call may be negative", "uffd/resolve.go",
		"done = max(done, 0)", "",
		"uffd", "TestCopyAndCounts|TestRemoveEvent",
	}, {
		"what is deferred has a timeout", "pager/loop.go",
		"at, ok := e.core.Deadline()", "at, _ := e.core.Deadline()\n\tok := false",
		"pager", "TestRefusalsAreRetriedWithoutAnEvent",
	}, {
		"EEXIST wakes the waiter", "pager/complete.go",
		"		c.become(ref, p, present)\n	}\n	c.wake(ref)", "		c.become(ref, p, present)\n	}",
		"pager", "TestPromise|TestFaultOnAPresentPage",
	}, {
		"EEXIST means present", "pager/complete.go",
		"case errno == unix.EEXIST:", "case errno == unix.EBUSY:",
		"pager", "TestPromise|TestModelAgreesWithKernel",
	}, {
		"ENOENT is retried page by page", "pager/complete.go",
		"c.blocks[a.block].single = true", "c.skip(a, first)",
		"pager", "TestPromise|TestSpanOverSeveralMappings",
	}, {
		"ESRCH means that the client is gone", "pager/complete.go",
		"c.gone = true", "c.refuse(a, n, false)",
		"pager", "TestPromise|TestAddressSpaceGone",
	}, {
		"death is learnt from a pidfd", "pager/loop.go",
		"if ready&exitReady != 0 {", "if false {",
		"session", "TestClientDies",
	}, {
		"lack of memory is not waited out for ever", "pager/complete.go",
		"if !memory || c.now-r.since < c.cfg.Patience {", "if true {",
		"pager", "TestOutOfMemoryFailsClosed",
	}, {
		"never close under a living client", "session/session.go",
		"	err := end(client)\n", "	var err error\n",
		"session", "TestUnsuitableClientsAreEnded",
	}, {
		"content that can't be had is poison", "pager/block.go",
		"		c.poisonWanted(b)\n", "",
		"pager", "TestPromise|TestEveryAttemptIsMadeBeforePoison",
	}, {
		"content is asked for more than once", "pager/block.go",
		"if b.attempts < c.cfg.FetchAttempts {", "if false {",
		"session", "TestPassingTroubleIsInvisible",
	}, {
		"huge pages have no ZEROPAGE", "pager/userfault.go",
		"if span.PageSize == 4096 {", "if true {",
		"session", "TestHugePages",
	}, {
		"removals of huge pages are rounded inward", "pager/core.go",
		"first := (lo - r.Address + r.PageSize - 1) / r.PageSize", "first := (lo - r.Address) / r.PageSize",
		"pager", "TestRemoveOfPartOfAHugePage",
	}, {
		"never stop reading", "pager/fetch.go",
		"e.opt.Pool.submit(j, a.Background)", "j.run()",
		"pager", "TestRemovalsAreReadWhileTheSourceHangs",
	}, {
		"read may have nothing after poll", "uffd/read.go",
		"		case unix.EAGAIN:\n			return 0, nil\n", "",
		"uffd", "TestReadOfNothing",
	}, {
		"the shared open file may be put in blocking mode", "pager/poll.go",
		"ev.Events&unix.EPOLLERR != 0", "false",
		"session", "TestBlockingModeEndsTheClient",
	}, {
		"demand goes before prefetch", "pager/next.go",
		"c.nextInstall(a, &c.ready, onReady)", "c.nextInstall(a, &c.idle, onIdle)",
		"pager", "TestDemandGoesFirst",
	}, {
		"addresses may lie inside a page", "pager/core.go",
		"uint32((addr - r.Address) / r.PageSize)", "uint32((addr - r.Address + r.PageSize - 1) / r.PageSize)",
		"pager", "TestAddressesInsideAPage",
	}, {
		"a received descriptor is checked", "uffd/adopt.go",
		"if link != linkName {", "if false {",
		"uffd", "TestAdoptRefuses",
	}, {
		"the source of a copy is never loaded from", "pager/userfault.go",
		"u.fd.Copy(span.Address, content, 0)", "u.fd.Copy(span.Address, append([]byte(nil), content...), 0)",
		"session", "TestUnreadableSourcePage",
	}, {
		"equal faults collapse", "pager/core.go",
		"case !p.has(wanted):", "default:",
		"pager", "TestRepeatedFaultsCollapse",
	}, {
		"a present page is not only woken", "pager/next.go",
		"kind := ActionZero\n", "kind := ActionZero\n\t\tif p.is(present) {\n\t\t\tc.wake(w.ref)\n\t\t\tcontinue\n\t\t}\n",
		"session", "TestPagesGivenUpWithoutAnEvent",
	},
}

func TestEveryRuleIsGuarded(t *testing.T) {
	if os.Getenv("CI") == "" && os.Getenv("FAULTLINE_MUTANTS") == "" {
		t.Skip("takes minutes: set FAULTLINE_MUTANTS=1 to run it")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		t.Run(m.rule, func(t *testing.T) { m.test(t, root) })
	}
}

func (m mutant) test(t *testing.T, root string) {
	path := filepath.Join(root, m.file)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		t.Fatalf("%s has %q %d times, not once: the rule's code has moved", m.file, m.old, n)
	}
	dir := t.TempDir()
	mutated := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(mutated, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, "-overlay", filepath.Join(dir, "overlay.json"), "./"+m.pkg)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not build: %v\n%s", err, out)
	}
	run := exec.CommandContext(t.Context(), binary, "-test.run", "^("+m.run+")$", "-test.timeout", "20s", "-test.failfast", "-rapid.nofailfile", "-rapid.shrinktime", "0s")
	if m.pkg != "pager" {
		run.Args = run.Args[:len(run.Args)-3]
	}
	run.Dir = t.TempDir()
	out, err := run.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		t.Errorf("%s: with %q in place of %q, %s passes", m.file, m.new, m.old, m.run)
	case !errors.As(err, &exit):
		t.Fatal(err)
	case strings.Contains(string(out), "no tests to run"):
		t.Errorf("there is no test %s", m.run)
	}
}
