package image

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/zeebo/blake3"
)

// sum is a SHA-256 or BLAKE3-256 value.
type sum [32]byte

func blake(p []byte) sum { return blake3.Sum256(p) }

// A decoder takes fields off the front of a hostile buffer. After the first error every field is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = corrupt(format, args...)
	}
}

// magic takes an 8-byte mark whose last byte is the version.
func (d *decoder) magic(want string) {
	got := d.bytes(8, "magic")
	switch {
	case d.err != nil:
	case string(got[:7]) != want[:7]:
		d.fail("magic is %q, not %q", got, want)
	case got[7] != want[7]:
		d.err = fmt.Errorf("%w: %s version %d", ErrUnsupported, want[:7], got[7])
	}
}

// uvarint takes a number of at least lo and at most hi.
func (d *decoder) uvarint(lo, hi uint64, what string) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	switch {
	case n <= 0:
		d.fail("%s: no number", what)
	case n > 1 && d.b[n-1] == 0:
		d.fail("%s: number not in shortest form", what)
	case v < lo || v > hi:
		d.fail("%s is %d, not in %d…%d", what, v, lo, hi)
	default:
		d.b = d.b[n:]
		return v
	}
	return 0
}

// count takes the number of rows of a table, each of which takes at least rowSize of the bytes that follow.
func (d *decoder) count(hi uint64, rowSize int, what string) int {
	n := d.uvarint(0, hi, what)
	if d.err == nil && n > uint64(len(d.b)/rowSize) {
		d.fail("%s is %d, more than there is room for", what, n)
		return 0
	}
	return int(n)
}

func (d *decoder) bytes(n int, what string) []byte {
	if d.err == nil && len(d.b) < n {
		d.fail("%s: ends early", what)
	}
	if d.err != nil {
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) byte(what string) byte {
	if p := d.bytes(1, what); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) sum(what string) (s sum) {
	copy(s[:], d.bytes(len(s), what))
	return s
}

// end fails if anything is left, and returns the first error.
func (d *decoder) end() error {
	if len(d.b) > 0 {
		d.fail("%d bytes after the end", len(d.b))
	}
	return d.err
}

const maxJSONDepth = 16

// decodeJSON decodes exactly one JSON value into v, without unknown or repeated fields.
func decodeJSON(b []byte, v any) error {
	tokens := json.NewDecoder(bytes.NewReader(b))
	if err := checkFields(tokens, 0); err != nil {
		return corrupt("JSON: %w", err)
	}
	if _, err := tokens.Token(); err != io.EOF {
		return corrupt("JSON: more than one value")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return corrupt("JSON: %w", err)
	}
	return nil
}

// checkFields reads one value and refuses objects in which a field stands twice. encoding/json would take the last of
// them, another reader the first; it also ignores case, so case does not count here.
func checkFields(d *json.Decoder, depth int) error {
	if depth > maxJSONDepth {
		return errors.New("nested too deep")
	}
	token, err := d.Token()
	if err != nil {
		return noEOF(err)
	}
	open, nested := token.(json.Delim)
	if !nested {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return noEOF(err)
			}
			name := strings.ToLower(key.(string))
			if seen[name] {
				return fmt.Errorf("field %q twice", key)
			}
			seen[name] = true
		}
		if err := checkFields(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing bracket
	return noEOF(err)
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
