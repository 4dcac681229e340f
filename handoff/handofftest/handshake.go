package handofftest

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"faultline/doc/vectors"
	"faultline/handoff"
	"faultline/uffd"
)

// Message is the handshake that Firecracker of the given version would send for
// the regions, filled into the recorded template.
func Message(v Version, regions []handoff.Region) ([]byte, error) {
	template, err := vectors.Firecracker.ReadFile("firecracker/" + string(v) + ".template")
	if err != nil {
		return nil, fmt.Errorf("no message is known for version %q: %w", v, err)
	}
	var parts []string
	for _, r := range regions {
		parts = append(parts, strings.NewReplacer(
			"ADDRESS", strconv.FormatUint(r.Address, 10),
			"PAGESIZE", strconv.FormatUint(r.PageSize, 10),
			"SIZE", strconv.FormatUint(r.Size, 10),
			"OFFSET", strconv.FormatUint(r.Offset, 10),
		).Replace(string(template)))
	}
	return []byte("[" + strings.Join(parts, ",") + "]"), nil
}

// open holds the connections that stay open for life, so that no finalizer
// closes them.
var open []net.Conn

// handshake sends the message and the descriptor in one go.
func handshake(c Config, regions []handoff.Region, fd *uffd.FD) error {
	message, err := Message(c.Version, regions)
	if err != nil {
		return err
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: c.Socket})
	if err != nil {
		return err
	}
	n, _, err := conn.WriteMsgUnix(message, unix.UnixRights(fd.Int()), nil)
	if err == nil && n < len(message) {
		err = fmt.Errorf("only %d of %d bytes were taken", n, len(message))
	}
	if err != nil {
		conn.Close()
		return fmt.Errorf("send the handshake: %w", err)
	}
	if c.Version == V1_1 || c.Version == V1_7 {
		return conn.Close()
	}
	open = append(open, conn)
	return nil
}
