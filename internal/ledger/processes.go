package ledger

import (
	"context"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var _ issue.ProcessStore = (*Ledger)(nil)

// claimantDead says, in a statement about issuances, that the process which holds
// the claim is dead: it has been silent since the time that the argument after it
// gives.
const claimantDead = `NOT EXISTS (SELECT 1 FROM processes p WHERE p.id = issuances.claim_process AND p.seen_at >= `

// Alive implements [issue.ProcessStore]. Rows of processes long dead go away
// with it: no claim can name them any more, since claims lapse by time too.
func (l *Ledger) Alive(ctx context.Context, p issue.Process) error {
	defer l.metrics.observe(opAlive, time.Now())
	return away(l.writer.do(ctx, func(t *transaction) error {
		t.putOff(`INSERT INTO processes (id, name, capacity, allowed, finished, started_at, seen_at)
			VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at,
				capacity = excluded.capacity, allowed = excluded.allowed, finished = excluded.finished`,
			p.ID, p.Name, p.Capacity, p.Allowed, p.Finished, t.at)
		t.putOff(`DELETE FROM processes WHERE seen_at < $1`, t.at-forgetAfter.Milliseconds())
		return nil
	}))
}

// Gone implements [issue.ProcessStore].
func (l *Ledger) Gone(ctx context.Context, id string) error {
	return away(l.writer.do(ctx, func(t *transaction) error {
		t.putOff(`DELETE FROM processes WHERE id = $1`, id)
		return nil
	}))
}

// forgetAfter is when the row of a silent process is deleted.
const forgetAfter = 24 * time.Hour

// Pace implements [issue.DispatchStore].
func (l *Ledger) Pace(ctx context.Context) (issue.Pace, error) {
	var pace issue.Pace
	err := l.store.read(ctx, command{
		text: `SELECT COUNT(*), CAST(COALESCE(SUM(allowed), 0) AS BIGINT), CAST(COALESCE(SUM(finished), 0) AS BIGINT)
			FROM processes WHERE seen_at >= $1`,
		args: []any{l.now().Add(-l.claimLapse).UnixMilli()},
		each: func(r row) error {
			pace = issue.Pace{Consumers: int(r.number()), Allowed: int(r.number()), Finished: int(r.number())}
			return nil
		},
	})
	return pace, away(err)
}
