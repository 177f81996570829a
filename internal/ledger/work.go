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
		OR NOT EXISTS (SELECT 1 FROM processes p WHERE p.id = issuances.claim_process AND p.seen_at >= $7))`

// claimed reads an issuance with everything stored of the revision in hand.
const claimed = `SELECT i.seq, i.issued_at, i.batch_id, i.user_id, i.course_id, i.certificate, i.job_id, i.revision, i.state, i.step, i.attempts,
		i.rounds, i.crashes, i.replays, i.completed_on, i.first_failed_at, r.old_id, r.certificate_id, r.access_code,
		r.pdf_url, r.json_url, r.json_data, r.registered_at, r.email, r.sms
	FROM issuances i JOIN revisions r ON r.issuance = i.seq AND r.revision = i.revision WHERE i.id = $1`

// Claim implements [issue.WorkStore].
func (l *Ledger) Claim(ctx context.Context, c issue.Claim) (issue.Issuance, issue.ClaimResult, error) {
	defer l.metrics.observe(opClaim, time.Now())
	var (
		issuance issue.Issuance
		result   issue.ClaimResult
	)
	err := l.writer.do(ctx, func(t *transaction) error {
		n, err := t.exec(claim, c.Issuance, c.Number, c.Token, c.Process, c.Until.UnixMilli(), t.at,
			t.at-l.claimLapse.Milliseconds())
		if err != nil {
			return err
		}
		if n == 0 {
			result, err = t.refuse(c)
			return err
		}
		result = issue.Claimed
		issuance, err = t.claimed(c)
		return err
	})
	return issuance, result, away(err)
}

// claimed reads what was claimed.
func (t *transaction) claimed(c issue.Claim) (issue.Issuance, error) {
	is, err := t.readClaimed(c)
	if err != nil || is.Revision == 1 || is.Made != nil {
		return is, err
	}
	if err := t.fixOldID(c.Issuance, is.Revision); err != nil {
		return is, err
	}
	return t.readClaimed(c)
}

func (t *transaction) readClaimed(c issue.Claim) (issue.Issuance, error) {
	var (
		is                 = issue.Issuance{ID: c.Issuance, Number: c.Number}
		made               issue.Certificate
		completed          int64
		jsonData           sql.NullString
		failed, registered sql.NullInt64
		issued             sql.NullInt64
	)
	err := t.row(claimed, []any{c.Issuance},
		&is.Row, &issued, &is.Batch, &is.Learner, &is.Course, &is.Certificate, &is.Job, &is.Revision, &is.State, &is.Step, &is.Attempts,
		&is.Rounds, &is.Crashes, &is.Replays, &completed, &failed, &is.OldID, &made.ID, &made.AccessCode,
		&made.PDFURL, &made.JSONURL, &jsonData, &registered, &is.Email, &is.SMS)
	if err != nil {
		return is, err
	}
	if made.ID != "" {
		made.JSONData = json.RawMessage(jsonData.String)
		is.Made = &made
	}
	is.CompletedOn, is.FirstFailure = time.UnixMilli(completed).UTC(), moment(failed)
	is.RegisteredAt, is.Issued = moment(registered), issued.Valid
	return is, nil
}

// fixOldID names the certificate that a re-issue replaces: the newest one
// registered before it. It is fixed by the first claim, for the revision
// before has come to rest by then, and never changes after a register attempt.
func (t *transaction) fixOldID(id issue.IssuanceID, revision int) error {
	_, err := t.exec(`UPDATE revisions SET old_id = COALESCE((SELECT r.certificate_id FROM revisions r
			WHERE r.issuance = revisions.issuance AND r.revision < $2 AND r.registered_at IS NOT NULL
			ORDER BY r.revision DESC LIMIT 1), old_id)
		WHERE issuance = (SELECT seq FROM issuances WHERE id = $1) AND revision = $2 AND register_at IS NULL`, id, revision)
	return err
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

func (t *transaction) checkpoint(c issue.Checkpoint) error {
	if err := t.updateIssuance(c); err != nil {
		return err
	}
	now := standing{state: c.Before.State, reason: c.Reason, issued: c.Before.Issued || c.Registered}
	if c.State != "" {
		now.state = c.State
	}
	if err := t.updateRevision(c, now.state); err != nil {
		return err
	}
	if c.OldID != nil {
		if _, err := t.exec(`UPDATE revisions SET old_id = $3 WHERE issuance = $1 AND revision = $2`,
			c.Claim.Row, c.Before.Revision, *c.OldID); err != nil {
			return err
		}
	}
	t.writeHistory(c)
	if c.Proven != nil {
		if err := t.templateProven(*c.Proven); err != nil {
			return err
		}
	}
	if c.DeadLetter != nil {
		if err := t.indexDeadLetter(*c.DeadLetter, c.Claim.Issuance); err != nil {
			return err
		}
	}
	t.moves = append(t.moves, move{
		seq: c.Claim.Row, from: standing{state: c.Before.State, issued: c.Before.Issued}, to: now, rested: c.Rest,
	})
	return nil
}

// Most checkpoints keep the claim. Only those that end it name the columns of
// the partial indexes: naming them costs an index its upkeep even where their
// values stay.
const (
	changeIssuance = `UPDATE issuances SET
		state = CASE WHEN $2 = '' THEN state ELSE $2 END, step = CASE WHEN $3 = '' THEN step ELSE $3 END,
		attempts = $4, rounds = $5, reason = $6, http_status = $7, message = $8, first_failed_at = $9, updated_at = $10,
		issued_at = CASE WHEN $11 = 1 THEN COALESCE(issued_at, $10) ELSE issued_at END,
		crashes = CASE WHEN $12 = 1 THEN 0 ELSE crashes END`

	keepClaim = changeIssuance + `, claim_until = $13 WHERE seq = $1 AND claim_token = $14`
	endClaim  = changeIssuance + `, claim_token = NULL, claim_process = NULL,
		is_out = CASE WHEN $13 = 1 THEN 0 ELSE is_out END, due_at = $15 WHERE seq = $1 AND claim_token = $14`
)

// updateIssuance changes the issuance as its claimant may, and nobody else.
func (t *transaction) updateIssuance(c issue.Checkpoint) error {
	args := []any{
		c.Claim.Row, c.State, c.Step, c.Attempts, c.Rounds, c.Reason, c.HTTPStatus, c.Message, millis(c.FirstFailure), t.at,
		flag(c.Registered), flag(len(c.Finished) > 0),
	}
	statement := keepClaim
	if c.Rest || c.Release {
		statement, args = endClaim, append(args, flag(c.Rest), c.Claim.Token, millis(c.Due))
	} else {
		args = append(args, c.Claim.Until.UnixMilli(), c.Claim.Token)
	}
	n, err := t.exec(statement, args...)
	if err == nil && n == 0 {
		return issue.ErrClaimLost
	}
	return err
}

// updateRevision stores what the step before has brought. The answer of
// generate holds a name: it goes once the certificate is registered and
// announced.
func (t *transaction) updateRevision(c issue.Checkpoint, state issue.State) error {
	registering, announced := state == issue.Registering, state == issue.Notified
	if c.Made == nil && !registering && !announced && !c.Registered && c.Email == "" && c.SMS == "" {
		return nil
	}
	var made issue.Certificate
	if c.Made != nil {
		made = *c.Made
	}
	_, err := t.exec(`UPDATE revisions SET
			certificate_id = CASE WHEN $3 = '' THEN certificate_id ELSE $3 END,
			access_code = CASE WHEN $3 = '' THEN access_code ELSE $4 END,
			pdf_url = CASE WHEN $3 = '' THEN pdf_url ELSE $5 END,
			json_url = CASE WHEN $3 = '' THEN json_url ELSE $6 END,
			json_data = CASE WHEN $7 = 1 THEN NULL WHEN $3 = '' THEN json_data ELSE $8 END,
			register_at = CASE WHEN $9 = 1 THEN COALESCE(register_at, $13) ELSE register_at END,
			registered_at = CASE WHEN $10 = 1 THEN $13 ELSE registered_at END,
			email = CASE WHEN $11 = '' THEN email ELSE $11 END,
			sms = CASE WHEN $12 = '' THEN sms ELSE $12 END
		WHERE issuance = $1 AND revision = $2`, c.Claim.Row, c.Before.Revision,
		made.ID, made.AccessCode, made.PDFURL, made.JSONURL, flag(announced), string(made.JSONData),
		flag(registering), flag(c.Registered), c.Email, c.SMS, t.at)
	return err
}

// writeHistory adds a line for each step that ended, and one for a failure.
func (t *transaction) writeHistory(c issue.Checkpoint) {
	line := history{issuance: c.Claim.Row, revision: c.Before.Revision}
	for _, finished := range c.Finished {
		if finished.State == issue.Notifying {
			continue // one of two channels
		}
		line.state, line.step, line.attempts = finished.State, stepOf(finished.State), finished.Attempts
		if finished.State == issue.Notified {
			line.reason = c.Reason
		}
		t.note(line)
	}
	if c.State == issue.Retrying || c.State == issue.Failed {
		line.state, line.step, line.attempts, line.reason, line.message = c.State, c.Step, c.Attempts, c.Reason, c.Message
		t.note(line)
	}
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
