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
// The store is SQLite, for one API and one consumer on one machine.
package ledger
