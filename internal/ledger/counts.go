package ledger

import "github.com/ecreds/issuer/internal/issue"

// The kinds of sums that are kept for each job.
const (
	countState   = "state"
	countFailed  = "failed"
	countSkipped = "skipped"
)

// counts gathers what a transaction changes in the sums of jobs, so that each
// sum is written once however many issuances moved.
type counts map[issue.JobID]*jobCounts

type jobCounts struct {
	issued int
	sums   map[sumKey]int
}

type sumKey struct{ kind, name string }

func (c counts) of(job issue.JobID) *jobCounts {
	if c[job] == nil {
		c[job] = &jobCounts{sums: map[sumKey]int{}}
	}
	return c[job]
}

// standing is what the sums tell of one issuance.
type standing struct {
	state  issue.State
	reason issue.Reason
	issued bool
}

// add counts an issuance n times for a job: +1 when it comes to stand like
// this, -1 when it ceases to.
func (j *jobCounts) add(s standing, n int) {
	j.sums[sumKey{countState, string(s.state)}] += n
	if s.state == issue.Failed {
		j.sums[sumKey{countFailed, string(s.reason)}] += n
	}
	if s.issued {
		j.issued += n
	}
}

// wanters says which jobs want an issuance: the one it is dispatched for and,
// when there are more, those that job_issuances has.
type wanters struct {
	job   issue.JobID
	count int
}

// moved counts a change of one issuance for every job that wants it.
func (t *transaction) moved(id issue.IssuanceID, by wanters, from, to standing) error {
	if from == to {
		return nil
	}
	if by.count == 1 {
		t.counts.of(by.job).add(from, -1)
		t.counts.of(by.job).add(to, +1)
		return nil
	}
	return t.rows(`SELECT job_id FROM job_issuances WHERE issuance_id = $1`, []any{id},
		func(scan func(...any) error) error {
			var job issue.JobID
			if err := scan(&job); err != nil {
				return err
			}
			t.counts.of(job).add(from, -1)
			t.counts.of(job).add(to, +1)
			return nil
		})
}

// keepCounts writes the sums of all jobs that the transaction moved.
func (t *transaction) keepCounts() error {
	for job, c := range t.counts {
		for key, n := range c.sums {
			if n == 0 {
				continue
			}
			_, err := t.exec(`INSERT INTO job_counts (job_id, kind, name, n) VALUES ($1, $2, $3, $4)
				ON CONFLICT (job_id, kind, name) DO UPDATE SET n = job_counts.n + excluded.n`, job, key.kind, key.name, n)
			if err != nil {
				return err
			}
		}
		if _, err := t.exec(`UPDATE jobs SET issued = issued + $2, moved_at = $3 WHERE id = $1`,
			job, c.issued, t.at); err != nil {
			return err
		}
	}
	return nil
}
