package issue

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
)

// Outcome is what became of an event. An event at rest will not be worked
// again; one on hold must be offered again, and its offset must not pass
// meanwhile.
type Outcome struct {
	AtRest  bool
	HoldFor time.Duration // when not at rest: how long to wait before the next try
}

// atRest is the outcome of an event whose fate is durable.
var atRest = Outcome{AtRest: true}

func hold(d time.Duration) Outcome { return Outcome{HoldFor: d} }

const (
	// holdBusy is how long an event waits that met somebody else's live claim.
	holdBusy = time.Second
	// holdAway is how long an event waits when a store or service is away.
	holdAway = 2 * time.Second
	// claimGrace is how long a claim outlives the deadline of its step.
	claimGrace = 30 * time.Second
	// stepPatience is how long after its first try a step may start another.
	stepPatience = 10 * time.Second
)

// Claim is a process's right to work one issuance. Every write names it and is
// refused when somebody else holds the issuance by then.
type Claim struct {
	Issuance IssuanceID
	Number   int64
	Token    string
	Process  string // id of this start of this process
	Until    time.Time
	Row      int64 // the store's own name for the issuance, known once it is claimed
}

// ClaimResult says what a claim met.
type ClaimResult int

// What a claim can meet.
const (
	Claimed   ClaimResult = iota
	ClaimVoid             // the event is finished or superseded: at rest on sight
	ClaimBusy             // somebody else's claim is live
	ClaimNone             // the ledger has no such issuance
)

// ErrClaimLost refuses the write of a process whose claim has ended: it was
// stopped or hung, and somebody else has taken over.
var ErrClaimLost = errors.New("the claim on the issuance has ended")

// Checkpoint is one write about a claimed issuance. Zero members change
// nothing.
type Checkpoint struct {
	Claim      Claim
	Before     Standing // as the claimant's last write, or the claim, left it
	State      State
	Step       Step
	Attempts   int
	Rounds     int
	Reason     Reason
	HTTPStatus int
	Message    string
	Finished   []Finished // steps that ended since the last write: their lines in the history
	Made       *Certificate
	Proven     *TemplateUse // that has made it, when the ledger should hear so
	OldID      *string      // another certificate to be replaced
	Registered bool         // certs/add has succeeded
	Email, SMS ChannelState

	FirstFailure time.Time   // of the step at hand; zero = it has not failed
	Release      bool        // the claim ends, the issuance stays out: its event is on hold
	Rest         bool        // the claim ends and the issuance turns in: its event comes to rest
	Due          time.Time   // with Rest and Retrying: when to dispatch it again
	DeadLetter   *DeadLetter // with Rest and Failed: its row in the index
}

// Standing is what the counts of a job tell of one issuance.
type Standing struct {
	Revision int
	State    State
	Issued   bool // some revision is registered
}

// Finished is a step that has ended: the state it led to, and the calls it took.
type Finished struct {
	State    State
	Attempts int
}

// DeadLetterClass groups dead letters by what can be done about them.
type DeadLetterClass string

// The classes of dead letters.
const (
	ClassPermanent DeadLetterClass = "permanent"
	ClassExhausted DeadLetterClass = "exhausted"
	ClassPoison    DeadLetterClass = "poison"
)

// DeadLetter says why an event went to the dead-letter topic.
type DeadLetter struct {
	ID           string // issuance, revision, replays; of poison: topic, partition, offset
	Class        DeadLetterClass
	Step         Step
	Reason       Reason
	HTTPStatus   int // 0 = there was none
	Message      string
	Attempts     int
	Replays      int
	Job          JobID
	FirstFailure time.Time
	LastFailure  time.Time
	Place        Place // in the dead-letter topic
}

// Bury writes the event at hand to the dead-letter topic, byte for byte, with
// the letter as headers; it returns where the record stands once all replicas
// have it.
type Bury func(ctx context.Context, letter DeadLetter) (Place, error)

type (
	// WorkStore is the ledger as the worker uses it.
	WorkStore interface {
		// Claim takes the issuance for claim. With Claimed it answers the
		// issuance with everything stored of its revision.
		Claim(ctx context.Context, claim Claim) (Issuance, ClaimResult, error)
		// Checkpoint writes, or answers [ErrClaimLost] and writes nothing.
		Checkpoint(ctx context.Context, checkpoint Checkpoint) error
		// Adopt writes the issuances that an event from elsewhere asks for to the
		// standing job of its batch and certificate, creating that job when needed.
		Adopt(ctx context.Context, standing Job, page FannedOut) error
		// IndexPoison notes the dead letter of a record that is no event.
		IndexPoison(ctx context.Context, letter DeadLetter) error
		TemplateStore
	}

	// Recipients looks up learners. An unknown one is a [Failure] with
	// [ReasonUnknownUser].
	Recipients interface {
		Recipient(ctx context.Context, id LearnerID) (Recipient, error)
	}

	// Generator makes one certificate. It is not idempotent: a repeated call
	// makes another one, which nobody sees until it is registered.
	Generator interface {
		Generate(ctx context.Context, request GenerateRequest) (Certificate, error)
	}

	// Registrar tells the platform whose certificate it is. Repeating an
	// identical registration is success.
	Registrar interface {
		Register(ctx context.Context, registration Registration) error
	}

	// Notifier announces a certificate. Every accepted call sends again.
	Notifier interface {
		Email(ctx context.Context, notification Notification) error
		SMS(ctx context.Context, notification Notification) error
	}

	// LearnerEnrolments reads one learner's enrolment; false = not enrolled.
	LearnerEnrolments interface {
		Learner(ctx context.Context, batch BatchID, learner LearnerID) (Enrolment, bool, error)
	}
)

// WorkerConfig holds what a worker works with and by.
type WorkerConfig struct {
	Store      WorkStore
	Courses    Courses
	Recipients Recipients
	Generator  Generator
	Registrar  Registrar
	Notifier   Notifier
	Enrolments LearnerEnrolments
	Places     Places // nil = every step has a place

	Process       string                 // id of this start of this process
	StepAttempts  int                    // calls of a step in one go
	RetryDelays   []time.Duration        // before each later go
	CallTimeout   map[Step]time.Duration // of one call
	CrashLimit    int                    // deaths in flight that convict an event; 0 = off
	ResendInDoubt bool                   // send a notification again whose call may have happened
	Zone          *time.Location         // of dates on certificates

	Metrics *WorkMetrics
	Log     *zap.Logger
}

// Worker works events off.
type Worker struct {
	WorkerConfig
	steps     []step
	templates *templates
	suspects  *suspects
	rested    atomic.Int64
}

// NewWorker makes a worker.
func NewWorker(config WorkerConfig) *Worker {
	return &Worker{WorkerConfig: config, steps: wayOfACertificate(), templates: newTemplates(), suspects: newSuspects()}
}

// Work walks the event's issuance through the steps that it still has before
// it. It is safe to call for any event at any time in any number of processes.
// When ctx ends it stops at the next step and puts the event on hold.
func (w *Worker) Work(ctx context.Context, event Event, bury Bury) Outcome {
	outcome := w.work(ctx, event, bury)
	if outcome.AtRest {
		w.suspects.forget(event.Issuance)
		w.rested.Add(1)
	}
	return outcome
}

// Rested counts the events that came to rest here since the start.
func (w *Worker) Rested() int64 { return w.rested.Load() }

func (w *Worker) work(ctx context.Context, event Event, bury Bury) Outcome {
	if event.Number == 0 {
		return w.adopt(ctx, event)
	}
	leave, ok := w.suspects.enter(event.Issuance)
	if !ok {
		return hold(holdBusy)
	}
	defer leave()
	claim := Claim{
		Issuance: event.Issuance, Number: event.Number, Token: uuid.NewString(), Process: w.Process,
		Until: time.Now().Add(stepPatience + claimGrace),
	}
	issuance, result, err := w.Store.Claim(ctx, claim)
	if err != nil {
		w.warn(ctx, "cannot claim an issuance", event, err)
		return hold(holdAway)
	}
	switch result {
	case ClaimVoid:
		w.Metrics.event(outcomeStale)
		return atRest
	case ClaimBusy:
		return hold(holdBusy)
	case ClaimNone:
		return w.adopt(ctx, event)
	default:
		run := &run{Worker: w, event: event, issuance: issuance, bury: bury, change: Checkpoint{Claim: claim}}
		return run.beside(ctx)
	}
}

// Poison brings a record to rest that is no event: to the dead-letter topic
// byte for byte, and into the index. origin names its place, "topic-partition-
// offset", so that a repeat writes the same.
func (w *Worker) Poison(ctx context.Context, origin string, cause error, bury Bury) Outcome {
	now := time.Now()
	letter := DeadLetter{
		ID: origin, Class: ClassPoison, Step: StepDecode, Reason: ReasonDecode, Message: cause.Error(),
		FirstFailure: now, LastFailure: now,
	}
	place, err := bury(ctx, letter)
	if err == nil {
		letter.Place = place
		err = w.Store.IndexPoison(ctx, letter)
	}
	if err != nil {
		w.Log.Warn("cannot bury a record that is no event", zap.String("origin", origin), zap.Error(err))
		return hold(holdAway)
	}
	w.Metrics.attempt(StepDecode, Permanent, ReasonDecode, 0)
	w.Metrics.deadLetter(StepDecode, ReasonDecode)
	w.Metrics.event(outcomeDeadLettered)
	w.Log.Warn("a record that is no event was dead-lettered", zap.String("origin", origin), zap.Error(cause))
	return atRest
}

// adopt judges an event that was made elsewhere like any other learner and
// leaves the rest to the dispatcher: only numbered events are worked.
func (w *Worker) adopt(ctx context.Context, event Event) Outcome {
	event, err := w.spell(ctx, event)
	var page FannedOut
	if err == nil {
		page, err = w.judge(ctx, event)
	}
	if err == nil {
		err = w.Store.Adopt(ctx, standingJob(event), page)
	}
	if err != nil {
		w.warn(ctx, "cannot adopt an event made elsewhere", event, err)
		return hold(holdAway)
	}
	w.Metrics.event(outcomeAdopted)
	return atRest
}

// spell gives the certificate the course's own spelling, so that an event which
// spells it otherwise meets the issuance there is. What the course lacks keeps
// its spelling and fails later, where it can be seen.
func (w *Worker) spell(ctx context.Context, event Event) (Event, error) {
	course, err := w.Courses.Course(ctx, event.Course)
	if err != nil && AsFailure(err).Reason != ReasonUnknownCourse {
		return event, fmt.Errorf("read course %s: %w", event.Course, err)
	}
	if template, ok := course.Template(event.Certificate); ok {
		event.Certificate = template.Name
		event.Issuance = NewIssuanceID(event.Batch, event.Learner, template.Name)
	}
	return event, nil
}

func (w *Worker) judge(ctx context.Context, event Event) (FannedOut, error) {
	enrolment, found, err := w.Enrolments.Learner(ctx, event.Batch, event.Learner)
	if err != nil {
		return FannedOut{}, fmt.Errorf("read the enrolment: %w", err)
	}
	job := standingJob(event)
	if !found {
		skip := Skip{Learner: event.Learner, Certificate: event.Certificate, Reason: SkipNotEnrolled}
		return FannedOut{Cause: event.MID, Skipped: []Skip{skip}}, nil
	}
	fanned := fan(job, EnrolmentPage{Enrolments: []Enrolment{enrolment}})
	fanned.Cause = event.MID
	return fanned, nil
}

// standingNamespace makes the ids of standing jobs; the value is arbitrary and
// must never change.
var standingNamespace = uuid.MustParse("6f1c4d0e-5a0b-4a3f-9d7e-0c5b8e2f7a11")

// standingJob is the job that gathers events made elsewhere for one batch and
// certificate: one row however many such events arrive, hence an id derived
// from both.
func standingJob(event Event) Job {
	id := uuid.NewSHA1(standingNamespace, []byte(string(event.Batch)+"_"+event.Certificate))
	return Job{
		ID: JobID(id.String()), Batch: event.Batch, Course: event.Course, Certificates: []string{event.Certificate},
		ReIssue: event.ReIssue, State: JobRunning, Resolved: true, CreatedAt: time.Now(),
	}
}

// warn logs a failure unless it only says that we are stopping.
func (w *Worker) warn(ctx context.Context, message string, event Event, err error) {
	if ctx.Err() != nil {
		return
	}
	w.Log.Warn(message, append(eventFields(event), zap.Error(err))...)
}

// eventFields name an event in a log line, by ids alone.
func eventFields(event Event) []zap.Field {
	return []zap.Field{
		zap.String("issuance", string(event.Issuance)), zap.String("batch", string(event.Batch)),
		zap.String("job", string(event.Job)),
	}
}
