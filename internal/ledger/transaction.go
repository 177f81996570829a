package ledger

import (
	"context"
	"time"
)

// transaction is what a group of writes runs in: a session and what its changes
// come to.
type transaction struct {
	session    session
	ctx        context.Context // of the group
	claimLapse time.Duration
	shard      int   // whose sums it changes
	at         int64 // when the transaction began, in epoch milliseconds

	// What is written at its end, for all its writes together:
	later  []command
	counts counts
	notes  [][]any
}

func (t *transaction) begin(ctx context.Context, session session, at time.Time) {
	t.session, t.ctx, t.at = session, ctx, at.UnixMilli()
	t.later, t.counts, t.notes = t.later[:0], counts{}, t.notes[:0]
}

// run makes the changes of a group: claims and checkpoints together, the others
// one by one.
func (t *transaction) run(group []*write) error {
	var (
		claims      []*claiming
		checkpoints []*checkpointing
		others      []*write
	)
	for _, w := range group {
		switch {
		case w.claim != nil:
			claims = append(claims, w.claim)
		case w.checkpoint != nil:
			checkpoints = append(checkpoints, w.checkpoint)
		default:
			others = append(others, w)
		}
	}
	if err := t.claimAndCheck(claims, checkpoints); err != nil {
		return err
	}
	for _, w := range others {
		if err := w.run(t); err != nil {
			return err
		}
	}
	return nil
}

// commit writes what was gathered and makes everything durable.
func (t *transaction) commit() error {
	t.later = append(t.later, t.session.inserting(insertNotes, t.notes)...)
	t.later = append(t.later, t.session.inserting(addToCounts, t.counts.rows(t.shard, t.at))...)
	return t.session.commit(t.ctx, t.later)
}

// flush makes the changes now that were put off.
func (t *transaction) flush() error {
	if len(t.later) == 0 {
		return nil
	}
	err := t.session.run(t.ctx, t.later)
	t.later = t.later[:0]
	return err
}

// putOff puts a change off whose answer nobody needs.
func (t *transaction) putOff(text string, args ...any) {
	t.later = append(t.later, command{text: text, args: args})
}

// exec makes one change.
func (t *transaction) exec(text string, args ...any) error { return t.rows(text, args, nil) }

// rows runs a statement, calling each for its rows.
func (t *transaction) rows(text string, args []any, each func(row) error) error {
	return t.session.run(t.ctx, []command{{text: text, args: args, each: each}})
}

// found runs a statement of at most one row and says whether there was one.
func (t *transaction) found(text string, args []any, read func(row)) (bool, error) {
	found := false
	err := t.rows(text, args, func(r row) error {
		found = true
		if read != nil {
			read(r)
		}
		return nil
	})
	return found, err
}
