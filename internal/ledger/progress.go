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
	progress.Issued, progress.Broken = extras.issued, extras.broken
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

// learnersOfJob lists issuances and skips of a job in the order of learner,
// issuances first, from a cursor on; a state narrows it. Each branch is bounded
// by itself, so that a page costs a page however large the job is.
const learnersOfJob = `SELECT x.user_id, x.id, x.state, x.step, x.attempts, x.reason, x.message, x.revision, x.updated_at,
		x.due_at, COALESCE((SELECT r.certificate_id FROM revisions r WHERE r.issuance = x.seq
			AND r.registered_at IS NOT NULL ORDER BY r.revision DESC LIMIT 1), ''), x.seq, x.skipped
	FROM (
		SELECT * FROM (
			SELECT ji.user_id, i.id, i.state, i.step, i.attempts, i.reason, i.message, i.revision, i.updated_at, i.due_at,
				i.seq, '' AS skipped
			FROM job_issuances ji JOIN issuances i ON i.seq = ji.issuance
			WHERE ji.job_id = $1 AND ji.user_id >= $2 AND (ji.user_id > $2 OR ji.issuance > $3)
				AND ($5 = '' OR i.state = $5)
			ORDER BY ji.user_id, ji.issuance LIMIT $6) issued
		UNION ALL
		SELECT * FROM (
			SELECT s.user_id, '', 'skipped', '', 0, s.reason, '', 0, s.at, NULL, $7, s.certificate
			FROM job_skips s
			WHERE s.job_id = $1 AND s.user_id >= $2 AND (s.user_id > $2 OR s.certificate > $4)
				AND ($5 = '' OR $5 = 'skipped')
			ORDER BY s.user_id, s.certificate LIMIT $6) passed
	) x ORDER BY x.user_id, x.seq, x.skipped LIMIT $6`

// Learners reads one page of a job's learners.
func (l *Ledger) Learners(ctx context.Context, q issue.LearnerQuery) (issue.LearnerPage, error) {
	defer l.metrics.observe(opRead, time.Now())
	at, err := decodeCursor(q.Cursor)
	if err != nil {
		return issue.LearnerPage{}, err
	}
	rows, err := l.reads.QueryContext(ctx, learnersOfJob, q.Job, at.learner, at.issuance, at.skipped, q.State, q.Limit+1,
		behindIssuances)
	if err != nil {
		return issue.LearnerPage{}, away(err)
	}
	var page issue.LearnerPage
	err = eachRow(rows, func(scan func(...any) error) error {
		if len(page.Learners) == q.Limit { // one row more: this page is not the last
			page.Next = at.encode()
			return nil
		}
		var (
			learner issue.LearnerProgress
			updated int64
			due     sql.NullInt64
		)
		err := scan(&learner.Learner, &learner.Issuance, &learner.State, &learner.Step, &learner.Attempts, &learner.Reason,
			&learner.Message, &learner.Revision, &updated, &due, &learner.CertificateID, &at.issuance, &at.skipped)
		learner.UpdatedAt, learner.Due = time.UnixMilli(updated).UTC(), moment(due)
		page.Learners = append(page.Learners, learner)
		at.learner = string(learner.Learner)
		return err
	})
	return page, away(err)
}
