package issue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Request asks for the certificates of a batch.
type Request struct {
	Batch          BatchID
	Course         CourseID
	Certificate    string // empty = every template of the course
	Filter         Filter
	ReIssue        bool
	RequestedBy    string // user id; empty when authentication is off
	IdempotencyKey string
	Fingerprint    string // of the request's meaning; tells a repeat from a different request under the same key
	TraceParent    string
}

// Acceptance is the answer to a request.
type Acceptance struct {
	Job          JobID // empty when nobody is eligible: then there is no job
	Certificates []string
	Eligible     int
	Estimate     bool // earlier certificates or dates may still change the count
	Skipped      map[SkipReason]int
}

// The refusals of a request. Their texts are the platform's own.
var (
	ErrUnknownBatch = errors.New("No such batchId exists") //nolint:staticcheck // the platform's text, word for word
	ErrOtherCourse  = errors.New("batchId is not linked with courseId")
	ErrKeyReused    = errors.New("the Idempotency-Key was used before with another request")
)

// NoTemplatesError refuses a batch whose course has no certificate template.
type NoTemplatesError struct{ Batch BatchID }

func (e NoTemplatesError) Error() string {
	return fmt.Sprintf("No certificate templates associated with %s", e.Batch)
}

// InvalidValueError refuses a value that names nothing we know.
type InvalidValueError struct{ Parameter, Value string }

func (e InvalidValueError) Error() string {
	return fmt.Sprintf("Invalid value %s for parameter %s. Please provide a valid value.", e.Value, e.Parameter)
}

// Batch is a course batch as the platform's index has it.
type Batch struct {
	ID      BatchID
	Course  CourseID
	Creator LearnerID
	Mentors []LearnerID
}

// BadTemplatesError refuses a batch whose course has templates that cannot be
// read. Coming again does not help; somebody has to correct the course.
type BadTemplatesError struct {
	Course  CourseID
	Problem string
}

func (e BadTemplatesError) Error() string {
	return fmt.Sprintf("The certificate templates of course %s cannot be read: %s", e.Course, e.Problem)
}

// EligibleCount is what the enrolment source counts in one query.
type EligibleCount struct {
	Eligible int
	Estimate bool
	Skipped  map[SkipReason]int
}

type (
	// Batches finds course batches. A batch that does not exist is false; a
	// source that does not answer is an error wrapping [ErrUnavailable].
	Batches interface {
		Batch(ctx context.Context, id BatchID) (Batch, bool, error)
	}

	// Courses reads courses with their templates. An unknown course is a
	// [Failure] with [ReasonUnknownCourse].
	Courses interface {
		Course(ctx context.Context, id CourseID) (Course, error)
	}

	// EligibleCounter counts the eligible learners of a batch, certificate by
	// certificate names being those that the request would issue.
	EligibleCounter interface {
		Count(ctx context.Context, batch BatchID, filter Filter, certificates []string) (EligibleCount, error)
	}

	// JobStore keeps accepted jobs.
	JobStore interface {
		// CreateJob writes the job before it returns. When the idempotency key
		// was used before it answers the job of that time, or [ErrKeyReused]
		// when the fingerprint differs.
		CreateJob(ctx context.Context, job Job, key, fingerprint string) (Job, error)
	}
)

// Accepter turns requests into jobs.
type Accepter struct {
	Batches  Batches
	Courses  Courses
	Counter  EligibleCounter
	Jobs     JobStore
	Accepted func() // called after a job was written, to wake the fan-out
	Now      func() time.Time
}

// Accept checks a request and writes its job; when it returns a job id, the job
// is durable. The order of checks is the platform's: batch, course, templates.
func (a *Accepter) Accept(ctx context.Context, r Request) (Acceptance, error) {
	certificates, err := a.certificates(ctx, r)
	if err != nil {
		return Acceptance{}, err
	}
	count, err := a.Counter.Count(ctx, r.Batch, r.Filter, certificates)
	if err != nil {
		return Acceptance{}, fmt.Errorf("count the eligible learners of batch %s: %w", r.Batch, err)
	}
	answer := Acceptance{
		Certificates: certificates, Eligible: count.Eligible, Estimate: count.Estimate, Skipped: count.Skipped,
	}
	if count.Eligible == 0 {
		return answer, nil
	}
	job, err := a.Jobs.CreateJob(ctx, Job{
		ID: JobID(uuid.NewString()), Batch: r.Batch, Course: r.Course, Certificates: certificates,
		Filter: r.Filter, ReIssue: r.ReIssue, State: JobRunning, Eligible: count.Eligible, Estimate: count.Estimate,
		Skipped: count.Skipped, CreatedBy: r.RequestedBy, CreatedAt: a.Now(), TraceParent: r.TraceParent,
	}, r.IdempotencyKey, r.Fingerprint)
	if err != nil {
		return Acceptance{}, fmt.Errorf("write the job for batch %s: %w", r.Batch, err)
	}
	answer.Job, answer.Eligible, answer.Estimate, answer.Skipped = job.ID, job.Eligible, job.Estimate, job.Skipped
	a.Accepted()
	return answer, nil
}

// certificates checks batch, course and templates, and names the certificates
// to issue in the course's own spelling, so that two spellings of one name do
// not become two issuances.
func (a *Accepter) certificates(ctx context.Context, r Request) ([]string, error) {
	batch, found, err := a.Batches.Batch(ctx, r.Batch)
	switch {
	case err != nil:
		return nil, fmt.Errorf("look up batch %s: %w", r.Batch, err)
	case !found:
		return nil, ErrUnknownBatch
	case batch.Course != r.Course:
		return nil, ErrOtherCourse
	}
	course, err := a.course(ctx, r.Course)
	if err != nil {
		return nil, err
	}
	if len(course.Templates) == 0 {
		return nil, NoTemplatesError{Batch: r.Batch}
	}
	if r.Certificate != "" {
		template, ok := course.Template(r.Certificate)
		if !ok {
			return nil, InvalidValueError{Parameter: "certificate", Value: r.Certificate}
		}
		return []string{template.Name}, nil
	}
	var names []string
	for _, t := range course.Templates {
		names = append(names, t.Name)
	}
	return names, nil
}

// course reads the course. One that the platform does not know has no
// templates.
func (a *Accepter) course(ctx context.Context, id CourseID) (Course, error) {
	course, err := a.Courses.Course(ctx, id)
	if err == nil {
		return course, nil
	}
	failure := AsFailure(err)
	switch {
	case failure.Reason == ReasonUnknownCourse:
		return Course{ID: id}, nil
	case failure.Verdict == Permanent && failure.Reason == ReasonTemplate:
		return Course{}, BadTemplatesError{Course: id, Problem: failure.Message}
	default:
		return Course{}, fmt.Errorf("%w: read course %s: %w", ErrUnavailable, id, err)
	}
}
