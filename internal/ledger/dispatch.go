package ledger

import (
	"context"
	"math"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var _ issue.DispatchStore = (*Ledger)(nil)

// jobsWithDue steps through the index of what is due from job to job, so its
// cost grows with the jobs and not with what they have waiting.
const jobsWithDue = `WITH RECURSIVE waiting (job_id) AS (
		SELECT MIN(job_id) FROM issuances WHERE due_at IS NOT NULL
		UNION ALL
		SELECT (SELECT MIN(i.job_id) FROM issuances i WHERE i.due_at IS NOT NULL AND i.job_id > waiting.job_id)
		FROM waiting WHERE waiting.job_id IS NOT NULL)
	SELECT j.id, j.trace_parent, (SELECT COUNT(*) FROM issuances o WHERE o.job_id = j.id AND o.is_out = 1)
	FROM waiting w JOIN jobs j ON j.id = w.job_id WHERE j.state = 'running' ORDER BY j.created_at, j.id`

// takeDue leaves to another dispatcher what that one is taking.
const takeDue = `WITH due AS (SELECT seq FROM issuances WHERE job_id = $1 AND due_at <= $2 ORDER BY due_at LIMIT $3
		FOR UPDATE SKIP LOCKED)
	UPDATE issuances SET is_out = 1, dispatch = dispatch + 1, due_at = NULL, taken_at = $2,
		record_partition = NULL, record_offset = NULL
	WHERE seq IN (SELECT seq FROM due)
	RETURNING id, user_id, batch_id, course_id, certificate, completed_on, dispatch, revision`

// turn is one job that has something due.
type turn struct {
	job         issue.JobID
	traceParent string
	out         int
}

// TakeDue implements [issue.DispatchStore]. Jobs share the limit evenly; what
// some of them leave goes to the others, the oldest first.
func (l *Ledger) TakeDue(ctx context.Context, ahead, limit int) ([]issue.Event, error) {
	defer l.metrics.observe(opDispatch, time.Now())
	turns, err := l.turns(ctx)
	if err != nil || len(turns) == 0 {
		return nil, away(err)
	}
	if ahead <= 0 {
		ahead = math.MaxInt
	}
	var events []issue.Event
	err = l.writer.do(ctx, func(t *transaction) error {
		events = events[:0]
		taken := make([]int, len(turns))
		for _, share := range []int{max(limit/len(turns), 1), limit} {
			for i, turn := range turns {
				before := len(events)
				n := min(share, limit-before, ahead-turn.out-taken[i])
				if err := t.take(turn, n, &events); err != nil {
					return err
				}
				taken[i] += len(events) - before
			}
		}
		return nil
	})
	return events, away(err)
}

// turns lists the jobs with something due, now or later, oldest first.
func (l *Ledger) turns(ctx context.Context) ([]turn, error) {
	var turns []turn
	err := l.store.read(ctx, command{text: jobsWithDue, each: func(r row) error {
		turns = append(turns, turn{job: word[issue.JobID](r), traceParent: r.text(), out: int(r.number())})
		return nil
	}})
	return turns, err
}

func (t *transaction) take(turn turn, n int, events *[]issue.Event) error {
	if n <= 0 {
		return nil
	}
	return t.rows(takeDue, []any{turn.job, t.at, n}, func(r row) error {
		event := issue.Event{
			Job: turn.job, TraceParent: turn.traceParent, Issuance: word[issue.IssuanceID](r), Learner: word[issue.LearnerID](r),
			Batch: word[issue.BatchID](r), Course: word[issue.CourseID](r), Certificate: r.text(),
			CompletedOn: time.UnixMilli(r.number()).UTC(), Number: r.number(), Revision: int(r.number()),
		}
		event.ReIssue = event.Revision > 1
		*events = append(*events, event)
		return nil
	})
}

// Dispatched implements [issue.DispatchStore].
func (l *Ledger) Dispatched(ctx context.Context, published []issue.Published) error {
	defer l.metrics.observe(opDispatch, time.Now())
	return away(l.writer.do(ctx, func(t *transaction) error {
		for _, p := range published {
			t.dispatched(p)
		}
		return nil
	}))
}

func (t *transaction) dispatched(p issue.Published) {
	switch p.Receipt.Outcome {
	case issue.PublishOK:
		t.putOff(`UPDATE issuances SET record_partition = $3, record_offset = $4
			WHERE id = $1 AND dispatch = $2 AND is_out = 1`,
			p.Event.Issuance, p.Event.Number, p.Receipt.Place.Partition, p.Receipt.Place.Offset)
	case issue.PublishFailed:
		t.putOff(`UPDATE issuances SET is_out = 0, taken_at = NULL, due_at = $3
			WHERE id = $1 AND dispatch = $2 AND is_out = 1 AND claim_token IS NULL`,
			p.Event.Issuance, p.Event.Number, t.at+publishAgainAfter.Milliseconds())
	case issue.PublishUnknown:
		// It may stand in Kafka: Recall decides, once its time is over.
	}
}

// publishAgainAfter is how long an event rests that Kafka refused.
const publishAgainAfter = time.Second

// Recall implements [issue.DispatchStore].
func (l *Ledger) Recall(ctx context.Context, takenBefore time.Time) (int, error) {
	var n int
	err := l.writer.do(ctx, func(t *transaction) error {
		n = 0
		return t.rows(`UPDATE issuances SET is_out = 0, taken_at = NULL, due_at = $2
			WHERE is_out = 1 AND record_offset IS NULL AND taken_at < $1 AND claim_token IS NULL RETURNING seq`,
			[]any{takenBefore.UnixMilli(), t.at}, func(row) error {
				n++
				return nil
			})
	})
	return n, away(err)
}
