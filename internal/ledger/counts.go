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
func (t *transaction) moved(seq int64, by wanters, from, to standing) error {
	if from == to {
		return nil
	}
	if by.count == 1 {
		t.counts.of(by.job).add(from, -1)
		t.counts.of(by.job).add(to, +1)
		return nil
	}
	return t.rows(`SELECT job_id FROM job_issuances WHERE issuance = $1`, []any{seq},
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

// move is a change of one issuance that is still to be counted.
type move struct {
	seq      int64
	from, to standing
	rested   bool
}

// moveRows is how many issuances one statement looks up.
const moveRows = 32

var wantersOf = `SELECT seq, job_id, wanted_by, revision, last_revision FROM issuances WHERE seq IN ` +
	placeholders(1, moveRows)

// settleMoves counts what moved, and starts re-issues that waited for the
// revision before them to come to rest. The jobs are looked up for many at
// once: one by one it would cost as much as the change itself.
func (t *transaction) settleMoves() error {
	for len(t.moves) > 0 {
		n := min(len(t.moves), moveRows)
		if err := t.settleSome(t.moves[:n]); err != nil {
			return err
		}
		t.moves = t.moves[n:]
	}
	return nil
}

// wantedRow is an issuance with who wants it, and which revision.
type wantedRow struct {
	wanters
	revision, last int
}

func (t *transaction) settleSome(moves []move) error {
	args := make([]any, moveRows) // filled up with a row that is asked for anyway
	for i := range args {
		args[i] = moves[min(i, len(moves)-1)].seq
	}
	found := make(map[int64]wantedRow, len(moves))
	err := t.rows(wantersOf, args, func(scan func(...any) error) error {
		var (
			seq int64
			w   wantedRow
		)
		err := scan(&seq, &w.job, &w.count, &w.revision, &w.last)
		found[seq] = w
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range moves {
		w := found[m.seq]
		if err := t.moved(m.seq, w.wanters, m.from, m.to); err != nil {
			return err
		}
		if m.rested && m.to.state.Final() && w.last > w.revision {
			if err := t.startRevision(m.seq, w.job, m.to, w.revision+1); err != nil {
				return err
			}
		}
	}
	return nil
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
