package ledger

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var _ issue.FanOutStore = (*Ledger)(nil)

// Unresolved implements [issue.FanOutStore].
func (l *Ledger) Unresolved(ctx context.Context) ([]issue.Job, error) {
	defer l.metrics.observe(opRead, time.Now())
	var jobs []issue.Job
	err := l.store.read(ctx, command{
		text: selectJob + ` WHERE resolved = 0 AND state <> $1 ORDER BY created_at, id`, args: []any{issue.JobCancelled},
		each: func(r row) error {
			job, err := jobOf(r)
			jobs = append(jobs, job)
			return err
		},
	})
	return jobs, away(err)
}

// AddPage implements [issue.FanOutStore].
func (l *Ledger) AddPage(ctx context.Context, job issue.Job, page issue.FannedOut) error {
	defer l.metrics.observe(opFanOut, time.Now())
	return away(l.writer.do(ctx, func(t *transaction) error {
		ours, err := t.found(`UPDATE jobs SET read_to = $3, resolved = $4 WHERE id = $1 AND read_to = $2 AND resolved = 0
			RETURNING id`, []any{job.ID, job.Cursor, page.Next, flag(page.Last)}, nil)
		if err != nil || !ours {
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
	return t.exec(`UPDATE jobs SET estimate = 0,
		eligible = (SELECT COUNT(DISTINCT user_id) FROM job_issuances WHERE job_id = $1) WHERE id = $1`, job)
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
	known, err := t.create(job, page)
	if err != nil {
		return fmt.Errorf("write the issuances of a page: %w", err)
	}
	skipped := page.Skipped[:len(page.Skipped):len(page.Skipped)]
	again, err := t.lookUp(known)
	if err != nil {
		return fmt.Errorf("read the issuances of a page: %w", err)
	}
	for i, wanted := range known {
		why, err := t.wantAgain(job, wanted, again[i], page.Cause)
		if err != nil {
			return fmt.Errorf("write issuance %s: %w", wanted.ID, err)
		}
		if why != "" {
			skipped = append(skipped, issue.Skip{Learner: wanted.Learner, Certificate: wanted.Certificate, Reason: why})
		}
	}
	if err := t.unskip(job, page.Wanted); err != nil {
		return fmt.Errorf("write learners who were skipped: %w", err)
	}
	if err := t.skip(job, skipped); err != nil {
		return fmt.Errorf("write skipped learners: %w", err)
	}
	return nil
}

var insertIssuances = insertInto("issuances",
	"id, batch_id, user_id, course_id, certificate, completed_on, job_id, updated_at, due_at", "ON CONFLICT DO NOTHING")

// What goes with new issuances is made of them, by one statement for all: $1 and
// $2 are the first and the last seq, $3 the job, $4 the time.
const (
	ofTheNew = ` FROM issuances WHERE seq BETWEEN $1 AND $2 AND job_id = $3 AND updated_at = $4 ON CONFLICT DO NOTHING`

	newRevisions = `INSERT INTO revisions (issuance, revision, cause, old_id, created_at)
		SELECT seq, 1, CAST($5 AS TEXT), '', CAST($4 AS BIGINT)` + ofTheNew
	newWanters = `INSERT INTO job_issuances (job_id, user_id, issuance) SELECT job_id, user_id, seq` + ofTheNew
	newHistory = `INSERT INTO issuance_history (issuance, at, n, revision, state, step, attempts, reason, message)
		SELECT seq, CAST($4 AS BIGINT), 0, 1, 'queued', '', 0, '', ''` + ofTheNew
)

// create writes the issuances of a page that are new, and returns the others.
func (t *transaction) create(job issue.Job, page issue.FannedOut) (known []issue.Wanted, err error) {
	rows := make([][]any, len(page.Wanted))
	for i, w := range page.Wanted {
		rows[i] = []any{
			w.ID, job.Batch, w.Learner, job.Course, w.Certificate, w.CompletedOn.UnixMilli(), job.ID, t.at, t.at,
		}
	}
	created := make(map[issue.IssuanceID]int64, len(rows))
	first, last := int64(math.MaxInt64), int64(0)
	err = t.session.create(t.ctx, insertIssuances, rows, func(id string, seq int64) {
		created[issue.IssuanceID(id)] = seq
		first, last = min(first, seq), max(last, seq)
	})
	if err != nil {
		return nil, err
	}
	if len(created) > 0 {
		t.counts.add(job.ID, standing{state: issue.Queued}, len(created))
		if err := t.session.run(t.ctx, goWithNew(first, last, job.ID, t.at, page.Cause)); err != nil {
			return nil, err
		}
	}
	var held []command
	for _, w := range page.Wanted {
		seq, ok := created[w.ID]
		switch {
		case !ok:
			known = append(known, w)
		case w.HeldID != "":
			held = append(held, command{
				text: `UPDATE revisions SET old_id = $2 WHERE issuance = $1 AND revision = 1`, args: []any{seq, w.HeldID},
			})
		}
		delete(created, w.ID) // twice in one page is once
	}
	return known, t.session.run(t.ctx, held)
}

func goWithNew(first, last int64, job issue.JobID, at int64, cause string) []command {
	args := []any{first, last, job, at}
	return []command{
		{text: newRevisions, args: append(args[:4:4], cause)},
		{text: newWanters, args: args},
		{text: newHistory, args: args},
	}
}

// found is an issuance as another job, or an earlier page, left it.
type found struct {
	standing
	seq            int64
	last, revision int
}

// lookUp reads and locks issuances that exist, so that they do not change before
// the transaction ends.
func (t *transaction) lookUp(known []issue.Wanted) ([]found, error) {
	answers, commands := make([]found, len(known)), make([]command, len(known))
	for i, w := range known {
		commands[i] = command{
			text: `SELECT seq, state, reason, issued_at, last_revision, revision FROM issuances WHERE id = $1 FOR UPDATE`,
			args: []any{w.ID},
			each: func(r row) error {
				f := found{seq: r.number()}
				f.state, f.reason, f.issued = word[issue.State](r), word[issue.Reason](r), r.number() != 0
				f.last, f.revision = int(r.number()), int(r.number())
				answers[i] = f
				return nil
			},
		}
	}
	return answers, t.session.run(t.ctx, commands)
}

// wantAgain makes a job want an issuance that exists. It answers why the learner
// is passed over instead, or nothing: one that is issued is passed over unless
// this is a re-issue; a failed one starts again; one under way is left alone.
func (t *transaction) wantAgain(job issue.Job, wanted issue.Wanted, is found, cause string) (issue.SkipReason, error) {
	if is.issued && !job.ReIssue {
		return issue.SkipAlreadyIssued, nil
	}
	if err := t.attach(job.ID, is, wanted); err != nil {
		return "", err
	}
	if job.ReIssue {
		added, err := t.addNextRevision(is, wanted, cause)
		if err != nil || !added || !is.state.Final() || is.last != is.revision {
			return "", err
		}
		return "", t.startRevision(is.seq, job.ID, is.standing, is.last+1)
	}
	if is.state == issue.Failed {
		return "", t.requeue(is.seq, job.ID, is.standing)
	}
	return "", nil
}

// attach notes that a job wants an issuance, and counts it there, unless the
// job wanted it before.
func (t *transaction) attach(job issue.JobID, is found, wanted issue.Wanted) error {
	isNew, err := t.found(`INSERT INTO job_issuances (job_id, user_id, issuance) VALUES ($1, $2, $3)
		ON CONFLICT DO NOTHING RETURNING issuance`, []any{job, wanted.Learner, is.seq}, nil)
	if err != nil || !isNew {
		return err
	}
	t.counts.add(job, is.standing, +1)
	return t.exec(`UPDATE issuances SET wanted_by = wanted_by + 1 WHERE seq = $1`, is.seq)
}

const addRevision = `INSERT INTO revisions (issuance, revision, cause, old_id, created_at) VALUES ($1, $2, $3, $4, $5)`

// addNextRevision adds the revision of a re-issue; false = its cause has made
// one before.
func (t *transaction) addNextRevision(is found, wanted issue.Wanted, cause string) (bool, error) {
	known, err := t.found(`SELECT revision FROM revisions WHERE issuance = $1 AND cause = $2`, []any{is.seq, cause}, nil)
	if err != nil || known {
		return false, err
	}
	if err := t.exec(addRevision, is.seq, is.last+1, cause, wanted.HeldID, t.at); err != nil {
		return false, err
	}
	return true, t.exec(`UPDATE issuances SET last_revision = $2 WHERE seq = $1`, is.seq, is.last+1)
}

// startRevision makes a revision the one that is worked.
func (t *transaction) startRevision(seq int64, job issue.JobID, from standing, revision int) error {
	if err := t.exec(`UPDATE issuances SET revision = $2 WHERE seq = $1`, seq, revision); err != nil {
		return err
	}
	return t.requeue(seq, job, from)
}

// requeue makes an issuance at rest due again, for a job.
func (t *transaction) requeue(seq int64, job issue.JobID, from standing) error {
	line := history{issuance: seq, state: issue.Queued}
	by := wanters{job: job}
	var id string
	_, err := t.found(`UPDATE issuances SET state = 'queued', job_id = $2, step = '', attempts = 0, rounds = 0, reason = '',
		http_status = 0, message = '', first_failed_at = NULL, replays = replays + $3, updated_at = $4, due_at = $4,
		crashes = 0 WHERE seq = $1 RETURNING id, revision, wanted_by`,
		[]any{seq, job, flag(from.state == issue.Failed), t.at}, func(r row) {
			id, line.revision, by.count = r.text(), int(r.number()), r.number()
		})
	if err != nil {
		return err
	}
	t.putOff(`UPDATE dead_letters SET state = 'redriven' WHERE issuance_id = $1 AND state = 'open'`, id)
	t.note(line)
	return t.moved(seq, by, from, standing{state: issue.Queued, issued: from.issued})
}

const insertSkip = `INSERT INTO job_skips (job_id, user_id, certificate, reason, at)
	SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS BIGINT)
	WHERE NOT EXISTS (SELECT 1 FROM job_issuances ji JOIN issuances i ON i.seq = ji.issuance
		WHERE ji.job_id = $1 AND ji.user_id = $2 AND i.certificate = $3)
	ON CONFLICT DO NOTHING RETURNING at`

// skip notes whom a job passes over; one whom it already counts among its own is
// no such learner, only an event that came twice. What the enrolment source
// counted at acceptance is not counted again; a standing job has had no such
// count.
func (t *transaction) skip(job issue.Job, skipped []issue.Skip) error {
	commands := make([]command, len(skipped))
	for i, s := range skipped {
		commands[i] = command{
			text: insertSkip, args: []any{job.ID, s.Learner, s.Certificate, s.Reason, t.at},
			each: func(row) error {
				if job.Resolved || !countedAtAcceptance(s.Reason) {
					t.counts.skip(job.ID, s.Reason, +1)
				}
				return nil
			},
		}
	}
	return t.session.run(t.ctx, commands)
}

// unskip takes back that a standing job passed over learners, for a later event
// found them eligible.
func (t *transaction) unskip(job issue.Job, wanted []issue.Wanted) error {
	if !job.Resolved {
		return nil
	}
	for _, w := range wanted {
		err := t.rows(`DELETE FROM job_skips WHERE job_id = $1 AND user_id = $2 AND certificate = $3 RETURNING reason`,
			[]any{job.ID, w.Learner, w.Certificate}, func(r row) error {
				t.counts.skip(job.ID, word[issue.SkipReason](r), -1)
				return nil
			})
		if err != nil {
			return err
		}
	}
	return nil
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
