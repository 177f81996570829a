package ledger

import (
	"context"
	"database/sql"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

// recallRows is how many events one call turns in at most: each is written by
// itself, and the rest can wait for the next call.
const recallRows = 5000

// astray is an issuance that is out with a record that will not come.
type astray struct {
	id     issue.IssuanceID
	number int64
}

// Recall implements [issue.DispatchStore].
func (l *Ledger) Recall(ctx context.Context, takenBefore time.Time, reaches []issue.Reach) (int, error) {
	defer l.metrics.observe(opDispatch, time.Now())
	lost, err := l.astray(ctx, takenBefore, reaches)
	if err != nil || len(lost) == 0 {
		return 0, away(err)
	}
	var n int64
	err = l.writer.do(ctx, func(t *transaction) error {
		n = 0
		for _, a := range lost {
			turned, err := t.exec(turnIn, a.id, a.number, t.at, t.at-l.claimLapse.Milliseconds())
			if err != nil {
				return err
			}
			n += turned
		}
		return nil
	})
	return int(n), away(err)
}

// astray lists what is out and cannot come. Claims are looked at when it is
// turned in: here it would only be a guess.
func (l *Ledger) astray(ctx context.Context, takenBefore time.Time, reaches []issue.Reach) ([]astray, error) {
	rows, err := l.reads.QueryContext(ctx, `SELECT id, dispatch, record_partition, record_offset FROM issuances
		WHERE is_out = 1 AND taken_at < $1`, takenBefore.UnixMilli())
	if err != nil {
		return nil, err
	}
	var lost []astray
	err = eachRow(rows, func(scan func(...any) error) error {
		var (
			a                 astray
			partition, offset sql.NullInt64
		)
		err := scan(&a.id, &a.number, &partition, &offset)
		if err == nil && len(lost) < recallRows && (!offset.Valid || reaches != nil && !reached(reaches, partition, offset)) {
			lost = append(lost, a)
		}
		return err
	})
	return lost, err
}

// reached says whether the record at a place may still come.
func reached(reaches []issue.Reach, partition, offset sql.NullInt64) bool {
	for _, r := range reaches {
		if int64(r.Partition) == partition.Int64 {
			return r.From <= offset.Int64 && offset.Int64 < r.To
		}
	}
	return false
}

// turnIn makes an issuance due again whose record will not come, unless somebody
// works it. A dead claimant stays named, so that his death is counted by whoever
// claims next.
const turnIn = `UPDATE issuances SET is_out = 0, taken_at = NULL, due_at = $3
	WHERE id = $1 AND dispatch = $2 AND is_out = 1 AND (claim_token IS NULL OR claim_until < $3
		OR NOT EXISTS (SELECT 1 FROM processes p WHERE p.id = issuances.claim_process AND p.seen_at >= $4))`
