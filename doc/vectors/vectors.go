// Package vectors holds the recorded examples that go with the protocol
// documents in doc/, so that both ends of a protocol can be tested against the
// same bytes without knowing each other.
package vectors

import "embed"

// Firecracker holds the examples of doc/firecracker-handshake.md: accepted.json
// and refused.json, and for each generation of messages a template of one region.
//
//go:embed firecracker/*.json firecracker/*.template
var Firecracker embed.FS
