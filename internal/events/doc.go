// Package events is the event on the wire: how a certificate request is
// written to and read from Kafka, what its headers mean, and how a dead letter
// carries its original.
//
// The shape is that of platform release 2.3.5 with three optional members of
// ours in edata (jobId, completedOn, and reIssue as the platform has it), so
// that events from elsewhere are understood and ours are understood elsewhere.
// An event never holds a name, an address or a token.
package events
