package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var _ issue.JobStore = (*Ledger)(nil)

const insertJob = `INSERT INTO jobs (id, batch_id, course_id, certificates, filter, re_issue, state, eligible, estimate,
	resolved, read_to, created_by, created_at, trace_parent, idempotency_key, fingerprint)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING RETURNING id`

// CreateJob implements [issue.JobStore].
func (l *Ledger) CreateJob(ctx context.Context, job issue.Job, key, fingerprint string) (issue.Job, error) {
	defer l.metrics.observe(opAccept, time.Now())
	var created issue.Job
	err := l.writer.do(ctx, func(t *transaction) error {
		created = job
		isNew, err := t.insertJob(job, key, fingerprint)
		if err != nil || isNew {
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

// insertJob writes a job with its skipped counts; false = its id or its key is
// there already.
func (t *transaction) insertJob(job issue.Job, key, fingerprint string) (bool, error) {
	certificates, err := json.Marshal(job.Certificates)
	if err != nil {
		return false, err
	}
	filter, err := json.Marshal(job.Filter)
	if err != nil {
		return false, err
	}
	var keyOrNull any
	if key != "" {
		keyOrNull = key
	}
	isNew, err := t.found(insertJob, []any{
		job.ID, job.Batch, job.Course, string(certificates), string(filter), flag(job.ReIssue),
		job.State, job.Eligible, flag(job.Estimate), flag(job.Resolved), job.Cursor, job.CreatedBy,
		job.CreatedAt.UnixMilli(), job.TraceParent, keyOrNull, fingerprint,
	}, nil)
	if err != nil || !isNew {
		return false, err
	}
	for reason, skipped := range job.Skipped {
		t.counts.skip(job.ID, reason, skipped)
	}
	return true, nil
}

// jobOfKey finds the job that an idempotency key made.
func (t *transaction) jobOfKey(key, fingerprint string) (issue.Job, error) {
	var id, made string
	found, err := t.found(`SELECT id, fingerprint FROM jobs WHERE idempotency_key = $1`, []any{key}, func(r row) {
		id, made = r.text(), r.text()
	})
	switch {
	case err != nil:
		return issue.Job{}, fmt.Errorf("find the job of an idempotency key: %w", err)
	case !found:
		return issue.Job{}, errors.New("the job has the id of another")
	case made != fingerprint:
		return issue.Job{}, issue.ErrKeyReused
	}
	var job issue.Job
	err = t.rows(selectJob+` WHERE id = $1`, []any{id}, func(r row) (err error) {
		job, err = jobOf(r)
		return err
	})
	if err != nil {
		return issue.Job{}, err
	}
	job.Skipped = map[issue.SkipReason]int{}
	err = t.rows(`SELECT name, n FROM job_counts WHERE job_id = $1 AND kind = $2`, []any{id, countSkipped}, func(r row) error {
		job.Skipped[word[issue.SkipReason](r)] += int(r.number())
		return nil
	})
	return job, err
}

const selectJob = `SELECT id, batch_id, course_id, certificates, filter, re_issue, state, eligible, estimate, resolved,
	read_to, created_by, created_at, trace_parent FROM jobs`

// jobOf reads a row of selectJob.
func jobOf(r row) (issue.Job, error) {
	job := issue.Job{ID: word[issue.JobID](r), Batch: word[issue.BatchID](r), Course: word[issue.CourseID](r)}
	certificates, filter := r.text(), r.text()
	job.ReIssue, job.State = r.number() != 0, word[issue.JobState](r)
	job.Eligible, job.Estimate, job.Resolved = int(r.number()), r.number() != 0, r.number() != 0
	job.Cursor, job.CreatedBy = r.text(), r.text()
	job.CreatedAt, job.TraceParent = time.UnixMilli(r.number()).UTC(), r.text()
	if err := json.Unmarshal([]byte(certificates), &job.Certificates); err != nil {
		return job, fmt.Errorf("read the certificates of job %s: %w", job.ID, err)
	}
	if err := json.Unmarshal([]byte(filter), &job.Filter); err != nil {
		return job, fmt.Errorf("read the filter of job %s: %w", job.ID, err)
	}
	return job, nil
}
