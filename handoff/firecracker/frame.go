package firecracker

// A frame finds the end of the array in a message that arrives piece by piece:
// it has no length prefix, and the connection may stay open behind it. It follows
// brackets and strings only; whether it is sound JSON is Decode's to say.
type frame struct {
	depth             int
	inString, escaped bool
	started, complete bool
}

// add looks at the next bytes, and fails if the message does not begin with an
// array: then there is no end to wait for.
func (f *frame) add(piece []byte) error {
	for _, b := range piece {
		if f.complete {
			return nil
		}
		if !f.started {
			switch b {
			case ' ', '\t', '\r', '\n':
				continue
			case '[':
				f.started = true
			default:
				return malformed("it must be an array of regions, but begins with %q", b)
			}
		}
		f.next(b)
	}
	return nil
}

func (f *frame) next(b byte) {
	if f.inString {
		f.inString = f.escaped || b != '"'
		f.escaped = !f.escaped && b == '\\'
		return
	}
	switch b {
	case '"':
		f.inString = true
	case '[', '{':
		f.depth++
	case ']', '}':
		f.depth--
		f.complete = f.depth == 0
	}
}
