// Package kvm runs a virtual machine of one processor and no devices, whose only
// purpose is to touch memory as a guest does: its page faults come from kernel
// mode, through KVM. It exists for tests.
//
// The interface is Documentation/virt/kvm/api.rst of the Linux source.
package kvm

import "errors"

// ErrUnavailable means that this machine can't run a guest: /dev/kvm is missing
// or may not be opened, or it is not an amd64.
var ErrUnavailable = errors.New("KVM is not available")
