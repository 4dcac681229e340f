package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const sizeUnits = "KMGTPE"

// formatSize writes a number of bytes in the largest unit that it has one of.
func formatSize(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for ; v >= 1023.95 && unit < len(sizeUnits)-1; unit++ {
		v /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", v, sizeUnits[unit])
}

// parseSize reads a number of bytes: "4096", "64K", "1G", "1GiB".
func parseSize(s string) (int64, error) {
	number := strings.TrimSuffix(strings.ToUpper(s), "IB")
	shift := 0
	if n := len(number); n > 0 {
		if unit := strings.IndexByte(sizeUnits, number[n-1]); unit >= 0 {
			number, shift = number[:n-1], 10*(unit+1)
		}
	}
	v, err := strconv.ParseInt(number, 10, 64)
	if err != nil || v < 0 || v > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is no size in bytes, such as 4096, 64M or 1G", s)
	}
	return v << shift, nil
}

// formatDuration writes a duration with three digits, the most that a measurement is
// worth.
func formatDuration(d time.Duration) string {
	for limit := time.Duration(1000); limit < time.Hour; limit *= 10 {
		if d < limit {
			return d.Round(limit / 1000).String()
		}
	}
	return d.Round(time.Second).String()
}

func percent(part, whole int64) string {
	if whole == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(part)/float64(whole))
}

// splitPair splits NAME=VALUE.
func splitPair(s string) (name, value string, err error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" || value == "" {
		return "", "", errors.New("it must be NAME=VALUE")
	}
	return name, value, nil
}
