package ledger

import (
	"context"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

// recallRows is how many events one call turns in at most: each is written by
// itself, and the rest can wait for the next call.
const recallRows = 5000

// astray is an issuance that is out with a record that will not come.
type astray struct {
	seq, number int64
}

// Recall implements [issue.DispatchStore].
func (l *Ledger) Recall(ctx context.Context, takenBefore time.Time, reaches []issue.Reach) (int, error) {
	defer l.metrics.observe(opDispatch, time.Now())
	lost, err := l.astray(ctx, takenBefore, reaches)
	if err != nil || len(lost) == 0 {
		return 0, away(err)
	}
	var n int
	err = l.writer.do(ctx, func(t *transaction) error {
		n = 0
		commands := make([]command, len(lost))
		for i, a := range lost {
			commands[i] = command{
				text: turnIn, args: []any{a.seq, a.number, t.at, t.at - l.claimLapse.Milliseconds()}, reads: "seq",
				each: func(row) error {
					n++
					return nil
				},
			}
		}
		return t.session.run(t.ctx, commands)
	})
	return n, away(err)
}

// astray lists what is out and cannot come. Claims are looked at when it is
// turned in: here it would only be a guess.
func (l *Ledger) astray(ctx context.Context, takenBefore time.Time, reaches []issue.Reach) ([]astray, error) {
	var lost []astray
	err := l.store.read(ctx, command{
		text: `SELECT seq, dispatch, record_partition, COALESCE(record_offset, $2) FROM issuances
			WHERE is_out = 1 AND taken_at < $1 ORDER BY seq`,
		args: []any{takenBefore.UnixMilli(), nowhere},
		each: func(r row) error {
			a, partition, offset := astray{seq: r.number(), number: r.number()}, r.number(), r.number()
			if len(lost) < recallRows && (offset == nowhere || reaches != nil && !reached(reaches, partition, offset)) {
				lost = append(lost, a)
			}
			return nil
		},
	})
	return lost, err
}

// nowhere stands in place of the offset of a record that was never acknowledged.
const nowhere = int64(-1)

// reached says whether the record at a place may still come.
func reached(reaches []issue.Reach, partition, offset int64) bool {
	for _, r := range reaches {
		if int64(r.Partition) == partition {
			return r.From <= offset && offset < r.To
		}
	}
	return false
}

// turnIn makes an issuance due again whose record will not come, unless somebody
// works it. A dead claimant stays named, so that his death is counted by whoever
// claims next.
const turnIn = `UPDATE issuances SET is_out = 0, taken_at = NULL, due_at = $3
	WHERE seq = $1 AND dispatch = $2 AND is_out = 1 AND (claim_token IS NULL OR claim_until < $3
		OR ` + claimantDead + `$4))`
