// Package handofftest is a client to be served: a process of its own that maps
// memory, registers it with a userfaultfd, hands that over as Firecracker does,
// and then touches its pages on command, times that, and tells what it saw. With
// [Client.RunGuest] a KVM guest does the touching, from kernel mode.
//
// The process is the calling program again, so [Main] must be the first thing
// that a TestMain or a command's main does. It runs without garbage collection
// and asynchronous preemption: a thread that waits in a page fault can't be
// stopped, and nothing in it may ever try to stop all threads.
//
// The handshake is written from the templates in doc/vectors, not with the
// server's code, so that one wrong belief can't agree with itself.
//
// # Pages
//
// Pages are numbered from 0 through the regions in the order of Config.Regions,
// in units of Config.PageSize. For each the client remembers what it must
// contain: the reference file's bytes at the region's offset; zeros once the page
// was ballooned; and, wherever it wrote, the eight bytes that it wrote. Commands
// may run at the same time, but what a page must contain is undefined where a
// write and a balloon of it overlap.
//
// # Hanging
//
// A server that does not answer leaves a command waiting. Cancel the context
// that was given to [Start]: it kills the client, and the command fails with
// ErrGone.
package handofftest
