// Package uffd is Linux's userfaultfd in pure Go: a descriptor on which a
// process learns of page faults, and through which it, or another process that
// was handed the descriptor, answers them.
//
// A descriptor begins in one of two ways. [Open] makes one for the calling
// process's own memory; [Adopt] takes one that came from elsewhere, over a
// Unix socket for instance. Either way it belongs to the memory of the process
// that created it: every operation, whoever issues it, acts on that memory.
// Addresses are therefore plain numbers (uint64), not Go pointers.
//
// The names follow the kernel's:
//
//	userfaultfd(2), USERFAULTFD_IOC_NEW, UFFDIO_API    Open
//	/proc/PID/fdinfo                                   Adopt, FD.Info
//	UFFDIO_REGISTER, UFFDIO_UNREGISTER                 FD.Register, FD.Unregister
//	UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_POISON        FD.Copy, FD.Zeropage, FD.Poison
//	UFFDIO_WAKE                                        FD.Wake
//	struct uffd_msg, UFFD_EVENT_*                      Message, FD.Read
//	UFFD_FEATURE_*                                     Features
//
// # Errors
//
// Operations on ranges fail with an [*Error], which keeps the errno and says how
// far the operation came. Branch on the errno with errors.Is(err, unix.EAGAIN)
// and the like; nothing is translated.
//
// # Deadlocks
//
//  1. A goroutine must not touch memory whose faults are answered by another
//     goroutine of the same process. The fault blocks the thread where the
//     scheduler can't see it, and the next garbage collection waits for it, and
//     the answering goroutine for the collection. Answer from another process.
//  2. A pending remove event blocks the thread that caused it until the event is
//     read. A handler that stops reading stops its client.
//  3. While a remove event is unread, Copy, Zeropage and Poison fail with EAGAIN.
//     Retrying without reading never ends.
//  4. Closing the last descriptor wakes waiting threads and lets them see zeros.
//     Unregister, or end the client, before Close.
package uffd
