// Package arrows holds the imports against the picture in ARCHITECTURE.md.
package arrows

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "faultline/"

// allowed is what each package of ours may import of the others, itself and through
// them. A package that is not listed fails the test, so that a new one is drawn
// before it is built.
var allowed = map[string][]string{
	"uffd":                {},
	"internal/cpu":        {},
	"internal/snapshot":   {},
	"internal/kvm":        {},
	"doc/vectors":         {},
	"pager":               {"uffd", "internal/cpu"},
	"handoff":             {"uffd"},
	"handoff/firecracker": {"uffd", "handoff"},
	"handoff/handofftest": {"uffd", "handoff", "internal/kvm", "doc/vectors"},
	"internal/testkit":    {"uffd", "handoff"},
	"session":             {"uffd", "internal/cpu", "pager", "handoff"},
	"image":               {"internal/cpu"},
	"store":               {"image", "internal/cpu"},
	"internal/server":     {"uffd", "internal/cpu", "pager", "handoff", "handoff/firecracker", "session"},
	"cmd/faultline":       {"*"},
	"internal/arrows":     {},
	"internal/mutants":    {},
}

// libraries is what the packages at the bottom may import of others' work, so that
// nobody who wants a userfaultfd gets a store's client with it.
var libraries = map[string][]string{
	"uffd":        {"golang.org/x/sys"},
	"pager":       {"golang.org/x/sys"},
	"handoff":     {"golang.org/x/sys"},
	"session":     {"golang.org/x/sys"},
	"doc/vectors": {},
}

type pkg struct {
	ImportPath string
	Deps       []string
	CgoFiles   []string
	Standard   bool
}

func list(t *testing.T, args ...string) (pkgs []pkg) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Deps,CgoFiles,Standard"}, args...)...)
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestArrowsPointOneWay(t *testing.T) {
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		may, known := allowed[name]
		if !known {
			t.Errorf("%s is not in the picture: draw it in ARCHITECTURE.md and list it here", name)
			continue
		}
		for _, dep := range p.Deps {
			ours, isOurs := strings.CutPrefix(dep, module)
			if isOurs && !slices.Contains(may, ours) && !slices.Contains(may, "*") {
				t.Errorf("%s imports %s", name, ours)
			}
			libs, bounded := libraries[name]
			isLibrary := !isOurs && strings.Contains(strings.SplitN(dep, "/", 2)[0], ".")
			if bounded && isLibrary && !slices.ContainsFunc(libs, func(l string) bool { return strings.HasPrefix(dep, l) }) {
				t.Errorf("%s imports %s", name, dep)
			}
		}
	}
}

func TestNoCgoInTheProduct(t *testing.T) {
	for _, p := range list(t, "-deps", "./cmd/faultline") {
		if len(p.CgoFiles) > 0 && !p.Standard {
			t.Errorf("%s uses cgo", p.ImportPath)
		}
	}
}

// The picture in ARCHITECTURE.md names every package, once, at the start of a line.
func TestThePictureIsWhole(t *testing.T) {
	f, err := os.Open("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	drawn := map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, _, ok := strings.Cut(lines.Text(), "/ "); ok {
			drawn[name]++
		}
	}
	for name := range allowed {
		if drawn[name] != 1 {
			t.Errorf("ARCHITECTURE.md has %q %d times at the start of a line", name+"/ ", drawn[name])
		}
	}
}
