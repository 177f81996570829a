package ledger

import (
	"context"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var _ issue.TemplateStore = (*Ledger)(nil)

// TemplateFailed implements [issue.TemplateStore].
func (l *Ledger) TemplateFailed(ctx context.Context, use issue.TemplateUse, learner issue.LearnerID) (issue.TemplateStanding, error) {
	defer l.metrics.observe(opCheckpoint, time.Now())
	var standing issue.TemplateStanding
	err := l.writer.do(ctx, func(t *transaction) (err error) {
		standing, err = t.templateFailed(use, learner)
		return err
	})
	return standing, away(err)
}

// templateFailed locks the template before it counts, so that no two processes
// overlook each other's doubts.
func (t *transaction) templateFailed(use issue.TemplateUse, learner issue.LearnerID) (standing issue.TemplateStanding, err error) {
	key := []any{use.Job, use.Certificate}
	err = t.session.run(t.ctx, []command{
		{text: `INSERT INTO templates (job_id, certificate) VALUES ($1, $2) ON CONFLICT DO NOTHING`, args: key},
		{text: `SELECT job_id FROM templates WHERE job_id = $1 AND certificate = $2 FOR UPDATE`, args: key, onlyLocks: true},
		{
			text: `INSERT INTO template_doubts (job_id, certificate, user_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			args: []any{use.Job, use.Certificate, learner},
		},
		{
			text: `UPDATE templates SET broken_at = $3, probe_at = $4
				WHERE job_id = $1 AND certificate = $2 AND broken_at IS NULL
					AND (SELECT COUNT(*) FROM template_doubts d WHERE d.job_id = $1 AND d.certificate = $2)
						>= CASE WHEN proven_at IS NULL THEN CAST($5 AS BIGINT) ELSE CAST($6 AS BIGINT) END`,
			args: []any{
				use.Job, use.Certificate, t.at, t.at + issue.TemplateProbeEvery.Milliseconds(),
				issue.DoubtsInANew, issue.DoubtsInAProven,
			},
		},
		{
			text: `SELECT proven_at, broken_at FROM templates WHERE job_id = $1 AND certificate = $2`, args: key,
			each: func(r row) error {
				standing = issue.TemplateStanding{Proven: r.number() > 0, BrokenAt: moment(r)}
				return nil
			},
		},
	})
	return standing, err
}

// templateProven notes that a template works: what counted against it is over.
func (t *transaction) templateProven(use issue.TemplateUse) {
	t.putOff(`INSERT INTO templates (job_id, certificate, proven_at) VALUES ($1, $2, $3)
		ON CONFLICT (job_id, certificate) DO UPDATE SET proven_at = COALESCE(templates.proven_at, excluded.proven_at),
			broken_at = NULL, probe_at = NULL`, use.Job, use.Certificate, t.at)
	t.putOff(`DELETE FROM template_doubts WHERE job_id = $1 AND certificate = $2`, use.Job, use.Certificate)
}

// probes lists the broken templates of a job whose next probe is due, and sets
// the time of the one after it.
func (t *transaction) probes(job issue.JobID) ([]string, error) {
	var certificates []string
	err := t.rows(`UPDATE templates SET probe_at = $3 WHERE job_id = $1 AND probe_at <= $2 RETURNING certificate`,
		[]any{job, t.at, t.at + issue.TemplateProbeEvery.Milliseconds()}, func(r row) error {
			certificates = append(certificates, r.text())
			return nil
		})
	return certificates, err
}
