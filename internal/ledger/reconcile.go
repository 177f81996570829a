package ledger

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var _ issue.ReconcileStore = (*Ledger)(nil)

// records reads issuances with their revisions, one row for each revision.
const (
	recordColumns = `SELECT i.seq, i.user_id, i.certificate, i.state, i.issued_at,
		r.certificate_id, r.access_code, r.old_id, r.registered_at `
	recordOrder = ` ORDER BY i.seq, r.revision`

	// recordsOfBatch reads a page in the order of creation. A batch's rows lie
	// mostly together, so the rows of others that it steps over are few.
	recordsOfBatch = recordColumns + `FROM (SELECT * FROM issuances
			WHERE batch_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4) i
		JOIN revisions r ON r.issuance = i.seq` + recordOrder

	// newestOfBatch bounds that walk: what is added behind it was not there when
	// the walk began, and nobody steps to the end of the table for it.
	newestOfBatch = `SELECT COALESCE(MIN(ji.issuance), 0), COALESCE(MAX(ji.issuance), 0)
		FROM jobs j JOIN job_issuances ji ON ji.job_id = j.id WHERE j.batch_id = $1`
)

// recordsPage is how many issuances are read at once.
const recordsPage = 500

// EachIssuance implements [issue.ReconcileStore]. No read stays open while visit
// runs: it may take its time.
func (l *Ledger) EachIssuance(ctx context.Context, batch issue.BatchID, visit func([]issue.IssuanceRecord) error) error {
	var first, last int64
	err := l.store.read(ctx, command{text: newestOfBatch, args: []any{batch}, each: func(r row) error {
		first, last = r.number(), r.number()
		return nil
	}})
	if err != nil {
		return away(err)
	}
	for after := first - 1; after < last; {
		page, reached, err := l.records(ctx, recordsOfBatch, batch, after, last, recordsPage)
		if err != nil || len(page) == 0 {
			return err
		}
		if err := visit(page); err != nil {
			return err
		}
		after = reached
	}
	return nil
}

// IssuancesOf implements [issue.ReconcileStore].
func (l *Ledger) IssuancesOf(ctx context.Context, batch issue.BatchID, learners []issue.LearnerID) ([]issue.IssuanceRecord, error) {
	if len(learners) == 0 {
		return nil, nil
	}
	args, places := []any{batch}, make([]string, len(learners))
	for i, learner := range learners {
		args = append(args, learner)
		places[i] = "$" + strconv.Itoa(len(args))
	}
	records, _, err := l.records(ctx, recordColumns+`FROM issuances i JOIN revisions r ON r.issuance = i.seq
		WHERE i.batch_id = $1 AND i.user_id IN (`+strings.Join(places, ", ")+`)`+recordOrder, args...)
	return records, err
}

// records puts the rows of each issuance together; it answers the last one's seq,
// too.
func (l *Ledger) records(ctx context.Context, query string, args ...any) (records []issue.IssuanceRecord, last int64, err error) {
	defer l.metrics.observe(opRead, time.Now())
	err = l.store.read(ctx, command{text: query, args: args, each: func(r row) error {
		seq, record := r.number(), issue.IssuanceRecord{
			Learner: word[issue.LearnerID](r), Certificate: r.text(), State: word[issue.State](r), Issued: r.number() != 0,
		}
		if seq != last {
			records, last = append(records, record), seq
		}
		readRevision(&records[len(records)-1], r)
		return nil
	}})
	return records, last, away(err)
}

// readRevision adds what a revision tells. One that is not registered replaces
// nothing yet, but its certificate may be on its way.
func readRevision(record *issue.IssuanceRecord, r row) {
	made := issue.Certificate{ID: r.text(), AccessCode: r.text()}
	replaced, registered := r.text(), r.number() != 0
	if made.ID != "" {
		record.Known = append(record.Known, made.ID)
	}
	if registered {
		record.Newest = made
		if replaced != "" {
			record.Known = append(record.Known, replaced)
		}
	}
}

// wrongSums compares the sums of one job with its rows, in one statement: sums
// and rows change together, so both have to be of one moment. Of the skipped
// only those reasons are compared that every job counts by its rows.
const wrongSums = `SELECT kind, name, CAST(SUM(kept) AS BIGINT), CAST(SUM(counted) AS BIGINT) FROM (
		SELECT kind, name, n AS kept, 0 AS counted FROM job_counts
			WHERE job_id = $1 AND (kind <> 'skipped' OR name IN ` + skipsByRows + `)
		UNION ALL SELECT 'state', i.state, 0, COUNT(*) ` + issuancesOfJob + ` GROUP BY i.state
		UNION ALL SELECT 'failed', i.reason, 0, COUNT(*) ` + issuancesOfJob + ` AND i.state = 'failed' GROUP BY i.reason
		UNION ALL SELECT 'issued', '', 0, COUNT(*) ` + issuancesOfJob + ` AND i.issued_at IS NOT NULL
		UNION ALL SELECT 'skipped', reason, 0, COUNT(*) FROM job_skips
			WHERE job_id = $1 AND reason IN ` + skipsByRows + ` GROUP BY reason
	) sums GROUP BY kind, name HAVING SUM(kept) <> SUM(counted) ORDER BY kind, name`

const (
	issuancesOfJob = `FROM job_issuances ji JOIN issuances i ON i.seq = ji.issuance WHERE ji.job_id = $1`
	// skipsByRows are the reasons that the enrolment source does not count at
	// acceptance; see countedAtAcceptance.
	skipsByRows = `('already_issued', 'bad_completion_date', 'filtered', 'criteria')`
)

// Recount implements [issue.ReconcileStore].
func (l *Ledger) Recount(ctx context.Context, batch issue.BatchID, fix bool) (issue.Recount, error) {
	var recount issue.Recount
	jobs, err := l.jobsOf(ctx, batch)
	if err != nil {
		return recount, err
	}
	recount.Jobs = len(jobs)
	for _, job := range jobs {
		if !job.Resolved && job.State != issue.JobCancelled {
			recount.Unresolved++
		}
		wrong, err := l.wrongSums(ctx, job.ID)
		if err == nil && fix && len(wrong) > 0 {
			// Judged afresh: somebody else may correct them, too.
			wrong, err = l.correct(ctx, job.ID)
			recount.Corrected += len(wrong)
		}
		if err != nil {
			return recount, err
		}
		recount.Wrong = append(recount.Wrong, wrong...)
	}
	return recount, nil
}

// jobsOf lists the jobs of a batch.
func (l *Ledger) jobsOf(ctx context.Context, batch issue.BatchID) ([]issue.Job, error) {
	defer l.metrics.observe(opRead, time.Now())
	var jobs []issue.Job
	err := l.store.read(ctx, command{
		text: selectJob + ` WHERE batch_id = $1 ORDER BY created_at, id`, args: []any{batch},
		each: func(r row) error {
			job, err := jobOf(r)
			jobs = append(jobs, job)
			return err
		},
	})
	return jobs, away(err)
}

func (l *Ledger) wrongSums(ctx context.Context, job issue.JobID) (wrong []issue.WrongSum, err error) {
	defer l.metrics.observe(opRead, time.Now())
	err = l.store.read(ctx, command{text: wrongSums, args: []any{job}, each: func(r row) error {
		wrong = append(wrong, wrongSum(job, r))
		return nil
	}})
	return wrong, away(err)
}

func wrongSum(job issue.JobID, r row) issue.WrongSum {
	return issue.WrongSum{Job: job, Kind: r.text(), Name: r.text(), Kept: int(r.number()), Counted: int(r.number())}
}

// correct moves the sums of a job by what they are wrong, and answers them. What
// moves meanwhile is added to them as ever.
func (l *Ledger) correct(ctx context.Context, job issue.JobID) (wrong []issue.WrongSum, err error) {
	err = l.writer.do(ctx, func(t *transaction) error {
		wrong, err = t.correct(job)
		return err
	})
	return wrong, away(err)
}

// correct holds the job, so that of two who correct it the second finds nothing.
// Of the other writes of its group the rows are changed by then, and the sums are
// not: what they come to is no mistake.
func (t *transaction) correct(job issue.JobID) (wrong []issue.WrongSum, err error) {
	if err := t.flush(); err != nil {
		return nil, err
	}
	err = t.session.run(t.ctx, []command{
		{text: `SELECT id FROM jobs WHERE id = $1 FOR UPDATE`, args: []any{job}, onlyLocks: true},
		{text: wrongSums, args: []any{job}, each: func(r row) error {
			sum := wrongSum(job, r)
			if key := (sumKey{job, sum.Kind, sum.Name}); sum.Kept+t.counts[key] != sum.Counted {
				t.counts[key] = sum.Counted - sum.Kept
				wrong = append(wrong, sum)
			}
			return nil
		}},
	})
	return wrong, err
}
