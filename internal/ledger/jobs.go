package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var (
	_ issue.JobStore    = (*Ledger)(nil)
	_ issue.FanOutStore = (*Ledger)(nil)
)

const insertJob = `INSERT INTO jobs (id, batch_id, course_id, certificates, filter, re_issue, state, eligible, estimate,
	resolved, read_to, created_by, created_at, moved_at, trace_parent, idempotency_key, fingerprint)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $14, $15, $16) ON CONFLICT DO NOTHING`

// CreateJob implements [issue.JobStore].
func (l *Ledger) CreateJob(ctx context.Context, job issue.Job, key, fingerprint string) (issue.Job, error) {
	defer l.metrics.observe(opAccept, time.Now())
	var created issue.Job
	err := l.writer.do(ctx, func(t *transaction) error {
		created = job
		n, err := t.insertJob(job, key, fingerprint)
		if err != nil || n == 1 {
			return err
		}
		created, err = t.jobOfKey(key, fingerprint)
		return err
	})
	if err != nil && !errors.Is(err, issue.ErrKeyReused) {
		err = away(err)
	}
	return created, err
}

// insertJob writes a job with its skipped counts; 0 rows = its id or its key
// is there already.
func (t *transaction) insertJob(job issue.Job, key, fingerprint string) (int64, error) {
	certificates, err := json.Marshal(job.Certificates)
	if err != nil {
		return 0, err
	}
	filter, err := json.Marshal(job.Filter)
	if err != nil {
		return 0, err
	}
	n, err := t.exec(insertJob, job.ID, job.Batch, job.Course, string(certificates), string(filter), flag(job.ReIssue),
		job.State, job.Eligible, flag(job.Estimate), flag(job.Resolved), job.Cursor, job.CreatedBy,
		job.CreatedAt.UnixMilli(), job.TraceParent, sql.NullString{String: key, Valid: key != ""}, fingerprint)
	if err != nil || n == 0 {
		return 0, err
	}
	for reason, skipped := range job.Skipped {
		t.counts.of(job.ID).sums[sumKey{countSkipped, string(reason)}] += skipped
	}
	return n, nil
}

// jobOfKey finds the job that an idempotency key made.
func (t *transaction) jobOfKey(key, fingerprint string) (issue.Job, error) {
	var id, made string
	err := t.row(`SELECT id, fingerprint FROM jobs WHERE idempotency_key = $1`, []any{key}, &id, &made)
	if err != nil {
		return issue.Job{}, fmt.Errorf("find the job of an idempotency key: %w", err)
	}
	if made != fingerprint {
		return issue.Job{}, issue.ErrKeyReused
	}
	var job issue.Job
	err = t.rows(selectJob+` WHERE id = $1`, []any{id}, func(scan func(...any) error) (err error) {
		job, _, err = scanJob(scan)
		return err
	})
	if err != nil {
		return issue.Job{}, err
	}
	job.Skipped = map[issue.SkipReason]int{}
	err = t.rows(`SELECT name, n FROM job_counts WHERE job_id = $1 AND kind = $2`, []any{id, countSkipped},
		func(scan func(...any) error) error {
			var reason issue.SkipReason
			var n int
			err := scan(&reason, &n)
			job.Skipped[reason] = n
			return err
		})
	return job, err
}

const selectJob = `SELECT id, batch_id, course_id, certificates, filter, re_issue, state, eligible, estimate, resolved,
	read_to, created_by, created_at, trace_parent, issued, moved_at,
	EXISTS (SELECT 1 FROM templates b WHERE b.job_id = jobs.id AND b.broken_at IS NOT NULL) FROM jobs`

// scanJob reads a row of selectJob; extras are what only progress shows.
func scanJob(scan func(...any) error) (issue.Job, jobExtras, error) {
	var (
		job                  issue.Job
		extras               jobExtras
		certificates, filter string
		created, moved       int64
	)
	err := scan(&job.ID, &job.Batch, &job.Course, &certificates, &filter, &job.ReIssue, &job.State, &job.Eligible,
		&job.Estimate, &job.Resolved, &job.Cursor, &job.CreatedBy, &created, &job.TraceParent, &extras.issued, &moved,
		&extras.broken)
	if err != nil {
		return job, extras, err
	}
	job.CreatedAt, extras.movedAt = time.UnixMilli(created).UTC(), time.UnixMilli(moved)
	if err := json.Unmarshal([]byte(certificates), &job.Certificates); err != nil {
		return job, extras, fmt.Errorf("read the certificates of job %s: %w", job.ID, err)
	}
	if err := json.Unmarshal([]byte(filter), &job.Filter); err != nil {
		return job, extras, fmt.Errorf("read the filter of job %s: %w", job.ID, err)
	}
	return job, extras, nil
}

type jobExtras struct {
	issued  int
	movedAt time.Time
	broken  bool // one of its templates is
}

// Unresolved implements [issue.FanOutStore].
func (l *Ledger) Unresolved(ctx context.Context) ([]issue.Job, error) {
	defer l.metrics.observe(opRead, time.Now())
	rows, err := l.reads.QueryContext(ctx,
		selectJob+` WHERE resolved = 0 AND state <> $1 ORDER BY created_at, id`, issue.JobCancelled)
	if err != nil {
		return nil, away(err)
	}
	var jobs []issue.Job
	err = eachRow(rows, func(scan func(...any) error) error {
		job, _, err := scanJob(scan)
		jobs = append(jobs, job)
		return err
	})
	return jobs, away(err)
}

// AddPage implements [issue.FanOutStore].
func (l *Ledger) AddPage(ctx context.Context, job issue.Job, page issue.FannedOut) error {
	defer l.metrics.observe(opFanOut, time.Now())
	return away(l.writer.do(ctx, func(t *transaction) error {
		n, err := t.exec(`UPDATE jobs SET read_to = $3, resolved = $4 WHERE id = $1 AND read_to = $2 AND resolved = 0`,
			job.ID, job.Cursor, page.Next, flag(page.Last))
		if err != nil || n == 0 {
			return err
		}
		if err := t.addLearners(job, page); err != nil {
			return err
		}
		if page.Last {
			return t.settleEligible(job.ID)
		}
		return nil
	}))
}

// settleEligible makes the job's count of eligible learners exact once the
// whole batch was read.
func (t *transaction) settleEligible(job issue.JobID) error {
	_, err := t.exec(`UPDATE jobs SET estimate = 0,
		eligible = (SELECT COUNT(DISTINCT user_id) FROM job_issuances WHERE job_id = $1) WHERE id = $1`, job)
	return err
}

// Adopt implements [issue.WorkStore].
func (l *Ledger) Adopt(ctx context.Context, standing issue.Job, page issue.FannedOut) error {
	defer l.metrics.observe(opAdopt, time.Now())
	return away(l.writer.do(ctx, func(t *transaction) error {
		if _, err := t.insertJob(standing, "", ""); err != nil {
			return err
		}
		if err := t.addLearners(standing, page); err != nil {
			return err
		}
		return t.settleEligible(standing.ID)
	}))
}

// addLearners writes the issuances and skips of a page for a job.
func (t *transaction) addLearners(job issue.Job, page issue.FannedOut) error {
	// What moved so far counts for the jobs that wanted it so far.
	if err := t.settleMoves(); err != nil {
		return err
	}
	for _, wanted := range page.Wanted {
		why, err := t.want(job, wanted, page.Cause)
		if err != nil {
			return fmt.Errorf("write issuance %s: %w", wanted.ID, err)
		}
		switch {
		case why != "":
			page.Skipped = append(page.Skipped, issue.Skip{
				Learner: wanted.Learner, Certificate: wanted.Certificate, Reason: why,
			})
		case job.Resolved:
			if err := t.unskip(job, wanted); err != nil {
				return fmt.Errorf("write a learner who was skipped: %w", err)
			}
		}
	}
	for _, skip := range page.Skipped {
		if err := t.skip(job, skip); err != nil {
			return fmt.Errorf("write a skipped learner: %w", err)
		}
	}
	return nil
}

// skip notes that a job passes over a learner; one whom it already counts among
// its own is no such learner, only an event that came twice. What the enrolment
// source counted at acceptance is not counted again; a standing job has had no
// such count.
func (t *transaction) skip(job issue.Job, skip issue.Skip) error {
	n, err := t.exec(`INSERT INTO job_skips (job_id, user_id, certificate, reason, at) SELECT $1, $2, $3, $4, $5
		WHERE NOT EXISTS (SELECT 1 FROM job_issuances ji JOIN issuances i ON i.seq = ji.issuance
			WHERE ji.job_id = $1 AND ji.user_id = $2 AND i.certificate = $3)
		ON CONFLICT DO NOTHING`, job.ID, skip.Learner, skip.Certificate, skip.Reason, t.at)
	if err != nil || n == 0 {
		return err
	}
	if job.Resolved || !countedAtAcceptance(skip.Reason) {
		t.counts.of(job.ID).sums[sumKey{countSkipped, string(skip.Reason)}]++
	}
	return nil
}

// unskip takes back that a standing job passed over a learner, for a later event
// found him eligible.
func (t *transaction) unskip(job issue.Job, wanted issue.Wanted) error {
	return t.rows(`DELETE FROM job_skips WHERE job_id = $1 AND user_id = $2 AND certificate = $3 RETURNING reason`,
		[]any{job.ID, wanted.Learner, wanted.Certificate}, func(scan func(...any) error) error {
			var reason string
			err := scan(&reason)
			t.counts.of(job.ID).sums[sumKey{countSkipped, reason}]--
			return err
		})
}

// countedAtAcceptance says whether the enrolment source counts a reason.
func countedAtAcceptance(reason issue.SkipReason) bool {
	switch reason {
	case issue.SkipInactive, issue.SkipStatus, issue.SkipNoCompletionDate, issue.SkipNotEnrolled:
		return true
	default:
		return false
	}
}

// want makes a job want an issuance, creating it when it is new. It answers
// why the learner is passed over instead, or nothing.
func (t *transaction) want(job issue.Job, wanted issue.Wanted, cause string) (issue.SkipReason, error) {
	var seq int64
	err := t.row(`INSERT INTO issuances (id, batch_id, user_id, course_id, certificate, completed_on, job_id,
		wanted_by, revision, last_revision, state, step, attempts, rounds, reason, http_status, message, replays, updated_at,
		is_out, dispatch, due_at, crashes)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 1, 1, 1, 'queued', '', 0, 0, '', 0, '', 0, $8, 0, 0, $8, 0)
		ON CONFLICT DO NOTHING RETURNING seq`, []any{
		wanted.ID, job.Batch, wanted.Learner, job.Course, wanted.Certificate, wanted.CompletedOn.UnixMilli(), job.ID, t.at,
	}, &seq)
	if errors.Is(err, sql.ErrNoRows) {
		return t.wantAgain(job, wanted, cause)
	}
	if err != nil {
		return "", err
	}
	if err := t.addRevision(seq, wanted, 1, cause); err != nil {
		return "", err
	}
	t.note(history{issuance: seq, revision: 1, state: issue.Queued})
	_, err = t.attach(job.ID, seq, wanted, standing{state: issue.Queued})
	return "", err
}

// wantAgain makes a job want an issuance that exists. One that is issued is
// passed over unless this is a re-issue; a failed one starts again; one under
// way is left alone.
func (t *transaction) wantAgain(job issue.Job, wanted issue.Wanted, cause string) (issue.SkipReason, error) {
	var (
		is           standing
		issuedAt     sql.NullInt64
		seq          int64
		last, inHand int
	)
	err := t.row(`SELECT seq, state, reason, issued_at, last_revision, revision FROM issuances WHERE id = $1`,
		[]any{wanted.ID}, &seq, &is.state, &is.reason, &issuedAt, &last, &inHand)
	if err != nil {
		return "", err
	}
	is.issued = issuedAt.Valid
	if is.issued && !job.ReIssue {
		return issue.SkipAlreadyIssued, nil
	}
	attached, err := t.attach(job.ID, seq, wanted, is)
	if err != nil {
		return "", err
	}
	if attached {
		if _, err := t.exec(`UPDATE issuances SET wanted_by = wanted_by + 1 WHERE seq = $1`, seq); err != nil {
			return "", err
		}
	}
	if job.ReIssue {
		added, err := t.addNextRevision(seq, wanted, last+1, cause)
		if err != nil || !added || !is.state.Final() || last != inHand {
			return "", err
		}
		return "", t.startRevision(seq, job.ID, is, last+1)
	}
	if is.state == issue.Failed {
		return "", t.requeue(seq, job.ID, is)
	}
	return "", nil
}

// attach notes that a job wants an issuance, and counts it there; false = the
// job wanted it before.
func (t *transaction) attach(job issue.JobID, seq int64, wanted issue.Wanted, is standing) (bool, error) {
	n, err := t.exec(`INSERT INTO job_issuances (job_id, user_id, issuance) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		job, wanted.Learner, seq)
	if err != nil || n == 0 {
		return false, err
	}
	t.counts.of(job).add(is, +1)
	return true, nil
}

func (t *transaction) addRevision(seq int64, wanted issue.Wanted, revision int, cause string) error {
	_, err := t.exec(`INSERT INTO revisions (issuance, revision, cause, old_id, certificate_id, access_code, pdf_url,
		json_url, email, sms, created_at) VALUES ($1, $2, $3, $4, '', '', '', '', $5, $5, $6) ON CONFLICT DO NOTHING`,
		seq, revision, cause, wanted.HeldID, issue.ChannelPending, t.at)
	return err
}

// addNextRevision adds the revision of a re-issue; false = its cause has made
// one before.
func (t *transaction) addNextRevision(seq int64, wanted issue.Wanted, revision int, cause string) (bool, error) {
	var known int
	err := t.row(`SELECT COUNT(*) FROM revisions WHERE issuance = $1 AND cause = $2`, []any{seq, cause}, &known)
	if err != nil || known > 0 {
		return false, err
	}
	if err := t.addRevision(seq, wanted, revision, cause); err != nil {
		return false, err
	}
	_, err = t.exec(`UPDATE issuances SET last_revision = $2 WHERE seq = $1`, seq, revision)
	return true, err
}

// startRevision makes a revision the one that is worked.
func (t *transaction) startRevision(seq int64, job issue.JobID, from standing, revision int) error {
	if _, err := t.exec(`UPDATE issuances SET revision = $2 WHERE seq = $1`, seq, revision); err != nil {
		return err
	}
	return t.requeue(seq, job, from)
}

// requeue makes an issuance at rest due again, for a job.
func (t *transaction) requeue(seq int64, job issue.JobID, from standing) error {
	line := history{issuance: seq, state: issue.Queued}
	by := wanters{job: job}
	var id issue.IssuanceID
	err := t.row(`UPDATE issuances SET state = 'queued', job_id = $2, step = '', attempts = 0, rounds = 0, reason = '',
		http_status = 0, message = '', first_failed_at = NULL, replays = replays + $3, updated_at = $4, due_at = $4,
		crashes = 0 WHERE seq = $1 RETURNING id, revision, wanted_by`,
		[]any{seq, job, flag(from.state == issue.Failed), t.at}, &id, &line.revision, &by.count)
	if err != nil {
		return err
	}
	_, err = t.exec(`UPDATE dead_letters SET state = 'redriven' WHERE issuance_id = $1 AND state = 'open'`, id)
	if err != nil {
		return err
	}
	t.note(line)
	return t.moved(seq, by, from, standing{state: issue.Queued, issued: from.issued})
}
