package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"faultline/handoff"
	"faultline/uffd"
)

// naive answers one fault with one page at a time. It has content at hand and
// ignores what a client removes, which is as good as such a handler can be.
func naive(client *handoff.Client, content []byte) error {
	const page = 4096
	region := client.Regions[0]
	fds := []unix.PollFd{{Fd: int32(client.UFFD.Int()), Events: unix.POLLIN}}
	var message [1]uffd.Message
	for {
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		n, err := client.UFFD.Read(message[:])
		if err != nil {
			return err
		}
		if n == 0 || message[0].Kind() != uffd.EventKindPagefault {
			continue
		}
		address := message[0].Fault().Address &^ (page - 1)
		if _, err := client.UFFD.Copy(address, content[address-region.Address:][:page], 0); err != nil {
			return err
		}
	}
}
