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
	SELECT j.id, j.trace_parent, (SELECT COUNT(*) FROM issuances o WHERE o.job_id = j.id AND o.is_out = 1),
		(SELECT COUNT(*) FROM templates b WHERE b.job_id = j.id AND b.broken_at IS NOT NULL)
	FROM waiting w JOIN jobs j ON j.id = w.job_id WHERE j.state = 'running' ORDER BY j.created_at, j.id`

// The issuances that are taken, most of the time: those of a job without broken
// templates.
const (
	takeDue = takeOf + `job_id = $1 AND due_at <= $2` + takeLimit
	// Generate is what a broken template fails; who has his certificate goes on.
	takeWhole = takeOf + `job_id = $1 AND due_at <= $2 AND (step NOT IN ('', 'generate')
		OR certificate NOT IN (SELECT certificate FROM templates WHERE job_id = $1 AND broken_at IS NOT NULL))` + takeLimit
	takeProbe = takeOf + `job_id = $1 AND due_at <= $2 AND step IN ('', 'generate') AND certificate = $4` + takeLimit

	// What another dispatcher is just taking is left to that one.
	takeOf    = `WITH due AS (SELECT seq FROM issuances WHERE `
	takeLimit = ` ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
	UPDATE issuances SET is_out = 1, dispatch = dispatch + 1, due_at = NULL, taken_at = $2,
		record_partition = NULL, record_offset = NULL WHERE seq IN (SELECT seq FROM due)
	RETURNING id, user_id, batch_id, course_id, certificate, completed_on, dispatch, revision`
)

// turn is one job that has something due.
type turn struct {
	job         issue.JobID
	traceParent string
	out         int
	broken      bool // one of its templates is
}

// TakeDue implements [issue.DispatchStore]. Jobs share the limit and what may
// be ahead in all evenly; what some of them leave goes to the others, the oldest
// first.
func (l *Ledger) TakeDue(ctx context.Context, ahead issue.Ahead, limit int) ([]issue.Event, error) {
	defer l.metrics.observe(opDispatch, time.Now())
	turns, err := l.turns(ctx)
	if err != nil || len(turns) == 0 {
		return nil, away(err)
	}
	out, err := l.out(ctx, ahead)
	if err != nil {
		return nil, away(err)
	}
	rounds := shares(turns, out, ahead, limit)
	var events []issue.Event
	err = l.writer.do(ctx, func(t *transaction) error {
		events = events[:0]
		taken := make([]int, len(turns))
		for _, round := range rounds {
			for i, turn := range turns {
				before := len(events)
				n := min(round.atOnce, limit-before, round.out-turn.out-taken[i], round.inAll-before)
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

// round bounds what jobs get in one round of turns.
type round struct {
	atOnce int // events of one job
	out    int // of one job's events, with those that are out already
	inAll  int // events of all rounds so far
}

// shares says how jobs share, with so many events of all jobs out: first the same
// for each, at least one, however much others have; then whatever is left for
// whoever has something due.
func shares(turns []turn, out int, ahead issue.Ahead, limit int) []round {
	perJob, inAll := ahead.PerJob, ahead.InAll
	if perJob <= 0 {
		perJob = math.MaxInt
	}
	if inAll <= 0 {
		inAll = math.MaxInt
	}
	others := out
	for _, turn := range turns {
		others -= turn.out
	}
	even := max((inAll-max(others, 0))/len(turns), 1)
	return []round{
		{atOnce: max(limit/len(turns), 1), out: min(perJob, even), inAll: math.MaxInt},
		{atOnce: limit, out: perJob, inAll: inAll - out},
	}
}

// out counts the events of all jobs that are out, where that matters.
func (l *Ledger) out(ctx context.Context, ahead issue.Ahead) (n int, err error) {
	if ahead.InAll <= 0 {
		return 0, nil
	}
	err = l.store.read(ctx, command{text: `SELECT COUNT(*) FROM issuances WHERE is_out = 1`, each: func(r row) error {
		n = int(r.number())
		return nil
	}})
	return n, err
}

// turns lists the jobs with something due, now or later, oldest first.
func (l *Ledger) turns(ctx context.Context) ([]turn, error) {
	var turns []turn
	err := l.store.read(ctx, command{text: jobsWithDue, each: func(r row) error {
		turns = append(turns, turn{
			job: word[issue.JobID](r), traceParent: r.text(), out: int(r.number()), broken: r.number() > 0,
		})
		return nil
	}})
	return turns, err
}

// take takes up to n of what is due of a job. Of a broken template that is one
// learner now and then, another each time: who failed waits, so he comes last.
func (t *transaction) take(turn turn, n int, events *[]issue.Event) error {
	if n <= 0 {
		return nil
	}
	if !turn.broken {
		return t.takeBy(takeDue, turn, events, turn.job, t.at, n)
	}
	certificates, err := t.probes(turn.job)
	if err != nil {
		return err
	}
	for _, certificate := range certificates {
		if err := t.takeBy(takeProbe, turn, events, turn.job, t.at, 1, certificate); err != nil {
			return err
		}
	}
	return t.takeBy(takeWhole, turn, events, turn.job, t.at, n)
}

func (t *transaction) takeBy(statement string, turn turn, events *[]issue.Event, args ...any) error {
	return t.rows(statement, args, func(r row) error {
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
