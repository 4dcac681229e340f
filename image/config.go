package image

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Config says what an image is, apart from its content.
type Config struct {
	Size      int64     `json:"size"`             // bytes, a multiple of PageSize
	PageSize  int       `json:"pageSize"`         // always [PageSize]
	Segments  []Segment `json:"segments"`         // what the image's ranges were
	Created   time.Time `json:"created,omitzero"` // zero: not recorded
	CreatedBy string    `json:"createdBy,omitempty"`
}

// A Segment is a named range of an image, and where it was in the memory it was taken from. Numbers are in bytes and
// multiples of PageSize.
type Segment struct {
	Name    string `json:"name"`
	Address uint64 `json:"address"`
	Length  int64  `json:"length"`
	Offset  int64  `json:"offset"` // in the image
}

const maxNameSize = 256

func parseConfig(b []byte) (Config, error) {
	var c Config
	if err := decodeJSON(b, &c); err != nil {
		return Config{}, err
	}
	if reason := c.problem(); reason != "" {
		return Config{}, corrupt("config: %s", reason)
	}
	return c, nil
}

// problem says what is wrong with c, or nothing.
func (c *Config) problem() string {
	switch {
	case c.PageSize != PageSize:
		return "page size is not 4096"
	case c.Size <= 0:
		return "size is not positive"
	case c.Size%PageSize != 0:
		return fmt.Sprintf("size %d is not a multiple of 4096", c.Size)
	case c.Size > MaxSize:
		return "size is more than 8 TiB"
	case len(c.Segments) > maxSegments:
		return "too many segments"
	case len(c.CreatedBy) > maxNameSize:
		return "createdBy is too long"
	}
	names := make(map[string]bool, len(c.Segments))
	for _, s := range c.Segments {
		if reason := s.problem(c.Size); reason != "" {
			return "segment " + strconv.Quote(s.Name[:min(len(s.Name), maxNameSize)]) + ": " + reason
		}
		if names[s.Name] {
			return "segment " + strconv.Quote(s.Name[:min(len(s.Name), maxNameSize)]) + ": name is used twice"
		}
		names[s.Name] = true
	}
	return ""
}

func (s *Segment) problem(size int64) string {
	switch {
	case s.Name == "" || len(s.Name) > maxNameSize || !utf8.ValidString(s.Name) || strings.ContainsFunc(s.Name, notPrintable):
		return "name is not 1–256 bytes of printable text"
	case s.Address%PageSize != 0 || s.Length%PageSize != 0 || s.Offset%PageSize != 0:
		return "not a whole number of pages"
	case s.Length <= 0 || s.Offset < 0 || s.Length > size || s.Offset > size-s.Length:
		return "outside the image"
	case s.Address > math.MaxUint64-uint64(s.Length)+1:
		return "address overflows"
	}
	return ""
}

func notPrintable(r rune) bool { return !unicode.IsPrint(r) }
