package ledger

import (
	"context"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var _ issue.LeaseStore = (*Ledger)(nil)

// Lease implements [issue.LeaseStore].
func (l *Ledger) Lease(ctx context.Context, task, holder string, d time.Duration) (bool, error) {
	defer l.metrics.observe(opAlive, time.Now())
	ours := false
	err := l.writer.do(ctx, func(t *transaction) (err error) {
		ours, err = t.found(`INSERT INTO leases (task, holder, until) VALUES ($1, $2, $3)
			ON CONFLICT (task) DO UPDATE SET holder = excluded.holder, until = excluded.until
			WHERE leases.holder = excluded.holder OR leases.until < $4 RETURNING task`,
			[]any{task, holder, t.at + d.Milliseconds(), t.at}, nil)
		return err
	})
	return ours, away(err)
}

// EndLease implements [issue.LeaseStore].
func (l *Ledger) EndLease(ctx context.Context, task, holder string) error {
	return away(l.writer.do(ctx, func(t *transaction) error {
		t.putOff(`DELETE FROM leases WHERE task = $1 AND holder = $2`, task, holder)
		return nil
	}))
}
