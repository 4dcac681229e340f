//go:build race

package image

const raceEnabled = true // sync.Pool drops at random then
