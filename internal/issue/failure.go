package issue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Verdict is what an edge says about one call, once and for all.
type Verdict string

const (
	// Done is a call that did what was asked.
	Done Verdict = "done"
	// Transient is a failure that a repetition may cure.
	Transient Verdict = "transient"
	// Permanent is a failure that no repetition cures.
	Permanent Verdict = "permanent"
	// Outage says that the service cannot be reached or refuses our
	// credentials: no fault of the learner, so it costs no attempts.
	Outage Verdict = "outage"
)

// Verdicts lists every verdict, for metrics that start at zero.
func Verdicts() []Verdict { return []Verdict{Done, Transient, Permanent, Outage} }

// Reason says why, from a closed list: it is a metric label, a dead-letter
// header and a member of answers.
type Reason string

// The reasons of failures, and of learners without a notification.
const (
	ReasonBadRequest    Reason = "bad_request"
	ReasonTemplate      Reason = "template"
	ReasonNoTemplate    Reason = "no_template"
	ReasonNoAddress     Reason = "no_address"
	ReasonSigningKey    Reason = "signing_key"
	ReasonUnknownUser   Reason = "unknown_user"
	ReasonUnknownCourse Reason = "unknown_course"
	ReasonConflict      Reason = "conflict"
	ReasonRejected      Reason = "rejected"
	ReasonTimeout       Reason = "timeout"
	ReasonUnavailable   Reason = "unavailable"
	ReasonRateLimited   Reason = "rate_limited"
	ReasonCredentials   Reason = "credentials"
	ReasonBadAnswer     Reason = "bad_answer"
	ReasonTooLarge      Reason = "too_large"
	ReasonDecode        Reason = "decode"
	ReasonPanic         Reason = "panic"
	ReasonCrashLoop     Reason = "crash_loop"
	ReasonOther         Reason = "other"
)

// Reasons lists every reason, for metrics that start at zero.
func Reasons() []Reason {
	return []Reason{
		ReasonBadRequest, ReasonTemplate, ReasonNoTemplate, ReasonNoAddress, ReasonSigningKey, ReasonUnknownUser,
		ReasonUnknownCourse, ReasonConflict, ReasonRejected, ReasonTimeout, ReasonUnavailable, ReasonRateLimited,
		ReasonCredentials, ReasonBadAnswer, ReasonTooLarge, ReasonDecode, ReasonPanic, ReasonCrashLoop, ReasonOther,
	}
}

// Failure is the error of a call to another service, classified by the edge
// that made the call. Message holds the service's own words, without values
// that we sent and without secrets; it is shown to operators.
type Failure struct {
	Verdict    Verdict
	Reason     Reason
	HTTPStatus int           // 0 when there was no answer
	Message    string        // at most 2 KiB
	RetryAfter time.Duration // 0 when the service named none
	Unsent     bool          // the request certainly did not reach the service
	Err        error         // the cause, may be nil
}

func (f *Failure) Error() string {
	text := fmt.Sprintf("%s (%s)", f.Message, f.Reason)
	if f.HTTPStatus != 0 {
		text = fmt.Sprintf("HTTP %d: %s", f.HTTPStatus, text)
	}
	if f.Err != nil && f.Message == "" {
		text += ": " + f.Err.Error()
	}
	return text
}

func (f *Failure) Unwrap() error { return f.Err }

// AsFailure gives err's classification. An error that no edge classified is
// transient: repeating is safe, dropping is not.
func AsFailure(err error) *Failure {
	var failure *Failure
	if errors.As(err, &failure) {
		return failure
	}
	reason := ReasonOther
	if errors.Is(err, context.DeadlineExceeded) {
		reason = ReasonTimeout
	}
	return &Failure{Verdict: Transient, Reason: reason, Message: err.Error(), Err: err}
}

// ErrOldID is wrapped by the failure of a registration whose OldID is refused:
// the service does not know it, or it was replaced already.
var ErrOldID = errors.New("the certificate to be replaced is refused")

// ErrUnavailable is wrapped by errors of the ledger and of the enrolment
// source when they cannot be reached: the caller is told to come again, never
// that there is "no user".
var ErrUnavailable = errors.New("unavailable")
