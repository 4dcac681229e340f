package image

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A source cuts the input into ranges of frame size, and finds the holes of a file.
type source struct {
	size int64 // -1: not known
	off  int64 // how far it has got
	step int64 // frame size

	stream io.Reader
	file   *os.File // in place of stream
	base   int64    // where the input begins in the file
	data   int64    // the next data in the file begins here, at off or behind it,
	hole   int64    // and ends here
}

func newSource(src io.Reader, size, step int64) (*source, error) {
	s := &source{size: size, step: step, stream: src}
	if size < -1 {
		return nil, badInput("size %d", size)
	}
	if f, ok := src.(*os.File); ok {
		if err := s.useFile(f); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// useFile reads f by offset if it is a regular file.
func (s *source) useFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	if s.base, err = f.Seek(0, io.SeekCurrent); err != nil {
		return err
	}
	s.file = f
	if s.size < 0 {
		s.size = max(0, info.Size()-s.base)
	}
	return nil
}

// checkSize says whether an input of that many bytes can be an image.
func checkSize(size int64) error {
	below := size / PageSize * PageSize
	switch {
	case size == 0:
		return badInput("the input is empty")
	case below == size:
		return nil
	case below == 0:
		return badInput("the input has %d bytes, which is not a multiple of %d", size, PageSize)
	}
	return badInput("the input has %d bytes, which is not a multiple of %d: the nearest are %d and %d", size, PageSize, below, below+PageSize)
}

// next gives the next range: its length and that it is a hole, of any number of whole frames, or its content in p, which
// has the frame size. At the end it gives io.EOF.
func (s *source) next(p []byte) (n int64, hole bool, err error) {
	if s.size >= 0 {
		p = p[:min(int64(len(p)), s.size-s.off)]
	}
	if len(p) == 0 {
		return 0, false, s.finish()
	}
	if s.file != nil {
		if n, err := s.skip(); n > 0 || err != nil {
			s.off += n
			return n, true, err
		}
	}
	n, err = s.read(p)
	s.off += n
	switch {
	case s.off > MaxSize:
		return 0, false, badInput("more than 8 TiB")
	case err == io.EOF && s.size < 0:
		return 0, false, s.finish()
	case err == io.ErrUnexpectedEOF && s.size < 0:
		if err := checkSize(s.off); err != nil {
			return 0, false, err
		}
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return 0, false, badInput("the input ends after %d bytes of %d", s.off, s.size)
	case err != nil:
		return 0, false, err
	}
	return n, false, nil
}

// read fills p or says how far it got, with the errors of io.ReadFull.
func (s *source) read(p []byte) (int64, error) {
	if s.file == nil {
		n, err := io.ReadFull(s.stream, p)
		return int64(n), err
	}
	n, err := s.file.ReadAt(p, s.base+s.off)
	if err == io.EOF && n > 0 {
		err = io.ErrUnexpectedEOF
	}
	if n == len(p) {
		err = nil
	}
	return int64(n), err
}

func (s *source) finish() error {
	if err := checkSize(s.off); err != nil {
		return err
	}
	if s.file != nil {
		if _, err := s.file.Seek(s.base+s.off, io.SeekStart); err != nil {
			return err
		}
	}
	return io.EOF
}

// skip gives the whole frames from off on that lie in a hole of the file; what the file's end leaves is whole too.
func (s *source) skip() (int64, error) {
	if s.off >= s.hole {
		if err := s.seek(); err != nil {
			return 0, err
		}
	}
	if s.data >= s.size {
		return s.size - s.off, nil
	}
	return max(0, s.data-s.off) / s.step * s.step, nil
}

// seek finds the data at off or behind it.
func (s *source) seek() error {
	data, err := s.file.Seek(s.base+s.off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, syscall.ENXIO): // only a hole is left, if the file has not been cut short
		if err := s.checkLength(); err != nil {
			return err
		}
		s.data, s.hole = s.size, s.size
		return nil
	case errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL): // the file system does not know
		s.data, s.hole = s.off, s.size
		return nil
	case err != nil:
		return err
	}
	hole, err := s.file.Seek(data, unix.SEEK_HOLE)
	if err != nil {
		return err
	}
	s.data, s.hole = data-s.base, hole-s.base
	return nil
}

func (s *source) checkLength() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	if n := info.Size() - s.base; n < s.size {
		return badInput("the input ends after %d bytes of %d", max(0, n), s.size)
	}
	return nil
}
