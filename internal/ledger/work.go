package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var _ issue.WorkStore = (*Ledger)(nil)

// claim takes an issuance whose record has this number, unless a living
// process holds it. Taking it over from a dead one counts as a crash.
const claim = `UPDATE issuances SET
		crashes = crashes + CASE WHEN claim_token IS NOT NULL AND claim_token <> $3 AND NOT EXISTS (
			SELECT 1 FROM processes p WHERE p.id = issuances.claim_process AND p.seen_at >= $7) THEN 1 ELSE 0 END,
		claim_token = $3, claim_process = $4, claim_until = $5
	WHERE id = $1 AND is_out = 1 AND dispatch = $2 AND (claim_token IS NULL OR claim_token = $3 OR claim_until < $6
		OR NOT EXISTS (SELECT 1 FROM processes p WHERE p.id = issuances.claim_process AND p.seen_at >= $7))
	RETURNING batch_id, user_id, course_id, certificate, job_id, revision, state, step, attempts, rounds, crashes,
		replays, completed_on, first_failed_at`

// Claim implements [issue.WorkStore].
func (l *Ledger) Claim(ctx context.Context, c issue.Claim) (issue.Issuance, issue.ClaimResult, error) {
	defer l.metrics.observe(opClaim, time.Now())
	var (
		issuance issue.Issuance
		result   issue.ClaimResult
	)
	err := l.writer.do(ctx, func(t *transaction) (err error) {
		issuance, err = t.claim(c, t.at-l.claimLapse.Milliseconds())
		if errors.Is(err, sql.ErrNoRows) {
			result, err = t.refuse(c)
			return err
		}
		result = issue.Claimed
		return err
	})
	return issuance, result, away(err)
}

func (t *transaction) claim(c issue.Claim, aliveSince int64) (issue.Issuance, error) {
	is := issue.Issuance{ID: c.Issuance, Number: c.Number}
	var completed int64
	var failed sql.NullInt64
	err := t.row(claim, []any{c.Issuance, c.Number, c.Token, c.Process, c.Until.UnixMilli(), t.at, aliveSince},
		&is.Batch, &is.Learner, &is.Course, &is.Certificate, &is.Job, &is.Revision, &is.State, &is.Step, &is.Attempts,
		&is.Rounds, &is.Crashes, &is.Replays, &completed, &failed)
	if err != nil {
		return is, err
	}
	is.CompletedOn, is.FirstFailure = time.UnixMilli(completed).UTC(), moment(failed)
	if is.Revision > 1 {
		if err := t.fixOldID(is.ID, is.Revision); err != nil {
			return is, err
		}
	}
	return is, t.readRevision(&is)
}

// fixOldID names the certificate that a re-issue replaces: the newest one
// registered before it. It is fixed by the first claim, for the revision
// before has come to rest by then, and never changes after a register attempt.
func (t *transaction) fixOldID(id issue.IssuanceID, revision int) error {
	_, err := t.exec(`UPDATE revisions SET old_id = COALESCE((SELECT r.certificate_id FROM revisions r
			WHERE r.issuance_id = $1 AND r.revision < $2 AND r.registered_at IS NOT NULL
			ORDER BY r.revision DESC LIMIT 1), old_id)
		WHERE issuance_id = $1 AND revision = $2 AND register_at IS NULL`, id, revision)
	return err
}

// readRevision reads what is stored of the revision in hand.
func (t *transaction) readRevision(is *issue.Issuance) error {
	var (
		made       issue.Certificate
		jsonData   sql.NullString
		registered sql.NullInt64
	)
	err := t.row(`SELECT old_id, certificate_id, access_code, pdf_url, json_url, json_data, registered_at, email, sms
		FROM revisions WHERE issuance_id = $1 AND revision = $2`, []any{is.ID, is.Revision},
		&is.OldID, &made.ID, &made.AccessCode, &made.PDFURL, &made.JSONURL, &jsonData, &registered, &is.Email, &is.SMS)
	if err != nil {
		return err
	}
	if made.ID != "" {
		made.JSONData = json.RawMessage(jsonData.String)
		is.Made = &made
	}
	is.RegisteredAt = moment(registered)
	return nil
}

// refuse says why a claim found nothing to take.
func (t *transaction) refuse(c issue.Claim) (issue.ClaimResult, error) {
	var out, number int64
	err := t.row(`SELECT is_out, dispatch FROM issuances WHERE id = $1`, []any{c.Issuance}, &out, &number)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return issue.ClaimNone, nil
	case out == 0 || number != c.Number:
		return issue.ClaimVoid, err
	default:
		return issue.ClaimBusy, err
	}
}

// Checkpoint implements [issue.WorkStore].
func (l *Ledger) Checkpoint(ctx context.Context, c issue.Checkpoint) error {
	defer l.metrics.observe(opCheckpoint, time.Now())
	lost := false
	err := l.writer.do(ctx, func(t *transaction) error {
		err := t.checkpoint(c)
		lost = errors.Is(err, issue.ErrClaimLost)
		if lost {
			return nil // nothing was written: no reason to undo the group
		}
		return err
	})
	if lost {
		return issue.ErrClaimLost
	}
	return away(err)
}

// held is what a checkpoint finds.
type held struct {
	standing
	wanters
	step           issue.Step
	revision, last int
}

func (t *transaction) checkpoint(c issue.Checkpoint) error {
	was, err := t.held(c.Claim)
	if err != nil {
		return err
	}
	now := standing{state: was.state, reason: c.Reason, issued: was.issued || c.Registered}
	if c.State != "" {
		now.state = c.State
	}
	if err := t.updateIssuance(c, now, was.step); err != nil {
		return err
	}
	if err := t.updateRevision(c, was.revision, now.state); err != nil {
		return err
	}
	if err := t.writeHistory(c, was.revision); err != nil {
		return err
	}
	if c.DeadLetter != nil {
		if err := t.indexDeadLetter(*c.DeadLetter, c.Claim.Issuance); err != nil {
			return err
		}
	}
	if err := t.moved(c.Claim.Issuance, was.wanters, was.standing, now); err != nil {
		return err
	}
	if c.Rest && now.state.Final() && was.last > was.revision {
		return t.startRevision(c.Claim.Issuance, was.job, now, was.revision+1)
	}
	return nil
}

// held reads the issuance as its claimant may change it.
func (t *transaction) held(c issue.Claim) (held, error) {
	var (
		h      held
		issued sql.NullInt64
	)
	err := t.row(`SELECT state, reason, step, issued_at, job_id, wanted_by, revision, last_revision FROM issuances
		WHERE id = $1 AND claim_token = $2`, []any{c.Issuance, c.Token},
		&h.state, &h.reason, &h.step, &issued, &h.job, &h.count, &h.revision, &h.last)
	if errors.Is(err, sql.ErrNoRows) {
		return h, issue.ErrClaimLost
	}
	h.issued = issued.Valid
	return h, err
}

const updateIssuance = `UPDATE issuances SET state = $2, step = $3, attempts = $4, rounds = $5, reason = $6,
		http_status = $7, message = $8, first_failed_at = $9, updated_at = $10,
		issued_at = CASE WHEN $11 = 1 THEN COALESCE(issued_at, $10) ELSE issued_at END,
		crashes = CASE WHEN $12 = 1 THEN 0 ELSE crashes END,
		claim_until = $13,
		claim_token = CASE WHEN $14 = 1 THEN NULL ELSE claim_token END,
		claim_process = CASE WHEN $14 = 1 THEN NULL ELSE claim_process END,
		is_out = CASE WHEN $15 = 1 THEN 0 ELSE is_out END,
		due_at = $16
	WHERE id = $1`

func (t *transaction) updateIssuance(c issue.Checkpoint, now standing, step issue.Step) error {
	if c.Step != "" {
		step = c.Step
	}
	_, err := t.exec(updateIssuance, c.Claim.Issuance, now.state, step, c.Attempts, c.Rounds, c.Reason, c.HTTPStatus,
		c.Message, millis(c.FirstFailure), t.at, flag(c.Registered), flag(len(c.Finished) > 0), c.Claim.Until.UnixMilli(),
		flag(c.Rest || c.Release), flag(c.Rest), millis(c.Due))
	return err
}

// updateRevision stores what the step before has brought. The answer of
// generate holds a name: it goes once the certificate is registered and
// announced.
func (t *transaction) updateRevision(c issue.Checkpoint, revision int, state issue.State) error {
	if c.Made != nil {
		_, err := t.exec(`UPDATE revisions SET certificate_id = $3, access_code = $4, pdf_url = $5, json_url = $6,
			json_data = $7 WHERE issuance_id = $1 AND revision = $2`, c.Claim.Issuance, revision,
			c.Made.ID, c.Made.AccessCode, c.Made.PDFURL, c.Made.JSONURL, string(c.Made.JSONData))
		if err != nil {
			return err
		}
	}
	registering, announced := state == issue.Registering, state == issue.Notified
	if !registering && !announced && !c.Registered && c.Email == "" && c.SMS == "" {
		return nil
	}
	_, err := t.exec(`UPDATE revisions SET
			register_at = CASE WHEN $3 = 1 THEN COALESCE(register_at, $8) ELSE register_at END,
			registered_at = CASE WHEN $4 = 1 THEN $8 ELSE registered_at END,
			json_data = CASE WHEN $5 = 1 THEN NULL ELSE json_data END,
			email = CASE WHEN $6 = '' THEN email ELSE $6 END,
			sms = CASE WHEN $7 = '' THEN sms ELSE $7 END
		WHERE issuance_id = $1 AND revision = $2`, c.Claim.Issuance, revision,
		flag(registering), flag(c.Registered), flag(announced), c.Email, c.SMS, t.at)
	return err
}

// writeHistory adds a line for each step that ended, and one for a failure.
func (t *transaction) writeHistory(c issue.Checkpoint, revision int) error {
	for _, finished := range c.Finished {
		if finished.State == issue.Notifying {
			continue // one of two channels
		}
		line := history{
			id: c.Claim.Issuance, revision: revision, state: finished.State, step: stepOf(finished.State),
			attempts: finished.Attempts,
		}
		if finished.State == issue.Notified {
			line.reason = c.Reason
		}
		if err := t.note(line); err != nil {
			return err
		}
	}
	if c.State != issue.Retrying && c.State != issue.Failed {
		return nil
	}
	return t.note(history{
		id: c.Claim.Issuance, revision: revision, state: c.State, step: c.Step, attempts: c.Attempts, reason: c.Reason,
		message: c.Message,
	})
}

// stepOf names the step that ends in a state.
func stepOf(state issue.State) issue.Step {
	switch state {
	case issue.Generated:
		return issue.StepGenerate
	case issue.Registered:
		return issue.StepRegister
	default:
		return issue.StepNotify
	}
}

func (t *transaction) indexDeadLetter(d issue.DeadLetter, id issue.IssuanceID) error {
	_, err := t.exec(`INSERT INTO dead_letters (id, issuance_id, job_id, class, step, reason, http_status, message,
		attempts, replays, record_partition, record_offset, first_failed_at, failed_at, state)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'open') ON CONFLICT DO NOTHING`,
		d.ID, id, d.Job, d.Class, d.Step, d.Reason, d.HTTPStatus, d.Message, d.Attempts, d.Replays,
		d.Place.Partition, d.Place.Offset, d.FirstFailure.UnixMilli(), d.LastFailure.UnixMilli())
	return err
}

// IndexPoison notes a dead letter that belongs to no issuance.
func (l *Ledger) IndexPoison(ctx context.Context, letter issue.DeadLetter) error {
	defer l.metrics.observe(opCheckpoint, time.Now())
	return away(l.writer.do(ctx, func(t *transaction) error { return t.indexDeadLetter(letter, "") }))
}
