package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

var _ issue.WorkStore = (*Ledger)(nil)

// inHand reads an issuance with everything stored of the revision in hand.
const inHand = `SELECT i.seq, i.is_out, i.dispatch, i.issued_at, i.batch_id, i.user_id, i.course_id, i.certificate, i.job_id,
		i.revision, i.state, i.step, i.attempts, i.rounds, i.crashes, i.replays, i.completed_on, i.first_failed_at,
		r.old_id, r.certificate_id, r.access_code, r.pdf_url, r.json_url, r.json_data, r.registered_at, r.email, r.sms
	FROM issuances i JOIN revisions r ON r.issuance = i.seq AND r.revision = i.revision WHERE i.id = $1`

// claim takes an issuance whose record has this number, unless a living process
// holds it. Taking it over from a dead one counts as a crash.
const claim = `UPDATE issuances SET
		crashes = crashes + CASE WHEN claim_token IS NOT NULL AND claim_token <> $3 AND ` + claimantDead + `$7) THEN 1 ELSE 0 END,
		claim_token = $3, claim_process = $4, claim_until = $5
	WHERE seq = $1 AND is_out = 1 AND dispatch = $2 AND (claim_token IS NULL OR claim_token = $3 OR claim_until < $6
		OR ` + claimantDead + `$7))`

// claiming is a claim and what it met.
type claiming struct {
	issue.Claim
	issuance issue.Issuance
	result   issue.ClaimResult
}

// Claim implements [issue.WorkStore].
func (l *Ledger) Claim(ctx context.Context, c issue.Claim) (issue.Issuance, issue.ClaimResult, error) {
	defer l.metrics.observe(opClaim, time.Now())
	claim := &claiming{Claim: c}
	err := l.writer.submit(ctx, &write{claim: claim})
	return claim.issuance, claim.result, away(err)
}

// look locks what is to be claimed and reads it. These are two statements, for one
// that waits for a lock has seen the other rows as they were before.
func (c *claiming) look() []command {
	c.result = issue.ClaimNone
	lock := command{
		text: `SELECT seq FROM issuances WHERE id = $1 AND is_out = 1 AND dispatch = $2 FOR UPDATE`,
		args: []any{c.Issuance, c.Number}, onlyLocks: true,
	}
	return []command{lock, c.read()}
}

func (c *claiming) read() command {
	return command{text: inHand, args: []any{c.Issuance}, each: func(r row) error {
		c.result = issue.ClaimBusy // until it is taken
		c.issuance = issue.Issuance{ID: c.Issuance, Number: c.Number, Row: r.number()}
		out, number := r.number() == 1, r.number()
		if !out || number != c.Number {
			c.result = issue.ClaimVoid
			return nil
		}
		readIssuance(&c.issuance, r)
		return nil
	}}
}

func readIssuance(is *issue.Issuance, r row) {
	is.Issued = r.number() != 0
	is.Batch, is.Learner = word[issue.BatchID](r), word[issue.LearnerID](r)
	is.Course, is.Certificate = word[issue.CourseID](r), r.text()
	is.Job, is.Revision = word[issue.JobID](r), int(r.number())
	is.State, is.Step = word[issue.State](r), word[issue.Step](r)
	is.Attempts, is.Rounds, is.Crashes, is.Replays = int(r.number()), int(r.number()), int(r.number()), int(r.number())
	is.CompletedOn, is.FirstFailure = time.UnixMilli(r.number()).UTC(), moment(r)
	is.OldID = r.text()
	made := issue.Certificate{
		ID: r.text(), AccessCode: r.text(), PDFURL: r.text(), JSONURL: r.text(), JSONData: json.RawMessage(r.text()),
	}
	if made.ID != "" {
		is.Made = &made
	}
	is.RegisteredAt = moment(r)
	is.Email, is.SMS = word[issue.ChannelState](r), word[issue.ChannelState](r)
}

// take takes what was looked at, if it may. The write itself asks again.
func (c *claiming) take(t *transaction) command {
	return command{
		text: claim, args: []any{
			c.issuance.Row, c.Number, c.Token, c.Process, c.Until.UnixMilli(), t.at, t.at - t.claimLapse.Milliseconds(),
		},
		reads: "crashes", each: func(r row) error {
			c.result, c.issuance.Crashes = issue.Claimed, int(r.number())
			return nil
		},
	}
}

// replaces settles which certificate a re-issue replaces.
func (c *claiming) replaces() []command {
	return []command{
		{text: fixOldID, args: []any{c.issuance.Row, c.issuance.Revision}},
		{
			text: `SELECT old_id FROM revisions WHERE issuance = $1 AND revision = $2`,
			args: []any{c.issuance.Row, c.issuance.Revision},
			each: func(r row) error {
				c.issuance.OldID = r.text()
				return nil
			},
		},
	}
}

// fixOldID names the certificate that a re-issue replaces: the newest one
// registered before it. It is fixed by the first claim, for the revision
// before has come to rest by then, and never changes after a register attempt.
const fixOldID = `UPDATE revisions SET old_id = COALESCE((SELECT r.certificate_id FROM revisions r
		WHERE r.issuance = revisions.issuance AND r.revision < $2 AND r.registered_at IS NOT NULL
		ORDER BY r.revision DESC LIMIT 1), old_id)
	WHERE issuance = $1 AND revision = $2 AND register_at IS NULL`

// checkpointing is a checkpoint and what it met.
type checkpointing struct {
	issue.Checkpoint
	held    bool // by the claim that the checkpoint names
	wanters wanters
	last    int // the newest revision asked for
}

// Checkpoint implements [issue.WorkStore].
func (l *Ledger) Checkpoint(ctx context.Context, c issue.Checkpoint) error {
	defer l.metrics.observe(opCheckpoint, time.Now())
	checkpoint := &checkpointing{Checkpoint: c}
	if err := l.writer.submit(ctx, &write{checkpoint: checkpoint}); err != nil {
		return away(err)
	}
	if !checkpoint.held {
		return issue.ErrClaimLost // nothing was written
	}
	return nil
}

// claimAndCheck makes the claims and checkpoints of a group, in one order, so
// that two processes never wait for each other in a circle.
func (t *transaction) claimAndCheck(claims []*claiming, checkpoints []*checkpointing) error {
	slices.SortFunc(claims, func(a, b *claiming) int { return cmp.Compare(a.Issuance, b.Issuance) })
	slices.SortFunc(checkpoints, func(a, b *checkpointing) int { return cmp.Compare(a.Claim.Row, b.Claim.Row) })
	commands := make([]command, 0, 2*len(claims)+len(checkpoints))
	for _, c := range claims {
		commands = append(commands, c.look()...)
	}
	if err := t.session.run(t.ctx, commands); err != nil {
		return err
	}
	commands = commands[:0]
	for _, c := range claims {
		if c.result == issue.ClaimBusy {
			commands = append(commands, c.take(t))
		}
	}
	for _, c := range checkpoints {
		commands = append(commands, c.change(t))
	}
	if err := t.session.run(t.ctx, commands); err != nil {
		return err
	}
	if err := t.settleReplaced(claims); err != nil {
		return err
	}
	return t.follow(checkpoints)
}

func (t *transaction) settleReplaced(claims []*claiming) error {
	var commands []command
	for _, c := range claims {
		if c.result == issue.Claimed && c.issuance.Revision > 1 && c.issuance.Made == nil {
			commands = append(commands, c.replaces()...)
		}
	}
	return t.session.run(t.ctx, commands)
}

const (
	changeIssuance = `UPDATE issuances SET updated_at = $3, attempts = $4, rounds = $5,
		state = CASE WHEN $6 = '' THEN state ELSE $6 END, step = CASE WHEN $7 = '' THEN step ELSE $7 END,
		issued_at = CASE WHEN $8 = 1 THEN COALESCE(issued_at, $3) ELSE issued_at END,
		crashes = CASE WHEN $9 = 1 THEN 0 ELSE crashes END, `

	noTrouble = `reason = '', http_status = 0, message = '', first_failed_at = NULL, `
	trouble   = `reason = $10, http_status = $11, message = $12, first_failed_at = $13, `

	// Most checkpoints keep the claim. Only those that end it name the columns of
	// the partial indexes: naming them costs an index its upkeep even where their
	// values stay.
	keepClaim = `claim_until = $%d`
	endClaim  = `claim_token = NULL, claim_process = NULL, is_out = CASE WHEN $%d = 1 THEN 0 ELSE is_out END, due_at = $%d`

	theClaimed = ` WHERE seq = $1 AND claim_token = $2`
)

// Every argument more costs as much as a column, so that there are four.
var (
	goOn       = changeIssuance + noTrouble + fmt.Sprintf(keepClaim, 10) + theClaimed
	goOnHurt   = changeIssuance + trouble + fmt.Sprintf(keepClaim, 14) + theClaimed
	comeIn     = changeIssuance + noTrouble + fmt.Sprintf(endClaim, 10, 11) + theClaimed
	comeInHurt = changeIssuance + trouble + fmt.Sprintf(endClaim, 14, 15) + theClaimed
)

// change changes the issuance as its claimant may, and nobody else.
func (c *checkpointing) change(t *transaction) command {
	c.held = false
	ends, hurt := c.Rest || c.Release, c.Reason != "" || c.Message != "" || !c.FirstFailure.IsZero()
	args := make([]any, 0, 15)
	args = append(args, c.Claim.Row, c.Claim.Token, t.at, c.Attempts, c.Rounds, c.State, c.Step, flag(c.Registered),
		flag(len(c.Finished) > 0))
	if hurt {
		args = append(args, c.Reason, c.HTTPStatus, c.Message, millis(c.FirstFailure))
	}
	if ends {
		args = append(args, flag(c.Rest), millis(c.Due))
	} else {
		args = append(args, c.Claim.Until.UnixMilli())
	}
	return command{text: changeText(ends, hurt), args: args, reads: "job_id, wanted_by, last_revision", each: func(r row) error {
		c.held = true
		c.wanters = wanters{job: word[issue.JobID](r), count: r.number()}
		c.last = int(r.number())
		return nil
	}}
}

func changeText(ends, hurt bool) string {
	switch {
	case ends && hurt:
		return comeInHurt
	case ends:
		return comeIn
	case hurt:
		return goOnHurt
	default:
		return goOn
	}
}

// follow writes what goes with the checkpoints that were taken.
func (t *transaction) follow(checkpoints []*checkpointing) error {
	var waiting []*checkpointing // a re-issue waits for their rest
	for _, c := range checkpoints {
		if !c.held {
			continue
		}
		t.changeRevision(c.Checkpoint)
		if c.OldID != nil {
			t.putOff(`UPDATE revisions SET old_id = $3 WHERE issuance = $1 AND revision = $2`,
				c.Claim.Row, c.Before.Revision, *c.OldID)
		}
		t.writeHistory(c.Checkpoint)
		if c.Proven != nil {
			t.templateProven(*c.Proven)
		}
		if c.DeadLetter != nil {
			t.indexDeadLetter(*c.DeadLetter, c.Claim.Issuance)
		}
		if err := t.moved(c.Claim.Row, c.wanters, c.before(), c.now()); err != nil {
			return err
		}
		if c.Rest && c.now().state.Final() && c.last > c.Before.Revision {
			waiting = append(waiting, c)
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, c := range waiting {
		if err := t.startRevision(c.Claim.Row, c.wanters.job, c.now(), c.Before.Revision+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *checkpointing) before() standing {
	return standing{state: c.Before.State, issued: c.Before.Issued}
}

func (c *checkpointing) now() standing {
	now := standing{state: c.Before.State, reason: c.Reason, issued: c.Before.Issued || c.Registered}
	if c.State != "" {
		now.state = c.State
	}
	return now
}

const (
	setMade = `certificate_id = $8, access_code = $9, pdf_url = $10, json_url = $11, json_data = $12, `

	setProgress = `register_at = CASE WHEN $3 = 1 THEN COALESCE(register_at, $7) ELSE register_at END,
		registered_at = CASE WHEN $4 = 1 THEN $7 ELSE registered_at END,
		email = CASE WHEN $5 = '' THEN email ELSE $5 END,
		sms = CASE WHEN $6 = '' THEN sms ELSE $6 END
		WHERE issuance = $1 AND revision = $2`

	changeRevision   = `UPDATE revisions SET ` + setProgress
	makeRevision     = `UPDATE revisions SET ` + setMade + setProgress
	announceRevision = `UPDATE revisions SET json_data = NULL, ` + setProgress
)

// changeRevision stores what the step before has brought. The answer of
// generate holds a name: it goes once the certificate is registered and
// announced.
func (t *transaction) changeRevision(c issue.Checkpoint) {
	registering, announced := c.State == issue.Registering, c.State == issue.Notified
	if c.Made == nil && !registering && !announced && !c.Registered && c.Email == "" && c.SMS == "" {
		return
	}
	args := []any{c.Claim.Row, c.Before.Revision, flag(registering), flag(c.Registered), c.Email, c.SMS, t.at}
	switch {
	case c.Made != nil:
		t.putOff(makeRevision, append(args, c.Made.ID, c.Made.AccessCode, c.Made.PDFURL, c.Made.JSONURL, answer(c))...)
	case announced:
		t.putOff(announceRevision, args...)
	default:
		t.putOff(changeRevision, args...)
	}
}

func answer(c issue.Checkpoint) any {
	if c.State == issue.Notified {
		return nil
	}
	return string(c.Made.JSONData)
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

func (t *transaction) indexDeadLetter(d issue.DeadLetter, id issue.IssuanceID) {
	t.putOff(`INSERT INTO dead_letters (id, issuance_id, job_id, class, step, reason, http_status, message,
		attempts, replays, record_partition, record_offset, first_failed_at, failed_at, state)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'open') ON CONFLICT DO NOTHING`,
		d.ID, id, d.Job, d.Class, d.Step, d.Reason, d.HTTPStatus, d.Message, d.Attempts, d.Replays,
		d.Place.Partition, d.Place.Offset, d.FirstFailure.UnixMilli(), d.LastFailure.UnixMilli())
}

// IndexPoison notes a dead letter that belongs to no issuance.
func (l *Ledger) IndexPoison(ctx context.Context, letter issue.DeadLetter) error {
	defer l.metrics.observe(opCheckpoint, time.Now())
	return away(l.writer.do(ctx, func(t *transaction) error {
		t.indexDeadLetter(letter, "")
		return nil
	}))
}
