package issue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"
)

// run is the work on one claimed issuance, from its claim until its event is
// at rest or on hold.
type run struct {
	*Worker
	event    Event
	issuance Issuance
	bury     Bury

	course    *Course // looked up when first needed
	recipient *Recipient
	change    Checkpoint // what the next write will say
	panics    int

	refused     []string // certificates that may not be replaced
	called      bool     // the last try got as far as its call
	spentBefore int      // attempts of the step before this go
}

// beside works an event beside the others, unless the claim has shown that it is
// one of the suspects.
func (r *run) beside(ctx context.Context) Outcome {
	suspect := r.issuance.Crashes > 0 && r.issuance.Crashes == r.CrashLimit-1
	if suspect && r.suspects.learn(r.issuance.ID) {
		return r.giveUp(ctx, errSuspect)
	}
	return r.work(ctx)
}

var errSuspect = errors.New("processes died while they worked this event; it is worked apart from others of its kind")

func (r *run) work(ctx context.Context) Outcome {
	if r.CrashLimit > 0 && r.issuance.Crashes >= r.CrashLimit {
		return r.fail(ctx, r.stepAtHand(), &Failure{
			Verdict: Permanent, Reason: ReasonCrashLoop,
			Message: fmt.Sprintf("%d processes died while they worked this event", r.issuance.Crashes),
		}, ClassPermanent)
	}
	if r.templateBroke() {
		return r.turnIn(ctx)
	}
	for _, s := range r.steps {
		if !s.pending(r) {
			continue
		}
		err := ctx.Err() // what is being stopped begins no further step
		if err == nil {
			err = r.perform(ctx, s)
		}
		if err != nil {
			return r.conclude(ctx, s.name, err)
		}
	}
	return r.finish(ctx)
}

// stepAtHand names the first step that is still to be done.
func (r *run) stepAtHand() Step {
	for _, s := range r.steps {
		if s.pending(r) {
			return s.name
		}
	}
	return StepNotify
}

// perform tries a step a few times in place. Waiting between tries has full
// jitter, keeps to Retry-After, and no try starts after stepPatience.
func (r *run) perform(ctx context.Context, s step) error {
	if r.issuance.Step != s.name {
		r.issuance.Step, r.issuance.Attempts, r.issuance.Rounds = s.name, 0, 0
	}
	r.spentBefore = r.issuance.Attempts
	waits := newJitter(stepPatience)
	var last error
	attempt := func() error {
		if last = r.try(ctx, s, waits); last == nil {
			return nil
		}
		failure := AsFailure(last)
		waits.atLeast(failure.RetryAfter)
		if _, waiting := unplaced(last); waiting || failure.Verdict != Transient || errors.Is(last, ErrClaimLost) {
			return backoff.Permanent(last)
		}
		return last
	}
	inPlace := uint64(max(r.StepAttempts, 1) - 1)
	// The library's own error may only say that waiting was cut short; the last
	// failure says why there was something to wait for.
	_ = backoff.Retry(attempt, backoff.WithContext(backoff.WithMaxRetries(waits, inPlace), ctx))
	return last
}

// try makes one call: lookups, then a place at the service, then the write that
// renews the claim and records the attempt, and only then the call. The time of
// the step begins with its first place: waiting for one costs it nothing.
func (r *run) try(ctx context.Context, s step, waits *jitter) error {
	r.called = false
	if err := r.survive(func() error { return r.lookUp(ctx) }); err != nil {
		return r.uncalled(ctx, s, err)
	}
	if s.needless != nil && s.needless(r) {
		return nil
	}
	ctx, done, err := r.Places.Take(ctx, s.name)
	if err != nil {
		return r.uncalled(ctx, s, err)
	}
	defer done()
	deadline := waits.begin().Add(r.CallTimeout[s.name])
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := r.record(ctx, s, deadline.Add(claimGrace)); err != nil {
		return err
	}
	r.called = true
	begun := time.Now()
	err = r.survive(func() error { return s.call(r, ctx) })
	return r.tried(s, time.Since(begun), err)
}

// uncalled takes note of a try that ended before its call.
func (r *run) uncalled(ctx context.Context, s step, err error) error {
	if _, waiting := unplaced(err); waiting || ctx.Err() != nil {
		return err // nothing was tried
	}
	r.issuance.Attempts++
	return r.tried(s, 0, err)
}

// record writes that a step is about to make its call.
func (r *run) record(ctx context.Context, s step, until time.Time) error {
	achieved, email, sms := r.change, r.issuance.Email, r.issuance.SMS
	r.issuance.Attempts++
	r.change.Claim.Until = until
	r.change.State, r.change.Step = s.ongoing, s.name
	if s.mark != nil {
		s.mark(r)
	}
	err := r.write(ctx)
	if err != nil {
		// Nothing was called: no attempt was spent, and no message is in doubt
		// that was not before.
		r.issuance.Attempts--
		r.change = achieved
		r.email().reach(email)
		r.sms().reach(sms)
	}
	return err
}

// tried takes note of one try and passes its error on.
func (r *run) tried(s step, took time.Duration, err error) error {
	if err == nil {
		r.Metrics.attempt(s.name, Done, "", took)
		r.issuance.FirstFailure = time.Time{}
		r.change.State = s.finished
		r.change.Finished = append(r.change.Finished, Finished{State: s.finished, Attempts: r.issuance.Attempts})
		return nil
	}
	failure := AsFailure(err)
	if failure.Verdict == Outage {
		r.issuance.Attempts-- // it is no fault of the learner
	}
	r.Metrics.attempt(s.name, failure.Verdict, failure.Reason, took)
	if r.issuance.FirstFailure.IsZero() {
		r.issuance.FirstFailure = time.Now()
	}
	return err
}

// survive turns a panic of a call into a failure: the first is tried again,
// for it may have come of a passing state; the second convicts the event.
func (r *run) survive(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.panics++
			r.Log.Error("a step panicked", append(r.fields(), zap.ByteString("stack", debug.Stack()))...)
			verdict := Transient
			if r.panics > 1 {
				verdict = Permanent
			}
			err = &Failure{Verdict: verdict, Reason: ReasonPanic, Message: "the step panicked; see the log for its stack"}
		}
	}()
	return call()
}

// lookUp reads course and recipient, once for all steps of the run.
func (r *run) lookUp(ctx context.Context) error {
	if r.course == nil {
		course, err := r.Courses.Course(ctx, r.issuance.Course)
		if err != nil {
			return err
		}
		r.course = &course
	}
	if r.recipient == nil {
		recipient, err := r.Recipients.Recipient(ctx, r.issuance.Learner)
		if err != nil {
			return err
		}
		r.recipient = &recipient
	}
	return nil
}

// errLedgerAway tells a write that failed from a call that did.
var errLedgerAway = errors.New("the ledger did not take a write")

func ledgerAway(err error) error {
	return &Failure{
		Verdict: Outage, Reason: ReasonUnavailable, Message: "the ledger is away", Err: fmt.Errorf("%w: %w", errLedgerAway, err),
	}
}

// write sends the accumulated change to the ledger and starts a fresh one.
func (r *run) write(ctx context.Context) error {
	r.change.Attempts, r.change.Rounds = r.issuance.Attempts, r.issuance.Rounds
	r.change.FirstFailure = r.issuance.FirstFailure
	r.change.Claim.Row = r.issuance.Row
	r.change.Before = Standing{Revision: r.issuance.Revision, State: r.issuance.State, Issued: r.issuance.Issued}
	if r.change.Step == "" {
		r.change.Step = r.issuance.Step
	}
	if err := r.Store.Checkpoint(ctx, r.change); err != nil {
		if errors.Is(err, ErrClaimLost) || ctx.Err() != nil {
			return err
		}
		return ledgerAway(err)
	}
	if r.change.State != "" {
		r.issuance.State = r.change.State
	}
	r.issuance.Issued = r.issuance.Issued || r.change.Registered
	r.change = Checkpoint{Claim: r.change.Claim}
	return nil
}

// finish writes that the issuance has come to its end.
func (r *run) finish(ctx context.Context) Outcome {
	achieved := r.change
	r.change.State, r.change.Step, r.change.Rest = Notified, StepNotify, true
	r.change.Finished = append(r.change.Finished, Finished{State: Notified, Attempts: r.issuance.Attempts})
	r.change.Reason = r.withoutNotification(ctx)
	if err := r.write(context.WithoutCancel(ctx)); err != nil {
		r.change = achieved
		return r.giveUp(ctx, err)
	}
	r.Metrics.event(outcomeIssued)
	return atRest
}

// conclude decides what follows a step that did not succeed.
func (r *run) conclude(ctx context.Context, name Step, err error) Outcome {
	failure := AsFailure(err)
	r.answered(name, failure)
	turn, waiting := unplaced(err)
	switch {
	case errors.Is(err, ErrClaimLost), errors.Is(err, errLedgerAway), ctx.Err() != nil:
		return r.giveUp(ctx, err)
	case waiting:
		return r.queue(ctx, turn)
	case failure.Verdict == Outage && name == StepNotify && len(r.RetryDelays) > 0:
		// The certificate is issued. Holding the event for its message would keep
		// others from theirs.
		return r.retryLater(ctx, name, failure, r.notifierWait(), 0)
	case failure.Verdict == Outage:
		r.describe(name, failure) // so that people see what it waits for
		return r.giveUp(ctx, err)
	case r.blamesTemplate(name, failure):
		return r.blameTemplate(ctx, failure)
	default:
		return r.settle(ctx, name, failure)
	}
}

// settle does what a failure of the learner's own calls for.
func (r *run) settle(ctx context.Context, name Step, failure *Failure) Outcome {
	switch {
	case failure.Verdict == Permanent:
		return r.fail(ctx, name, failure, ClassPermanent)
	case r.issuance.Rounds >= len(r.RetryDelays):
		return r.fail(ctx, name, failure, ClassExhausted)
	default:
		return r.retryLater(ctx, name, failure, r.RetryDelays[r.issuance.Rounds], 1)
	}
}

// giveUp ends the claim and keeps the event, for nothing was the learner's
// fault. What the run achieved and has not written yet is written now; should
// that fail too, it is achieved again by whoever claims next.
func (r *run) giveUp(ctx context.Context, cause error) Outcome {
	r.warn(ctx, "an event is on hold", r.event, cause)
	r.release(ctx)
	return hold(max(holdAway, AsFailure(cause).RetryAfter))
}

// queue ends the claim of an event that only waits for its turn.
func (r *run) queue(ctx context.Context, turn *NoPlaceError) Outcome {
	r.Log.Debug("an event waits for its turn", append(r.fields(), zap.Error(turn))...)
	r.release(ctx)
	return hold(max(holdUnplaced, turn.RetryAfter))
}

func (r *run) release(ctx context.Context) {
	r.change.Release = true
	if err := r.write(context.WithoutCancel(ctx)); err != nil && !errors.Is(err, ErrClaimLost) {
		r.warn(ctx, "cannot release a claim; it will lapse", r.event, err)
	}
}

// maxNotifierWait is the longest wait for a notifier that is away.
const maxNotifierWait = 5 * time.Minute

// notifierWait is how long a notification waits for a notifier that is away: as
// long as that has lasted already. After an hour half a million notifications
// are not published anew every 30 s, and after a minute none waits for five.
func (r *run) notifierWait() time.Duration {
	lasted := min(time.Since(r.issuance.FirstFailure), maxNotifierWait)
	return max(lasted, r.RetryDelays[0])
}

// retryLater turns the issuance in for a while, longer when the service asked
// for more; rounds is what that costs of the times it may wait.
func (r *run) retryLater(ctx context.Context, name Step, failure *Failure, wait time.Duration, rounds int) Outcome {
	achieved := r.change
	r.issuance.Rounds += rounds
	r.describe(name, failure)
	r.change.State, r.change.Rest, r.change.Due = Retrying, true, time.Now().Add(max(wait, failure.RetryAfter))
	if err := r.write(context.WithoutCancel(ctx)); err != nil {
		r.issuance.Rounds -= rounds
		r.change = achieved
		return r.giveUp(ctx, err)
	}
	r.Metrics.event(outcomeRetried)
	return atRest
}

// fail brings an event to rest that cannot succeed: first the dead-letter
// topic, then the ledger, so that no failure is without its record.
func (r *run) fail(ctx context.Context, name Step, failure *Failure, class DeadLetterClass) Outcome {
	ctx = context.WithoutCancel(ctx)
	letter := r.letter(name, failure, class)
	place, err := r.bury(ctx, letter)
	if err != nil {
		return r.giveUp(ctx, fmt.Errorf("write the dead letter: %w", err))
	}
	letter.Place = place
	achieved := r.change
	r.describe(name, failure)
	r.change.State, r.change.Rest, r.change.DeadLetter = Failed, true, &letter
	if err := r.write(ctx); err != nil {
		r.change = achieved
		return r.giveUp(ctx, err)
	}
	r.Metrics.deadLetter(name, failure.Reason)
	r.Metrics.event(outcomeDeadLettered)
	r.Log.Warn("an event was dead-lettered", append(r.fields(), zap.String("step", string(name)),
		zap.String("reason", string(failure.Reason)), zap.Int("http_status", failure.HTTPStatus))...)
	return atRest
}

func (r *run) letter(name Step, failure *Failure, class DeadLetterClass) DeadLetter {
	now := time.Now()
	first := r.issuance.FirstFailure
	if first.IsZero() {
		first = now
	}
	return DeadLetter{
		ID:    fmt.Sprintf("%s-%d-%d", r.issuance.ID, r.issuance.Revision, r.issuance.Replays),
		Class: class, Step: name, Reason: failure.Reason, HTTPStatus: failure.HTTPStatus, Message: failure.Message,
		Attempts: r.issuance.Attempts, Replays: r.issuance.Replays, Job: r.issuance.Job,
		FirstFailure: first, LastFailure: now,
	}
}

// describe puts a failure into the coming write.
func (r *run) describe(name Step, failure *Failure) {
	r.change.Step, r.change.Reason = name, failure.Reason
	r.change.HTTPStatus, r.change.Message = failure.HTTPStatus, failure.Message
}

// answered makes a channel whose call was answered, or never left, pending
// again: it is not in doubt.
func (r *run) answered(name Step, failure *Failure) {
	if name != StepNotify || failure.HTTPStatus == 0 && !failure.Unsent {
		return
	}
	for _, c := range []channel{r.email(), r.sms()} {
		if !c.settled() {
			c.reach(ChannelPending)
		}
	}
}

// fields name the event in a log line, by ids alone.
func (r *run) fields() []zap.Field { return eventFields(r.event) }
