package ledger

import (
	"cmp"
	"slices"

	"github.com/ecreds/issuer/internal/issue"
)

// The kinds of sums that are kept for each job.
const (
	countState   = "state"
	countIssued  = "issued"
	countFailed  = "failed"
	countSkipped = "skipped"
)

// sumKey names a sum of a job.
type sumKey struct {
	job        issue.JobID
	kind, name string
}

// counts gathers what a transaction changes in the sums of jobs, so that each
// sum is written once however many issuances moved.
type counts map[sumKey]int

// standing is what the sums tell of one issuance.
type standing struct {
	state  issue.State
	reason issue.Reason
	issued bool
}

// add counts an issuance n times for a job: +1 when it comes to stand like
// this, -1 when it ceases to.
func (c counts) add(job issue.JobID, s standing, n int) {
	c[sumKey{job, countState, string(s.state)}] += n
	if s.state == issue.Failed {
		c[sumKey{job, countFailed, string(s.reason)}] += n
	}
	if s.issued {
		c[sumKey{job, countIssued, ""}] += n
	}
}

// skip counts learners whom a job passes over.
func (c counts) skip(job issue.JobID, reason issue.SkipReason, n int) {
	c[sumKey{job, countSkipped, string(reason)}] += n
}

var addToCounts = insertInto("job_counts", "job_id, kind, name, shard, n, moved_at",
	`ON CONFLICT (job_id, kind, name, shard) DO UPDATE SET n = job_counts.n + excluded.n, moved_at = excluded.moved_at`)

// rows lists the sums in one order, so that two processes which change the same
// never wait for each other in a circle.
func (c counts) rows(shard int, at int64) [][]any {
	rows := make([][]any, 0, len(c))
	for key, n := range c {
		rows = append(rows, []any{string(key.job), key.kind, key.name, shard, n, at})
	}
	slices.SortFunc(rows, func(a, b []any) int {
		for i := range 3 {
			if c := cmp.Compare(a[i].(string), b[i].(string)); c != 0 { //nolint:forcetypeassert // as written above
				return c
			}
		}
		return 0
	})
	return rows
}

// wanters says which jobs want an issuance: the one it is dispatched for and,
// when there are more, those that job_issuances has.
type wanters struct {
	job   issue.JobID
	count int64
}

// moved counts a change of one issuance for every job that wants it.
func (t *transaction) moved(seq int64, by wanters, from, to standing) error {
	if from == to {
		return nil
	}
	count := func(job issue.JobID) {
		t.counts.add(job, from, -1)
		t.counts.add(job, to, +1)
	}
	if by.count == 1 {
		count(by.job)
		return nil
	}
	return t.rows(`SELECT job_id FROM job_issuances WHERE issuance = $1`, []any{seq}, func(r row) error {
		count(word[issue.JobID](r))
		return nil
	})
}
