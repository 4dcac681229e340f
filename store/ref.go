package store

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

var (
	// ErrBadRef says that a string is no reference.
	ErrBadRef = errors.New("bad reference")
	// ErrUnsupported says that a reference is to a kind of store that is not supported.
	ErrUnsupported = errors.New("not supported")
)

// A Ref names an image in a store: by tag or by digest, exactly one of which is set.
type Ref struct {
	Name   string // components of lower-case letters and digits, with / between them
	Tag    string
	Digest digest.Digest // of the manifest
}

// DefaultTag is the tag of a reference that gives none.
const DefaultTag = "latest"

const maxName = 255

// The grammar of names and tags is OCI's (distribution specification, "Pulling manifests").
var (
	refName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	refTag  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

	scheme = regexp.MustCompile(`^([a-z][a-z0-9+.-]*://|dir:)`)
)

// Parse parses "name", "name:tag" or "name@sha256:…". It fails with [ErrBadRef]; what begins with a scheme such as
// "s3://", "oci://" or "dir:" is kept for other stores and fails with [ErrUnsupported].
func Parse(s string) (Ref, error) {
	if prefix := scheme.FindString(s); prefix != "" {
		return Ref{}, fmt.Errorf("reference %.300q: a store of kind %q is %w", s, prefix, ErrUnsupported)
	}
	r := Ref{Name: s, Tag: DefaultTag}
	if name, d, ok := strings.Cut(s, "@"); ok {
		r = Ref{Name: name, Digest: digest.Digest(d)}
	} else if name, tag, ok := strings.Cut(s, ":"); ok {
		r = Ref{Name: name, Tag: tag}
	}
	if reason := r.problem(); reason != "" {
		return Ref{}, fmt.Errorf("%w %.300q: %s", ErrBadRef, s, reason)
	}
	return r, nil
}

// problem says what is wrong with r, or nothing.
func (r Ref) problem() string {
	switch {
	case len(r.Name) > maxName:
		return "the name is longer than 255 bytes"
	case !refName.MatchString(r.Name):
		return "a name has components of a–z and 0–9, with . _ or - inside and / between them"
	case r.Name == "dir":
		return "the name \"dir\" is reserved"
	case (r.Tag == "") == (r.Digest == ""):
		return "needs a tag or a digest"
	case r.Tag != "" && !refTag.MatchString(r.Tag):
		return "a tag has 1–128 letters, digits and ._- and does not begin with . or -"
	case r.Digest != "" && (r.Digest.Validate() != nil || r.Digest.Algorithm() != digest.SHA256):
		return "a digest is sha256: and 64 hexadecimal digits"
	}
	return ""
}

// String gives r as Parse reads it, with the tag.
func (r Ref) String() string {
	if r.Digest != "" {
		return r.Name + "@" + r.Digest.String()
	}
	return r.Name + ":" + r.Tag
}
