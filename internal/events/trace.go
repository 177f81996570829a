package events

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
)

// traceParent is the only version of the W3C header that exists.
var traceParent = regexp.MustCompile(`^00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})$`)

// noTrace is the trace id that W3C reserves for "none": a header with it is to
// be treated as absent.
const noTrace = "00000000000000000000000000000000"

// childOf makes the traceparent of one event: in the trace of the request that
// asked for it, or in a trace of its own.
func childOf(parent string) string {
	trace, flags := randomHex(16), "00"
	if m := traceParent.FindStringSubmatch(parent); len(m) == 3 && m[1] != noTrace {
		trace, flags = m[1], m[2]
	}
	return "00-" + trace + "-" + randomHex(8) + "-" + flags
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // crypto/rand does not fail: it ends the program instead
	return hex.EncodeToString(b)
}
