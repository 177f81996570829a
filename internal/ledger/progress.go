package ledger

import (
	"context"
	"database/sql"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

// stalledAfter is how long an unfinished job may stand still and be healthy.
const stalledAfter = 5 * time.Minute

// Job reads a job with its counts; false = there is no such job.
func (l *Ledger) Job(ctx context.Context, id issue.JobID) (issue.JobProgress, bool, error) {
	defer l.metrics.observe(opRead, time.Now())
	rows, err := l.reads.QueryContext(ctx, selectJob+` WHERE id = $1`, id)
	if err != nil {
		return issue.JobProgress{}, false, away(err)
	}
	var (
		progress issue.JobProgress
		extras   jobExtras
		found    bool
	)
	err = eachRow(rows, func(scan func(...any) error) (err error) {
		found = true
		progress.Job, extras, err = scanJob(scan)
		return err
	})
	if err != nil || !found {
		return progress, false, away(err)
	}
	progress.Issued = extras.issued
	if err := l.readCounts(ctx, &progress); err != nil {
		return progress, false, away(err)
	}
	progress.Stalled = progress.State == issue.JobRunning && !progress.Done() && l.now().Sub(extras.movedAt) > stalledAfter
	return progress, true, nil
}

func (l *Ledger) readCounts(ctx context.Context, progress *issue.JobProgress) error {
	progress.Counts, progress.FailedBy = map[issue.State]int{}, map[issue.Reason]int{}
	progress.Skipped = map[issue.SkipReason]int{}
	rows, err := l.reads.QueryContext(ctx, `SELECT kind, name, n FROM job_counts WHERE job_id = $1 AND n <> 0`, progress.ID)
	if err != nil {
		return err
	}
	return eachRow(rows, func(scan func(...any) error) error {
		var kind, name string
		var n int
		if err := scan(&kind, &name, &n); err != nil {
			return err
		}
		switch kind {
		case countState:
			progress.Counts[issue.State(name)] = n
		case countFailed:
			progress.FailedBy[issue.Reason(name)] = n
		case countSkipped:
			progress.Skipped[issue.SkipReason(name)] = n
		}
		return nil
	})
}

// learnersOfJob lists issuances and skips of a job in the order of learner and
// certificate, from a cursor on. A state narrows it.
const learnersOfJob = `SELECT x.user_id, x.issuance_id, x.state, x.step, x.attempts, x.reason, x.message, x.revision,
		x.updated_at, x.due_at, COALESCE((SELECT r.certificate_id FROM revisions r WHERE r.issuance_id = x.issuance_id
			AND r.registered_at IS NOT NULL ORDER BY r.revision DESC LIMIT 1), ''), x.position
	FROM (
		SELECT ji.user_id, i.id AS issuance_id, i.state, i.step, i.attempts, i.reason, i.message, i.revision,
			i.updated_at, i.due_at, i.id AS position
		FROM job_issuances ji JOIN issuances i ON i.id = ji.issuance_id
		WHERE ji.job_id = $1 AND (ji.user_id > $2 OR (ji.user_id = $2 AND ji.issuance_id > $3))
			AND ($4 = '' OR i.state = $4)
		UNION ALL
		SELECT s.user_id, '', 'skipped', '', 0, s.reason, '', 0, s.at, NULL, s.certificate
		FROM job_skips s
		WHERE s.job_id = $1 AND (s.user_id > $2 OR (s.user_id = $2 AND s.certificate > $3))
			AND ($4 = '' OR $4 = 'skipped')
	) x ORDER BY x.user_id, x.position LIMIT $5`

// Learners reads one page of a job's learners.
func (l *Ledger) Learners(ctx context.Context, q issue.LearnerQuery) (issue.LearnerPage, error) {
	defer l.metrics.observe(opRead, time.Now())
	after, position, err := decodeCursor(q.Cursor)
	if err != nil {
		return issue.LearnerPage{}, err
	}
	rows, err := l.reads.QueryContext(ctx, learnersOfJob, q.Job, after, position, q.State, q.Limit+1)
	if err != nil {
		return issue.LearnerPage{}, away(err)
	}
	var page issue.LearnerPage
	err = eachRow(rows, func(scan func(...any) error) error {
		if len(page.Learners) == q.Limit { // one row more: this page is not the last
			page.Next = encodeCursor(after, position)
			return nil
		}
		var (
			learner issue.LearnerProgress
			updated int64
			due     sql.NullInt64
		)
		err := scan(&learner.Learner, &learner.Issuance, &learner.State, &learner.Step, &learner.Attempts, &learner.Reason,
			&learner.Message, &learner.Revision, &updated, &due, &learner.CertificateID, &position)
		learner.UpdatedAt, learner.Due = time.UnixMilli(updated).UTC(), moment(due)
		page.Learners = append(page.Learners, learner)
		after = string(learner.Learner)
		return err
	})
	return page, away(err)
}
