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

func (t *transaction) templateFailed(use issue.TemplateUse, learner issue.LearnerID) (issue.TemplateStanding, error) {
	if _, err := t.exec(`INSERT INTO templates (job_id, certificate) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
		use.Job, use.Certificate); err != nil {
		return issue.TemplateStanding{}, err
	}
	if _, err := t.exec(`INSERT INTO template_doubts (job_id, certificate, user_id) VALUES ($1, $2, $3)
		ON CONFLICT DO NOTHING`, use.Job, use.Certificate, learner); err != nil {
		return issue.TemplateStanding{}, err
	}
	if _, err := t.exec(`UPDATE templates SET broken_at = $3, probe_at = $4
		WHERE job_id = $1 AND certificate = $2 AND broken_at IS NULL
			AND (SELECT COUNT(*) FROM template_doubts d WHERE d.job_id = $1 AND d.certificate = $2)
				>= CASE WHEN proven_at IS NULL THEN $5 ELSE $6 END`,
		use.Job, use.Certificate, t.at, t.at+issue.TemplateProbeEvery.Milliseconds(),
		issue.DoubtsInANew, issue.DoubtsInAProven); err != nil {
		return issue.TemplateStanding{}, err
	}
	return t.templateStanding(use)
}

func (t *transaction) templateStanding(use issue.TemplateUse) (issue.TemplateStanding, error) {
	var proven, broken int64
	err := t.row(`SELECT COALESCE(proven_at, 0), COALESCE(broken_at, 0) FROM templates WHERE job_id = $1 AND certificate = $2`,
		[]any{use.Job, use.Certificate}, &proven, &broken)
	standing := issue.TemplateStanding{Proven: proven > 0}
	if broken > 0 {
		standing.BrokenAt = time.UnixMilli(broken).UTC()
	}
	return standing, err
}

// templateProven notes that a template works: what counted against it is over.
func (t *transaction) templateProven(use issue.TemplateUse) error {
	if _, err := t.exec(`INSERT INTO templates (job_id, certificate, proven_at) VALUES ($1, $2, $3)
		ON CONFLICT (job_id, certificate) DO UPDATE SET proven_at = COALESCE(templates.proven_at, excluded.proven_at),
			broken_at = NULL, probe_at = NULL`, use.Job, use.Certificate, t.at); err != nil {
		return err
	}
	_, err := t.exec(`DELETE FROM template_doubts WHERE job_id = $1 AND certificate = $2`, use.Job, use.Certificate)
	return err
}

// probes lists the broken templates of a job whose next probe is due, and sets
// the time of the one after it.
func (t *transaction) probes(job issue.JobID) ([]string, error) {
	var certificates []string
	err := t.rows(`UPDATE templates SET probe_at = $3 WHERE job_id = $1 AND probe_at <= $2 RETURNING certificate`,
		[]any{job, t.at, t.at + issue.TemplateProbeEvery.Milliseconds()}, func(scan func(...any) error) error {
			var certificate string
			err := scan(&certificate)
			certificates = append(certificates, certificate)
			return err
		})
	return certificates, err
}
