// Package stream works slow events off a Kafka topic as one member of a
// consumer group, and publishes records with acknowledgement by all replicas.
//
// It knows bytes, keys and offsets and two outcomes of a handler: at rest, or
// hold. Events of one key are worked one after another; others at once, up to
// a number in the process; those without a key have no order. A held event keeps
// its key waiting and nobody else.
// The committed offset of a partition never passes an event that is not at
// rest. During a rebalance only fetching stops: work in flight goes on, and
// results for a partition that went away are not committed here.
//
// [Consumer.Pause] and [Consumer.Resume] are for whoever sees that events cannot
// be worked now; a paused consumer begins one event a second, to see whether
// they can again. What stops fetching without saying so is made anew.
//
// The package leaves to its handler what an event means, and writing dead
// letters before it says "at rest".
package stream
