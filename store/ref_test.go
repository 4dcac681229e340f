package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParse(t *testing.T) {
	for s, want := range map[string]Ref{
		"app":                           {Name: "app", Tag: "latest"},
		"app:v1":                        {Name: "app", Tag: "v1"},
		"team/app_1.x--y:V_1.-":         {Name: "team/app_1.x--y", Tag: "V_1.-"},
		"a/b/c@" + someDigest:           {Name: "a/b/c", Digest: someDigest},
		"s3/oci:s3":                     {Name: "s3/oci", Tag: "s3"},
		"dir/app":                       {Name: "dir/app", Tag: "latest"},
		strings.Repeat("a", 255):        {Name: strings.Repeat("a", 255), Tag: "latest"},
		"a:" + strings.Repeat("9", 128): {Name: "a", Tag: strings.Repeat("9", 128)},
	} {
		got, err := Parse(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", s, got, err, want)
		}
		if again, err := Parse(got.String()); err != nil || again != want {
			t.Errorf("%s: %s parses to %+v, %v", s, got, again, err)
		}
	}
	for _, s := range []string{
		"", ":", "@", "a:", ":a", "a@", "A", "a//b", "/a", "a/", "../a", "a/../b", "a/..", ".", "..", "a..b", "-a", "a-", "a___b",
		"a b", "a\n", "a\x00", "ä", "a:-v", "a:.v", "a:b:c", "a:b/c", "localhost:5000/a", "a@sha256:00", "a@" + someDigest[:70],
		"a@sha512:" + strings.Repeat("0", 128), "a:v@" + someDigest, "a@" + someDigest + "@", "a@" + strings.ToUpper(someDigest),
		strings.Repeat("a", 256), "a:" + strings.Repeat("9", 129), "dir",
	} {
		if got, err := Parse(s); !errors.Is(err, ErrBadRef) {
			t.Errorf("%q: %+v, %v; want ErrBadRef", s, got, err)
		}
	}
	for _, s := range []string{"dir:/srv/store/app", "dir:app", "s3://bucket/app:v1", "oci://registry.example/app", "https://x"} {
		if got, err := Parse(s); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%q: %+v, %v; want ErrUnsupported", s, got, err)
		}
	}
}

// FuzzParse: what parses is printed and parsed to the same, and is no path out of anywhere.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrBadRef) && !errors.Is(err, ErrUnsupported) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("%q: %s parses to %+v, %v", s, r, again, err)
		}
		if !filepath.IsLocal(r.Name) || filepath.Clean(r.Name) != r.Name {
			t.Errorf("%q: name %q", s, r.Name)
		}
	})
}

// FuzzIndex: index.json of any content is refused or can be listed and written again.
func FuzzIndex(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseIndex(b)
		if err != nil {
			return
		}
		for _, d := range x.Manifests {
			refOf(d)
		}
		out, err := encodeIndex(x)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseIndex(out); err != nil {
			t.Error(err)
		}
	})
}

// TestCorpora fails where a fuzz target has no seeds.
func TestCorpora(t *testing.T) {
	for _, name := range []string{"FuzzParse", "FuzzIndex"} {
		if entries, err := os.ReadDir(filepath.Join("testdata", "fuzz", name)); err != nil || len(entries) == 0 {
			t.Errorf("%s has no seeds: %v", name, err)
		}
	}
}
