package firecracker

import (
	"errors"
	"fmt"
	"net"
)

// What can be wrong with a socket path.
var (
	// ErrInUse means that a server listens at the path.
	ErrInUse = errors.New("another server listens there")
	// ErrNotSocket means that the path names something else, which is left alone.
	ErrNotSocket = errors.New("the path names a file that is not a socket")
	// ErrBadPath means that the path can't be a socket's.
	ErrBadPath = errors.New("unusable socket path")
	// ErrClosed is returned by Accept after Close. It is net.ErrClosed.
	ErrClosed = net.ErrClosed
)

// What can be wrong with a handshake. They come inside a *HandshakeError; a
// descriptor of the wrong kind is uffd.ErrNotUserfaultfd or
// uffd.ErrNotNegotiated, and regions that can't be served are
// handoff.ErrBadRegions.
var (
	// ErrBadMessage means that the message is not what Firecracker sends.
	ErrBadMessage = errors.New("malformed message")
	// ErrTooLarge means that a message goes beyond MaxMessage or MaxRegions.
	ErrTooLarge = errors.New("message too large")
	// ErrNoDescriptor means that the message came without one.
	ErrNoDescriptor = errors.New("no descriptor came with the message")
	// ErrManyDescriptors means that more than one came.
	ErrManyDescriptors = errors.New("more than one descriptor came")
	// ErrTruncated means that the kernel could not deliver all that was sent. It
	// does that when this process is out of descriptors.
	ErrTruncated = errors.New("descriptors were lost on the way")
	// ErrEnded means that the client hung up before the end of its message.
	ErrEnded = errors.New("the client hung up in the middle of its message")
	// ErrTimeout means that the message was not complete in time.
	ErrTimeout = errors.New("the client did not finish its message in time")
	// ErrCrowded means that the handshake had to make room for a newer one.
	ErrCrowded = errors.New("too many unfinished handshakes, this was the oldest")
	// ErrDead means that the client's process has exited.
	ErrDead = errors.New("the client has exited")
)

// A HandshakeError is a client that was refused. Nothing it sent is kept.
type HandshakeError struct {
	PID int // the client's, or 0 if that is not known
	Err error
}

func (e *HandshakeError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("handshake: %v", e.Err)
	}
	return fmt.Sprintf("handshake of process %d: %v", e.PID, e.Err)
}

// Unwrap gives the reason.
func (e *HandshakeError) Unwrap() error { return e.Err }
