package ledger

import "github.com/ecreds/issuer/internal/issue"

// history is one line of an issuance's history.
type history struct {
	issuance int64 // its seq
	revision int
	state    issue.State
	step     issue.Step
	attempts int
	reason   issue.Reason
	message  string
}

var insertNotes = insertInto("issuance_history", "issuance, at, n, revision, state, step, attempts, reason, message", "")

// note adds a line; it is written with the others of the transaction.
func (t *transaction) note(h history) {
	t.notes = append(t.notes, []any{h.issuance, t.at, len(t.notes), h.revision, h.state, h.step, h.attempts, h.reason, h.message})
}
