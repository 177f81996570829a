package ledger

import (
	"strings"

	"github.com/ecreds/issuer/internal/issue"
)

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

// note adds a line; it is written with the others of the transaction.
func (t *transaction) note(h history) { t.notes = append(t.notes, h) }

// noteRows is how many lines one statement writes.
const noteRows = 8

const insertNote = `INSERT INTO issuance_history (issuance, at, revision, state, step, attempts, reason, message) VALUES `

var (
	oneNote   = insertNote + placeholders(1, 8)
	manyNotes = insertNote + placeholders(noteRows, 8)
)

// writeNotes writes the lines of the transaction.
func (t *transaction) writeNotes() error {
	for len(t.notes) > 0 {
		statement, n := oneNote, 1
		if len(t.notes) >= noteRows {
			statement, n = manyNotes, noteRows
		}
		args := make([]any, 0, 8*n)
		for _, h := range t.notes[:n] {
			args = append(args, h.issuance, t.at, h.revision, h.state, h.step, h.attempts, h.reason, h.message)
		}
		if _, err := t.exec(statement, args...); err != nil {
			return err
		}
		t.notes = t.notes[n:]
	}
	return nil
}

// placeholders writes "(?, ?), (?, ?)" for so many rows and columns.
func placeholders(rows, columns int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?, ", columns), ", ") + ")"
	return strings.TrimSuffix(strings.Repeat(row+", ", rows), ", ")
}
