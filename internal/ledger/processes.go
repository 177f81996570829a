package ledger

import (
	"context"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var _ issue.ProcessStore = (*Ledger)(nil)

// Alive implements [issue.ProcessStore]. Rows of processes long dead go away
// with it: no claim can name them any more, since claims lapse by time too.
func (l *Ledger) Alive(ctx context.Context, p issue.Process) error {
	defer l.metrics.observe(opAlive, time.Now())
	return away(l.writer.do(ctx, func(t *transaction) error {
		_, err := t.exec(`INSERT INTO processes (id, name, capacity, allowed, finished, started_at, seen_at)
			VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at,
				capacity = excluded.capacity, allowed = excluded.allowed, finished = excluded.finished`,
			p.ID, p.Name, p.Capacity, p.Allowed, p.Finished, t.at)
		if err != nil {
			return err
		}
		_, err = t.exec(`DELETE FROM processes WHERE seen_at < $1`, t.at-forgetAfter.Milliseconds())
		return err
	}))
}

// Gone implements [issue.ProcessStore].
func (l *Ledger) Gone(ctx context.Context, id string) error {
	return away(l.writer.do(ctx, func(t *transaction) error {
		_, err := t.exec(`DELETE FROM processes WHERE id = $1`, id)
		return err
	}))
}

// forgetAfter is when the row of a silent process is deleted.
const forgetAfter = 24 * time.Hour

// Pace implements [issue.DispatchStore].
func (l *Ledger) Pace(ctx context.Context) (issue.Pace, error) {
	var pace issue.Pace
	err := l.reads.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(SUM(allowed), 0), COALESCE(SUM(finished), 0)
		FROM processes WHERE seen_at >= $1`, l.now().Add(-l.claimLapse).UnixMilli()).
		Scan(&pace.Consumers, &pace.Allowed, &pace.Finished)
	return pace, away(err)
}
