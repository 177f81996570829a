package ledger

import (
	"context"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

// stalledAfter is how long an unfinished job may stand still and be healthy.
const stalledAfter = 5 * time.Minute

// Job reads a job with its counts; false = there is no such job.
func (l *Ledger) Job(ctx context.Context, id issue.JobID) (issue.JobProgress, bool, error) {
	defer l.metrics.observe(opRead, time.Now())
	var (
		progress issue.JobProgress
		found    bool
	)
	err := l.store.read(ctx, command{text: selectJob + ` WHERE id = $1`, args: []any{id}, each: func(r row) (err error) {
		found = true
		progress.Job, err = jobOf(r)
		return err
	}})
	if err != nil || !found {
		return progress, false, away(err)
	}
	err = l.store.read(ctx, command{
		text: `SELECT COUNT(*) FROM templates WHERE job_id = $1 AND broken_at IS NOT NULL`, args: []any{id},
		each: func(r row) error {
			progress.Broken = r.number() > 0
			return nil
		},
	})
	if err != nil {
		return progress, false, away(err)
	}
	moved, err := l.readCounts(ctx, &progress)
	if err != nil {
		return progress, false, away(err)
	}
	progress.Stalled = progress.State == issue.JobRunning && !progress.Done() && l.now().Sub(moved) > stalledAfter
	return progress, true, nil
}

// readCounts fills in the sums of a job and tells when the last of them moved.
func (l *Ledger) readCounts(ctx context.Context, progress *issue.JobProgress) (moved time.Time, err error) {
	progress.Counts, progress.FailedBy = map[issue.State]int{}, map[issue.Reason]int{}
	progress.Skipped = map[issue.SkipReason]int{}
	moved = progress.CreatedAt
	err = l.store.read(ctx, command{
		text: `SELECT kind, name, CAST(SUM(n) AS BIGINT), MAX(moved_at) FROM job_counts WHERE job_id = $1 GROUP BY kind, name`,
		args: []any{progress.ID},
		each: func(r row) error {
			kind, name, n, at := r.text(), r.text(), int(r.number()), moment(r)
			if at.After(moved) {
				moved = at
			}
			if n != 0 {
				setCount(progress, kind, name, n)
			}
			return nil
		},
	})
	return moved, err
}

func setCount(progress *issue.JobProgress, kind, name string, n int) {
	switch kind {
	case countState:
		progress.Counts[issue.State(name)] = n
	case countIssued:
		progress.Issued = n
	case countFailed:
		progress.FailedBy[issue.Reason(name)] = n
	case countSkipped:
		progress.Skipped[issue.SkipReason(name)] = n
	}
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
			SELECT s.user_id, '', 'skipped', '', 0, s.reason, '', 0, s.at, CAST(NULL AS BIGINT), CAST($7 AS BIGINT), s.certificate
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
	var page issue.LearnerPage
	err = l.store.read(ctx, command{
		text: learnersOfJob,
		args: []any{q.Job, at.learner, at.issuance, at.skipped, q.State, q.Limit + 1, int64(behindIssuances)},
		each: func(r row) error {
			if len(page.Learners) == q.Limit { // one row more: this page is not the last
				page.Next = at.encode()
				return nil
			}
			learner := learnerOf(r)
			page.Learners = append(page.Learners, learner)
			at = cursor{learner: string(learner.Learner), issuance: r.number(), skipped: r.text()}
			return nil
		},
	})
	return page, away(err)
}

func learnerOf(r row) issue.LearnerProgress {
	return issue.LearnerProgress{
		Learner: word[issue.LearnerID](r), Issuance: word[issue.IssuanceID](r), State: r.text(), Step: word[issue.Step](r),
		Attempts: int(r.number()), Reason: r.text(), Message: r.text(), Revision: int(r.number()),
		UpdatedAt: time.UnixMilli(r.number()).UTC(), Due: moment(r), CertificateID: r.text(),
	}
}
