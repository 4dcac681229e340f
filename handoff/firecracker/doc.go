// Package firecracker receives what Firecracker 1.1 to 1.16 hands to a page-fault
// handler during PUT /snapshot/load with a memory backend of type Uffd: one
// message over a Unix stream socket, a JSON array of regions together with one
// descriptor, and no reply. doc/firecracker-handshake.md has the details, and
// doc/vectors/firecracker examples of messages that are accepted and refused.
//
//	l, err := firecracker.Listen("/run/faultline/vm.sock", firecracker.Options{})
//	...
//	client, err := l.Accept(ctx)
//
// The guest runs on while the message is under way: its faults may be waiting
// when Accept returns. Firecracker keeps a copy of the descriptor, so closing
// ours, of a client that was refused for instance, freezes the guest but never
// shows it zeros.
package firecracker
