package firecracker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"

	"faultline/handoff"
)

// Bounds on what a client may send. A message of Firecracker's has one region of
// some 130 bytes for each memory slot.
const (
	MaxMessage = 1 << 20 // bytes
	MaxRegions = 4096
	maxDepth   = 64 // of nesting, in fields that are not known
)

// Decode reads a message: a JSON array of regions, each with the fields
//
//	base_host_virt_addr  bytes, in the client's address space
//	size                 bytes
//	offset               bytes into the image
//	page_size            bytes; since 1.12
//	page_size_kib        bytes, whatever the name says; since 1.7
//
// A region without page size has pages of 4096 bytes. Fields with other names
// are skipped. Numbers must be unsigned integers. No field may come twice, and
// nothing may follow the array. The regions pass handoff.CheckRegions with an
// image as large as can be; how large it is, is for the caller to check.
//
// The error is ErrBadMessage, ErrTooLarge or handoff.ErrBadRegions.
func Decode(message []byte) ([]handoff.Region, error) {
	if len(message) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrTooLarge, len(message), MaxMessage)
	}
	p := parser{json: json.NewDecoder(bytes.NewReader(message))}
	p.json.UseNumber()
	regions, err := p.regions()
	if err != nil {
		return nil, err
	}
	if err := handoff.CheckRegions(regions, math.MaxInt64); err != nil {
		return nil, err
	}
	return regions, nil
}

// A parser goes through the message token by token, which is what lets it see
// duplicates and bound the nesting; json.Unmarshal does neither.
type parser struct{ json *json.Decoder }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBadMessage, fmt.Errorf(format, args...))
}

func (p parser) token() (json.Token, error) {
	t, err := p.json.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, malformed("at byte %d: %w", p.json.InputOffset(), err)
	}
	return t, nil
}

func (p parser) regions() ([]handoff.Region, error) {
	if t, err := p.token(); err != nil {
		return nil, err
	} else if t != json.Delim('[') {
		return nil, malformed("it must be an array of regions")
	}
	var regions []handoff.Region
	for p.json.More() {
		if len(regions) == MaxRegions {
			return nil, fmt.Errorf("%w: more than %d regions", ErrTooLarge, MaxRegions)
		}
		r, err := p.region()
		if err != nil {
			return nil, fmt.Errorf("region %d: %w", len(regions), err)
		}
		regions = append(regions, r)
	}
	if _, err := p.token(); err != nil {
		return nil, err
	}
	if _, err := p.json.Token(); err != io.EOF {
		return nil, malformed("data follows the array")
	}
	return regions, nil
}

func (p parser) region() (handoff.Region, error) {
	if t, err := p.token(); err != nil {
		return handoff.Region{}, err
	} else if t != json.Delim('{') {
		return handoff.Region{}, malformed("a region must be an object")
	}
	fields := map[string]uint64{}
	seen := map[string]bool{}
	for p.json.More() {
		t, err := p.token()
		if err != nil {
			return handoff.Region{}, err
		}
		name, _ := t.(string)
		if seen[name] {
			return handoff.Region{}, malformed("field %.40q comes twice", name)
		}
		seen[name] = true
		if err := p.field(name, fields); err != nil {
			return handoff.Region{}, err
		}
	}
	if _, err := p.token(); err != nil {
		return handoff.Region{}, err
	}
	return region(fields)
}

// field reads the value of a known field into fields, and skips any other.
func (p parser) field(name string, fields map[string]uint64) error {
	switch name {
	case "base_host_virt_addr", "size", "offset", "page_size", "page_size_kib":
	default:
		return p.skip(name)
	}
	t, err := p.token()
	if err != nil {
		return err
	}
	number, ok := t.(json.Number)
	if !ok {
		return malformed("%s must be an unsigned integer", name)
	}
	fields[name], err = strconv.ParseUint(number.String(), 10, 64)
	if err != nil {
		return malformed("%s must be an unsigned integer of 64 bits, not %.40s", name, number)
	}
	return nil
}

func (p parser) skip(name string) error {
	for depth := 0; ; {
		t, err := p.token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('['), json.Delim('{'):
			depth++
		case json.Delim(']'), json.Delim('}'):
			depth--
		}
		if depth > maxDepth {
			return malformed("field %.40q is nested deeper than %d levels", name, maxDepth)
		}
		if depth == 0 {
			return nil
		}
	}
}

// region puts the fields of one region together.
func region(fields map[string]uint64) (handoff.Region, error) {
	for _, name := range []string{"base_host_virt_addr", "size", "offset"} {
		if _, ok := fields[name]; !ok {
			return handoff.Region{}, malformed("%s is missing", name)
		}
	}
	pageSize, given := fields["page_size"]
	old, oldGiven := fields["page_size_kib"]
	switch {
	case given && oldGiven && pageSize != old:
		return handoff.Region{}, malformed("page_size is %d but page_size_kib, which holds bytes too, is %d", pageSize, old)
	case !given && oldGiven:
		pageSize = old
	case !given:
		pageSize = 4096
	}
	return handoff.Region{
		Address:  fields["base_host_virt_addr"],
		Size:     fields["size"],
		Offset:   fields["offset"],
		PageSize: pageSize,
	}, nil
}
