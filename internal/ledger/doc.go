// Package ledger keeps the record of jobs and issuances: what is wanted, how
// far it has come, who works it, what was answered. It is the one place that
// says what is unfinished, so everything else may be killed at any moment.
//
// The tables are explained in migrations/. Every change of one issuance is a
// conditional write that names the claim or the dispatch number it rests on.
// Writes of concurrent callers are grouped into one transaction, so that many
// small changes cost one synchronisation with the disk; a call returns only
// when its group is durable.
//
// The store is PostgreSQL, for any number of processes, or a SQLite file, for one
// API and one consumer on one machine. All statements are written once, in
// PostgreSQL's words; store.go says what the two do differently, sqlite.go and
// postgres.go do it, and one suite of tests runs on both. Several processes write
// at once: every write is conditional, rows are locked in one order, and sums are
// spread over shards, so that processes seldom wait for each other.
package ledger
