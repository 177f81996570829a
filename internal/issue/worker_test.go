package issue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheWayOfACertificate(t *testing.T) {
	inWorld(t, func(w *world) {
		require.Equal(t, Outcome{AtRest: true}, w.work())
		require.Equal(t, []string{
			"write generating", "call generate", "write registering", "call register",
			"write notifying", "call email", "write notifying", "call sms", "write notified+rest",
		}, w.log, "each result is stored before the next call")
		made := certificateNo(1)
		require.Empty(t, cmp.Diff([]Checkpoint{
			{State: Generating, Step: StepGenerate, Attempts: 1},
			{
				State: Registering, Step: StepRegister, Attempts: 1, Made: &made, Finished: []Finished{{Generated, 1}},
				Proven: &TemplateUse{Job: "job-1", Certificate: merit},
			},
			{
				State: Notifying, Step: StepNotify, Attempts: 1, Registered: true, Finished: []Finished{{Registered, 1}},
				Email: ChannelSending,
			},
			{
				State: Notifying, Step: StepNotify, Attempts: 2, Finished: []Finished{{Notifying, 1}},
				Email: ChannelSent, SMS: ChannelSending,
			},
			{
				State: Notified, Step: StepNotify, Attempts: 2, Finished: []Finished{{Notifying, 2}, {Notified, 2}},
				SMS: ChannelSent, Rest: true,
			},
		}, w.store.writes))

		istDay := time.Date(2019, 8, 21, 1, 30, 0, 0, w.worker.Zone)
		require.Len(t, w.generations, 1)
		require.Equal(t, "Asha Rao", w.generations[0].Recipient.FullName())
		require.Equal(t, merit, w.generations[0].Template.Name)
		require.Equal(t, istDay.String(), w.generations[0].IssuedOn.String(), "the day in the zone of certificates")
		require.Equal(t, []Registration{{Learner: "u1", Course: "do_1", Batch: "batch-1", Certificate: made}}, w.registrations)
		require.Len(t, w.messages, 2)
		require.Equal(t, "Asha", w.messages[0].GivenName)

		require.Equal(t, 1, w.events("issued"))
		require.Equal(t, 1, w.tries(StepGenerate, Done, ""))
		require.Equal(t, 1, w.tries(StepRegister, Done, ""))
		require.Equal(t, 2, w.tries(StepNotify, Done, ""), "an SMS counts as an attempt of notify")
		require.Equal(t, Outcome{AtRest: true}, w.again(), "the event comes twice")
		require.Equal(t, 1, w.generated)
	})
}

// The steps that are stored are not made again, whatever the process was doing
// when it died.
func TestResume(t *testing.T) {
	t.Parallel()
	made := certificateNo(7)
	stored := func(r *row) { r.Made, r.State, r.Step, r.Attempts = &made, Registering, StepRegister, 1 }
	registered := func(r *row) {
		stored(r)
		r.RegisteredAt, r.State, r.Step = time.Now(), Notifying, StepNotify
	}
	tests := map[string]struct {
		left  func(*row)
		skip  bool // notifications in doubt are not sent again
		calls string
	}{
		"nothing":                   {left: func(*row) {}, calls: "generate register email sms"},
		"while generating":          {left: func(r *row) { r.State, r.Step, r.Attempts = Generating, StepGenerate, 1 }, calls: "generate register email sms"},
		"generated":                 {left: stored, calls: "register email sms"},
		"registered":                {left: registered, calls: "email sms"},
		"while sending the e-mail":  {left: func(r *row) { registered(r); r.Email = ChannelSending }, calls: "email sms"},
		"the same, not to be sent":  {left: func(r *row) { registered(r); r.Email = ChannelSending }, skip: true, calls: "sms"},
		"e-mail sent":               {left: func(r *row) { registered(r); r.Email = ChannelSent }, calls: "sms"},
		"while sending the SMS":     {left: func(r *row) { registered(r); r.Email, r.SMS = ChannelSent, ChannelSending }, calls: "sms"},
		"this too, not to be sent":  {left: func(r *row) { registered(r); r.Email, r.SMS = ChannelSent, ChannelSending }, skip: true, calls: ""},
		"both, not to be sent":      {left: func(r *row) { registered(r); r.Email, r.SMS = ChannelSending, ChannelSending }, skip: true, calls: ""},
		"all sent":                  {left: func(r *row) { registered(r); r.Email, r.SMS = ChannelSent, ChannelSent }, calls: ""},
		"no address, while texting": {left: func(r *row) { registered(r); r.Email, r.SMS = ChannelNone, ChannelSending }, calls: "sms"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.worker.ResendInDoubt = !test.skip
				test.left(w.row)
				require.True(t, w.work().AtRest)
				var calls []string
				for _, line := range w.log {
					if call, ok := strings.CutPrefix(line, "call "); ok {
						calls = append(calls, call)
					}
				}
				require.Equal(t, test.calls, strings.Join(calls, " "))
				require.Equal(t, Notified, w.row.State)
				require.Empty(t, w.row.reason)
				for _, r := range w.registrations {
					require.Equal(t, w.row.Made.ID, r.Certificate.ID)
				}
				if strings.Contains(name, "not to be sent") {
					require.NotZero(t, w.lines.FilterMessageSnippet("in doubt").Len(), "never silently")
				}
			})
		})
	}
}

func TestRegistrationIsRepeatedIdentically(t *testing.T) {
	inWorld(t, func(w *world) {
		w.row.OldID = "cert-0"
		register := w.register
		w.register = func(ctx context.Context, r Registration) error {
			_ = register(ctx, r)
			if len(w.registrations) < 6 {
				return transient(ReasonTimeout)
			}
			return nil
		}
		require.True(t, w.work().AtRest)
		require.Equal(t, Retrying, w.row.State)
		require.True(t, w.work().AtRest)
		require.Equal(t, Notified, w.row.State)
		require.Equal(t, 1, w.generated)
		require.Len(t, w.registrations, 6)
		for i, r := range w.registrations {
			require.Equal(t, i > 0, r.Repeated)
			r.Repeated = false
			require.Empty(t, cmp.Diff(w.registrations[0], r))
		}
		require.Equal(t, "cert-0", w.registrations[0].OldID)
	})
}

// The certificate to be replaced is refused: the newest that the enrolment shows
// is tried, then none; each is stored before it is sent.
func TestTheOldCertificateIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		held string
		want []string
	}{
		"a newer one is known": {"cert-7", []string{"cert-0", "cert-7", ""}},
		"none is known":        {"", []string{"cert-0", ""}},
		"it is the newest":     {"cert-0", []string{"cert-0", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.row.OldID = "cert-0"
				w.enrolment = func(_ context.Context, _ BatchID, l LearnerID) (Enrolment, bool, error) {
					return Enrolment{Learner: l, Held: []HeldCertificate{{Name: merit, ID: tt.held}}}, true, nil
				}
				var sent []string
				w.register = func(_ context.Context, r Registration) error {
					require.Equal(t, r.OldID, w.row.OldID, "what is sent is stored")
					sent = append(sent, r.OldID)
					if r.OldID == "" {
						return nil
					}
					return &Failure{Verdict: Permanent, Reason: ReasonConflict, HTTPStatus: 400, Message: "no", Err: ErrOldID}
				}
				require.Equal(t, atRest, w.work())
				require.Equal(t, tt.want, sent)
				require.Equal(t, Notified, w.row.State)
				require.Equal(t, 1, w.generated)
			})
		})
	}
}

func TestTransientFailures(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		failures   int // before generate succeeds; -1 = always
		retryAfter time.Duration
		attempts   int
		state      State
		due        time.Duration // not before
	}{
		"once":                          {failures: 1, attempts: 2, state: Notified},
		"twice":                         {failures: 2, attempts: 3, state: Notified},
		"always":                        {failures: -1, attempts: 3, state: Retrying, due: 30 * time.Second},
		"a short Retry-After":           {failures: 1, retryAfter: 3 * time.Second, attempts: 2, state: Notified},
		"a Retry-After beyond patience": {failures: -1, retryAfter: 11 * time.Second, attempts: 1, state: Retrying, due: 30 * time.Second},
		"a Retry-After beyond delays":   {failures: -1, retryAfter: 40 * time.Minute, attempts: 1, state: Retrying, due: 40 * time.Minute},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				calls, generate, begun := 0, w.generate, time.Now()
				w.generate = func(ctx context.Context, r GenerateRequest) (Certificate, error) {
					calls++
					if test.failures < 0 || calls <= test.failures {
						failure := transient(ReasonRateLimited)
						failure.RetryAfter = test.retryAfter
						return Certificate{}, failure
					}
					require.GreaterOrEqual(t, time.Since(begun), test.retryAfter)
					return generate(ctx, r)
				}
				require.Equal(t, Outcome{AtRest: true}, w.work())
				require.Equal(t, test.attempts, calls)
				require.Equal(t, test.state, w.row.State)
				if test.state == Notified {
					require.Equal(t, test.failures, w.tries(StepGenerate, Transient, ReasonRateLimited))
					require.Zero(t, w.row.FirstFailure)
					return
				}
				require.Equal(t, calls, w.row.Attempts)
				require.Equal(t, 1, w.row.Rounds)
				require.Equal(t, ReasonRateLimited, w.row.reason)
				require.Equal(t, "went wrong", w.row.message)
				require.Equal(t, time.Now().Add(test.due), w.row.due)
				require.Equal(t, begun, w.row.FirstFailure)
				require.Equal(t, 1, w.events("retried"))
				require.Empty(t, w.buried)
			})
		})
	}
}

func TestExhausted(t *testing.T) {
	t.Parallel()
	steps := map[Step]func(*world, error){
		StepGenerate: func(w *world, err error) {
			w.generate = func(context.Context, GenerateRequest) (Certificate, error) { return Certificate{}, err }
		},
		StepRegister: func(w *world, err error) { w.register = func(context.Context, Registration) error { return err } },
		StepNotify:   func(w *world, err error) { w.email = func(context.Context, Notification) error { return err } },
	}
	for step, fail := range steps {
		t.Run(string(step), func(t *testing.T) {
			inWorld(t, func(w *world) {
				fail(w, transient(ReasonOther))
				begun := time.Now()
				for _, delay := range w.worker.RetryDelays {
					require.True(t, w.work().AtRest)
					require.Equal(t, Retrying, w.row.State)
					require.Equal(t, delay, time.Until(w.row.due))
					time.Sleep(delay) //nolint:forbidigo // fake clock
				}
				require.True(t, w.work().AtRest)
				require.Equal(t, Failed, w.row.State)
				require.Zero(t, w.row.due)
				require.Len(t, w.buried, 1)
				letter := w.buried[0]
				require.WithinDuration(t, begun, letter.FirstFailure, 0)
				require.WithinDuration(t, time.Now(), letter.LastFailure, 0)
				letter.FirstFailure, letter.LastFailure = time.Time{}, time.Time{}
				require.Empty(t, cmp.Diff(DeadLetter{
					ID: string(w.row.ID) + "-1-0", Class: ClassExhausted, Step: step, Reason: ReasonOther, HTTPStatus: 500,
					Message: "went wrong", Attempts: 12, Job: "job-1",
				}, letter))
				require.Equal(t, Place{Partition: 4, Offset: 44}, w.store.letters[letter.ID].Place)
				require.Equal(t, 12, w.tries(step, Transient, ReasonOther))
				require.Equal(t, 1, w.deadLetters(step, ReasonOther))
				require.Equal(t, 3, w.events("retried"))
				require.Equal(t, 1, w.events("dead_lettered"))
				require.Equal(t, step != StepGenerate, w.row.Made != nil, "what was made stays for a redrive")
				require.Equal(t, step == StepNotify, !w.row.RegisteredAt.IsZero(), "an issued certificate stays issued")
			})
		})
	}
}

// Course and learner are looked up for a step and belong to it.
func TestLookUpsFail(t *testing.T) {
	inWorld(t, func(w *world) {
		w.recipient = func(context.Context, LearnerID) (Recipient, error) { return Recipient{}, transient(ReasonOther) }
		for range 4 {
			require.True(t, w.work().AtRest)
		}
		require.Equal(t, 12, w.buried[0].Attempts)
		require.Equal(t, StepGenerate, w.buried[0].Step)
		require.NotContains(t, w.log, "write generating")
	})
	t.Run("unknown user", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.recipient = func(context.Context, LearnerID) (Recipient, error) {
				return Recipient{}, permanent(ReasonUnknownUser)
			}
			require.True(t, w.work().AtRest)
			require.Equal(t, ReasonUnknownUser, w.buried[0].Reason)
			require.Equal(t, ClassPermanent, w.buried[0].Class)
		})
	})
	t.Run("panic", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.recipient = func(context.Context, LearnerID) (Recipient, error) { panic("boom") }
			require.True(t, w.work().AtRest)
			require.Equal(t, ReasonPanic, w.buried[0].Reason)
		})
	})
}

func TestPermanentFailure(t *testing.T) {
	inWorld(t, func(w *world) {
		w.generate = func(context.Context, GenerateRequest) (Certificate, error) {
			w.called("generate")
			return Certificate{}, permanent(ReasonTemplate)
		}
		w.row.Replays, w.row.Revision = 2, 3
		w.row.last = 3
		require.True(t, w.work().AtRest)
		require.Equal(t, []string{"write generating", "call generate", "call bury", "write failed+rest"}, w.log,
			"the topic comes first, then the failure with its index row")
		require.Equal(t, string(w.row.ID)+"-3-2", w.buried[0].ID)
		require.Equal(t, 1, w.buried[0].Attempts)
		require.Equal(t, ClassPermanent, w.buried[0].Class)
		last := w.store.writes[len(w.store.writes)-1]
		require.Equal(t, Failed, last.State)
		require.NotNil(t, last.DeadLetter)
		require.Equal(t, Place{Partition: 4, Offset: 44}, last.DeadLetter.Place)
		require.Equal(t, ReasonTemplate, last.Reason)
		require.Equal(t, 400, last.HTTPStatus)
		require.Equal(t, 1, w.deadLetters(StepGenerate, ReasonTemplate))
	})
}

func TestTheTemplateIsGone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.course = func(context.Context, CourseID) (Course, error) { return Course{ID: "do_1"}, nil }
		require.True(t, w.work().AtRest)
		require.Equal(t, ReasonNoTemplate, w.buried[0].Reason)
		require.Zero(t, w.generated)
	})
}

func TestTheDeadLetterCannotBeWritten(t *testing.T) {
	inWorld(t, func(w *world) {
		w.generate = func(context.Context, GenerateRequest) (Certificate, error) {
			return Certificate{}, permanent(ReasonTemplate)
		}
		w.buryErr = errors.New("Kafka is away")
		require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.work())
		require.NotEqual(t, Failed, w.row.State)
		require.Empty(t, w.store.letters)
		require.True(t, w.row.out)
		require.Nil(t, w.row.claim, "whoever comes next may claim it")
		require.Zero(t, w.events("dead_lettered"))
		require.Zero(t, w.deadLetters(StepGenerate, ReasonTemplate))
		w.buryErr = nil
		require.True(t, w.again().AtRest)
		require.Equal(t, Failed, w.row.State)
	})
}

// A write that fails at the end leaves the issuance where it was: a state that
// says "over" without its record in the index would be believed.
func TestTheLedgerFailsAtTheEnd(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		state State
		fail  func(*world)
	}{
		"failed": {Failed, func(w *world) {
			w.generate = func(context.Context, GenerateRequest) (Certificate, error) {
				return Certificate{}, permanent(ReasonTemplate)
			}
		}},
		"retrying": {Retrying, func(w *world) {
			w.generate = func(context.Context, GenerateRequest) (Certificate, error) {
				return Certificate{}, transient(ReasonOther)
			}
		}},
		"notified": {Notified, func(*world) {}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				test.fail(w)
				refused := 0
				w.store.fails = func(op string) error {
					if op == string(test.state) && refused == 0 {
						refused++
						return errors.New("disk full")
					}
					return nil
				}
				require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.work())
				require.Equal(t, 1, refused)
				require.NotEqual(t, test.state, w.row.State)
				require.Empty(t, w.store.letters)
				require.Zero(t, w.row.due)
				require.Zero(t, w.row.Rounds)
				require.Nil(t, w.row.claim)
				require.Zero(t, w.events("dead_lettered")+w.events("retried")+w.events("issued"))

				require.True(t, w.again().AtRest)
				require.Equal(t, test.state, w.row.State)
				ends := slices.DeleteFunc(slices.Clone(w.row.history), func(line string) bool {
					return !strings.HasPrefix(line, string(test.state)+":")
				})
				require.Len(t, ends, 1, "history tells it once: %v", w.row.history)
				require.Len(t, w.messages, map[bool]int{true: 2}[test.state == Notified], "nobody is told twice")
			})
		})
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*world, error){
		"content": func(w *world, err error) {
			w.course = func(context.Context, CourseID) (Course, error) { return Course{}, err }
		},
		"learner": func(w *world, err error) {
			w.recipient = func(context.Context, LearnerID) (Recipient, error) { return Recipient{}, err }
		},
		"cert": func(w *world, err error) {
			w.generate = func(context.Context, GenerateRequest) (Certificate, error) { return Certificate{}, err }
		},
		"certs/add": func(w *world, err error) { w.register = func(context.Context, Registration) error { return err } },
	}
	for name, fail := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				event := w.store.dispatch(w.row)
				failure := outage()
				fail(w, failure)
				for range 50 {
					require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.workEvent(event))
				}
				failure.RetryAfter = 7 * time.Second
				require.Equal(t, Outcome{HoldFor: 7 * time.Second}, w.workEvent(event))
				require.Zero(t, w.row.Rounds)
				require.Zero(t, w.row.Attempts, "an outage spends none")
				require.Equal(t, failure.Reason, w.row.reason, "people see what it waits for")
				require.Empty(t, w.buried)
				require.Nil(t, w.row.claim, "who holds an event has no claim")
				require.True(t, w.row.out)
				require.NotContains(t, w.store.states(), Retrying)
				w.serve()
				require.True(t, w.workEvent(event).AtRest, "work resumes by itself")
				require.Equal(t, Notified, w.row.State)
				require.LessOrEqual(t, w.generated, 1+1)
			})
		})
	}
}

// Certificates go on while the notifier is down: its events do not stand in the
// way, and its outage spends no attempts.
func TestNotifierDown(t *testing.T) {
	t.Parallel()
	refused := &Failure{Verdict: Outage, Reason: ReasonUnavailable, Message: "connection refused", Unsent: true}
	for name, test := range map[string]struct {
		resend bool
		down   error
	}{
		"resend":          {true, outage()},
		"skip":            {false, outage()},
		"refused, resend": {true, refused},
		"refused, skip":   {false, refused},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.worker.ResendInDoubt = test.resend
				w.email = func(context.Context, Notification) error { return test.down }
				begun := time.Now()
				for range 20 {
					require.Equal(t, Outcome{AtRest: true}, w.work())
					require.Equal(t, Retrying, w.row.State)
					require.Equal(t, StepNotify, w.row.Step)
					require.Zero(t, w.row.Rounds)
					require.Zero(t, w.row.Attempts)
					lasted := time.Since(begun)
					require.Equal(t, min(max(lasted, 30*time.Second), 5*time.Minute), time.Until(w.row.due),
						"the longer it lasts, the more seldom is it tried")
					time.Sleep(time.Until(w.row.due)) //nolint:forbidigo // fake clock
					require.Equal(t, ChannelPending, w.row.Email, "it answered, or was never reached: nothing is in doubt")
				}
				require.Empty(t, w.buried)
				w.serve()
				require.True(t, w.work().AtRest)
				require.Len(t, w.messages, 2, "the messages are sent after all")
				require.Equal(t, 1, w.generated)
			})
		})
	}
}

func TestTheLedgerIsAway(t *testing.T) {
	t.Parallel()
	// At each write in turn.
	for i, op := range []string{"claim", "generating", "registering", "notifying", "notified"} {
		for _, resend := range []bool{true, false} {
			t.Run(op+map[bool]string{true: "", false: ", skip in doubt"}[resend], func(t *testing.T) {
				inWorld(t, func(w *world) {
					w.worker.ResendInDoubt = resend
					away := true
					w.store.fails = func(o string) error {
						if away && o == op {
							return errors.New("away")
						}
						return nil
					}
					require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.work())
					require.Empty(t, w.buried)
					away = false
					require.True(t, w.again().AtRest)
					require.Equal(t, Notified, w.row.State)
					require.Equal(t, 1, w.generated, "write %d: what was made was stored with the release", i)
					require.Len(t, w.registrations, 1)
					require.Len(t, w.messages, 2, "nobody misses a message that was never sent")
					require.Equal(t, []string{"generated:1", "registered:1"}, w.row.history[:2])
				})
			})
		}
	}
}

// A write whose answer was lost has happened; the call behind it has not.
func TestTheAnswerOfAWriteIsLost(t *testing.T) {
	t.Parallel()
	for _, nth := range []int{1, 2} { // for the e-mail and for the SMS
		t.Run([]string{"", "e-mail", "SMS"}[nth], func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.worker.ResendInDoubt = false
				seen := 0
				w.store.loses = func(op string) error {
					if op == string(Notifying) {
						seen++
					}
					return errorOf(op == string(Notifying) && seen == nth)
				}
				require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.work())
				require.Equal(t, nth-1, w.row.Attempts, "what was not called is no attempt")
				require.True(t, w.again().AtRest)
				require.Len(t, w.messages, 2, "no message is in doubt that was never sent")
				require.Zero(t, w.lines.FilterMessageSnippet("in doubt").Len())
			})
		})
	}
}

func TestTheClaimIsLostMidWay(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*world, func()){
		"while generating": func(w *world, steal func()) {
			w.generate = func(context.Context, GenerateRequest) (Certificate, error) { steal(); return certificateNo(1), nil }
		},
		"while registering": func(w *world, steal func()) {
			w.register = func(context.Context, Registration) error { steal(); return nil }
		},
		"while announcing": func(w *world, steal func()) {
			w.sms = func(context.Context, Notification) error { steal(); return nil }
		},
		"and it failed": func(w *world, steal func()) {
			w.register = func(context.Context, Registration) error { steal(); return transient(ReasonOther) }
		},
	}
	for name, during := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				var before row
				var writes int
				during(w, func() {
					other := *w.row.claim
					other.Token = "somebody else's"
					w.row.claim = &other
					before, writes = *w.row, len(w.store.writes)
				})
				require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.work())
				require.Len(t, w.store.writes, writes, "nothing more is written")
				require.Equal(t, before, *w.row)
				require.Empty(t, w.buried)
				w.worker.Process = "process-2"
				require.Equal(t, Outcome{HoldFor: time.Second}, w.again(), "the claim of somebody else is live")
			})
		})
	}
}

func TestStopping(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		during func(*world, func())
		calls  string
		writes string
	}{
		"before it begins": {func(_ *world, stop func()) { stop() }, "", ""},
		"while generating": {func(w *world, stop func()) {
			generate := w.generate
			w.generate = func(ctx context.Context, r GenerateRequest) (Certificate, error) { stop(); return generate(ctx, r) }
		}, "call generate", "write generating, write generated+release"},
		"while registering": {func(w *world, stop func()) {
			register := w.register
			w.register = func(ctx context.Context, r Registration) error { stop(); return register(ctx, r) }
		}, "call generate, call register", "write generating, write registering, write registered+release"},
		"while sending the e-mail": {func(w *world, stop func()) {
			email := w.email
			w.email = func(ctx context.Context, n Notification) error { stop(); return email(ctx, n) }
		}, "call generate, call register, call email", "write generating, write registering, write notifying, write notifying+release"},
		"while sending the SMS": {func(w *world, stop func()) {
			sms := w.sms
			w.sms = func(ctx context.Context, n Notification) error { stop(); return sms(ctx, n) }
		}, "call generate, call register, call email, call sms", "write generating, write registering, write notifying, write notifying, write notified+rest"},
		"and the call broke off": {func(w *world, stop func()) {
			w.generate = func(ctx context.Context, _ GenerateRequest) (Certificate, error) {
				w.called("generate")
				stop()
				return Certificate{}, ctx.Err()
			}
		}, "call generate", "write generating, write release"},
		"while waiting for another try": {func(w *world, stop func()) {
			w.generate = func(context.Context, GenerateRequest) (Certificate, error) {
				w.called("generate")
				failure := transient(ReasonRateLimited)
				failure.RetryAfter = 5 * time.Second
				time.AfterFunc(2*time.Second, stop)
				return Certificate{}, failure
			}
		}, "call generate", "write generating, write release"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				ctx, stop := context.WithCancel(w.t.Context())
				defer stop()
				test.during(w, stop)
				event, begun := w.store.dispatch(w.row), time.Now()
				outcome := w.worker.Work(ctx, event, w.bury)
				done := w.row.State == Notified
				require.Equal(t, done, outcome.AtRest)
				pick := func(prefix string) string {
					return strings.Join(slices.DeleteFunc(slices.Clone(w.log), func(l string) bool { return !strings.HasPrefix(l, prefix) }), ", ")
				}
				require.Equal(t, test.calls, pick("call "), "no further step begins")
				require.Equal(t, test.writes, pick("write "))
				require.Less(t, time.Since(begun), 3*time.Second, "it does not wait")
				require.Nil(t, w.row.claim)
				require.Empty(t, w.buried)
				require.Zero(t, w.row.Rounds)
				require.Zero(t, w.lines.FilterLevelExact(1).Len(), "that we are stopping is no trouble")

				w.serve()
				require.True(t, w.again().AtRest)
				require.Equal(t, Notified, w.row.State)
				require.LessOrEqual(t, w.generated, 1, "what was finished is not done again")
				require.Len(t, w.registrations, 1)
				require.Len(t, w.messages, 2)
			})
		})
	}
}

func TestPanics(t *testing.T) {
	inWorld(t, func(w *world) {
		generate, panics := w.generate, 1
		w.generate = func(ctx context.Context, r GenerateRequest) (Certificate, error) {
			if panics--; panics >= 0 {
				panic("boom")
			}
			return generate(ctx, r)
		}
		require.True(t, w.work().AtRest)
		require.Equal(t, Notified, w.row.State, "the first is tried again")
		require.Equal(t, 1, w.tries(StepGenerate, Transient, ReasonPanic))
		require.Contains(t, w.lines.FilterMessage("a step panicked").All()[0].ContextMap(), "stack")
	})
	t.Run("twice", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.register = func(context.Context, Registration) error { panic("boom") }
			require.True(t, w.work().AtRest)
			require.Equal(t, Failed, w.row.State)
			require.Equal(t, ReasonPanic, w.buried[0].Reason)
			require.Equal(t, ClassPermanent, w.buried[0].Class)
			require.Equal(t, 2, w.buried[0].Attempts)
			require.NotContains(t, w.buried[0].Message, "boom", "it may hold anything")
			require.Equal(t, 1, w.deadLetters(StepRegister, ReasonPanic))
			require.Equal(t, 1, w.generated)
		})
	})
}

func TestCrashLoop(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		crashes, limit     int
		suspect, convicted bool
	}{
		"once":           {1, 3, false, false},
		"twice":          {2, 3, true, false},
		"three times":    {3, 3, false, true},
		"no limit":       {1000, 0, false, false},
		"a limit of one": {1, 1, false, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.worker.CrashLimit = test.limit
				event := w.store.dispatch(w.row)
				for i := range test.crashes { // each takes it and dies
					_, result, err := w.store.Claim(w.t.Context(), Claim{
						Issuance: event.Issuance, Number: event.Number, Token: strings.Repeat("x", i+1), Process: "dead",
					})
					require.NoError(t, err)
					require.Equal(t, Claimed, result)
				}
				if test.suspect {
					require.Equal(t, hold(holdAway), w.workEvent(event), "it comes again for the place of the one suspect")
				}
				require.True(t, w.workEvent(event).AtRest)
				if !test.convicted {
					require.Equal(t, Notified, w.row.State)
					return
				}
				require.Zero(t, w.generated)
				require.Equal(t, Failed, w.row.State)
				require.Equal(t, ClassPermanent, w.buried[0].Class)
				require.Equal(t, ReasonCrashLoop, w.buried[0].Reason)
				require.Equal(t, StepGenerate, w.buried[0].Step)
				require.Equal(t, 1, w.deadLetters(StepGenerate, ReasonCrashLoop))
			})
		})
	}
}

func TestNotifications(t *testing.T) {
	t.Parallel()
	noAddress := permanent(ReasonNoAddress)
	tests := map[string]struct {
		change     func(*world)
		reason     Reason
		email, sms ChannelState
		calls      int
	}{
		"both": {func(*world) {}, "", ChannelSent, ChannelSent, 2},
		"no template": {func(w *world) {
			w.course = func(context.Context, CourseID) (Course, error) {
				course := aCourse()
				course.Templates[1].Notify = nil
				return course, nil
			}
		}, ReasonNoTemplate, ChannelNone, ChannelNone, 0},
		"no address": {func(w *world) { w.email = func(context.Context, Notification) error { return noAddress } }, "", ChannelNone, ChannelSent, 1},
		"no phone": {func(w *world) {
			w.recipient = func(context.Context, LearnerID) (Recipient, error) { return Recipient{FirstName: "Asha"}, nil }
		}, "", ChannelSent, ChannelNone, 1},
		"neither": {func(w *world) {
			w.email = func(context.Context, Notification) error { return noAddress }
			w.recipient = func(context.Context, LearnerID) (Recipient, error) { return Recipient{FirstName: "Asha"}, nil }
		}, ReasonNoAddress, ChannelNone, ChannelNone, 0},
		"no address for either": {func(w *world) {
			w.email = func(context.Context, Notification) error { return noAddress }
			w.sms = w.email
		}, ReasonNoAddress, ChannelNone, ChannelNone, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				test.change(w)
				require.True(t, w.work().AtRest)
				require.Equal(t, Notified, w.row.State, "that there is nothing to send is no failure")
				require.Equal(t, test.reason, w.row.reason)
				require.Equal(t, test.email, w.row.Email)
				require.Equal(t, test.sms, w.row.SMS)
				require.Len(t, w.messages, test.calls)
				require.Equal(t, 1, w.events("issued"))
				require.Equal(t, []string{"generated:1", "registered:1"}, w.row.history[:2], "every step has its line")
			})
		})
	}
}

// The reason is the same when the ledger did not take the last write at first.
func TestTheReasonOutlivesAHold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.email = func(context.Context, Notification) error { return permanent(ReasonNoAddress) }
		w.sms = w.email
		away := true
		w.store.fails = func(op string) error {
			if away && op == string(Notified) {
				return errors.New("away")
			}
			return nil
		}
		require.False(t, w.work().AtRest)
		away = false
		require.True(t, w.again().AtRest)
		require.Equal(t, ReasonNoAddress, w.row.reason)
	})
}

func TestClaimResults(t *testing.T) {
	inWorld(t, func(w *world) {
		event := w.store.dispatch(w.row)
		w.row.claim = &Claim{Token: "other", Process: process, Until: time.Now().Add(time.Minute)}
		require.Equal(t, Outcome{HoldFor: time.Second}, w.workEvent(event), "busy")
		require.Empty(t, w.log)
		old := event
		old.Number--
		w.row.Number, event.Number = 9, 9
		old.Number = 8
		require.Equal(t, Outcome{AtRest: true}, w.workEvent(old), "superseded")
		require.Equal(t, 1, w.events("stale"))
		require.Empty(t, w.log)
		w.row.claim = nil
		w.store.fails = func(string) error { return errors.New("away") }
		require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.workEvent(event), "the ledger is away")
	})
}

func TestTheDeadlineOfAClaim(t *testing.T) {
	inWorld(t, func(w *world) {
		begun := time.Now()
		generate := w.generate
		w.generate = func(ctx context.Context, r GenerateRequest) (Certificate, error) {
			require.Equal(t, begun.Add(10*time.Second+80*time.Second+30*time.Second), w.row.claim.Until)
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, begun.Add(90*time.Second), deadline, "that of the step: one call's time is the client's business")
			return generate(ctx, r)
		}
		require.True(t, w.work().AtRest)
	})
}

func TestACallThatHangs(t *testing.T) {
	inWorld(t, func(w *world) {
		calls := 0
		w.generate = func(ctx context.Context, _ GenerateRequest) (Certificate, error) {
			calls++
			<-ctx.Done()
			return Certificate{}, ctx.Err()
		}
		begun := time.Now()
		require.True(t, w.work().AtRest)
		require.Equal(t, 90*time.Second, time.Since(begun))
		require.Equal(t, 1, calls, "no try starts 10 s after the step began")
		require.Equal(t, Retrying, w.row.State)
		require.Equal(t, ReasonTimeout, w.row.reason)
	})
}

func TestAdoption(t *testing.T) {
	t.Parallel()
	foreign := Event{MID: "LP.1.x", Learner: "u9", Batch: "batch-1", Course: "do_1", Certificate: "mERIT", ReIssue: true}
	foreign.Issuance = NewIssuanceID(foreign.Batch, foreign.Learner, foreign.Certificate)
	tests := map[string]struct {
		change  func(*world, *Event)
		wanted  []Wanted
		skipped []Skip
		held    bool
	}{
		"spelled otherwise": {
			change: func(*world, *Event) {},
			wanted: []Wanted{{
				ID: NewIssuanceID("batch-1", "u9", merit), Learner: "u9", Certificate: merit,
				CompletedOn: time.UnixMilli(1566372109689).UTC(),
			}},
		},
		"numbered, of an issuance that is not there": {
			change: func(_ *world, e *Event) { e.Number = 12 },
			wanted: []Wanted{{
				ID: NewIssuanceID("batch-1", "u9", merit), Learner: "u9", Certificate: merit,
				CompletedOn: time.UnixMilli(1566372109689).UTC(),
			}},
		},
		"a course without that template": {
			change: func(_ *world, e *Event) { e.Certificate = "Unheard of" },
			wanted: []Wanted{{
				ID: NewIssuanceID("batch-1", "u9", "Unheard of"), Learner: "u9", Certificate: "Unheard of",
				CompletedOn: time.UnixMilli(1566372109689).UTC(),
			}},
		},
		"an unknown course": {
			change: func(w *world, _ *Event) {
				w.course = func(context.Context, CourseID) (Course, error) { return Course{}, permanent(ReasonUnknownCourse) }
			},
			wanted: []Wanted{{
				ID: NewIssuanceID("batch-1", "u9", "mERIT"), Learner: "u9", Certificate: "mERIT",
				CompletedOn: time.UnixMilli(1566372109689).UTC(),
			}},
		},
		"not enrolled": {
			change: func(w *world, _ *Event) {
				w.enrolment = func(context.Context, BatchID, LearnerID) (Enrolment, bool, error) { return Enrolment{}, false, nil }
			},
			skipped: []Skip{{Learner: "u9", Certificate: merit, Reason: SkipNotEnrolled}},
		},
		"not completed": {
			change: func(w *world, _ *Event) {
				w.enrolment = func(context.Context, BatchID, LearnerID) (Enrolment, bool, error) {
					return Enrolment{Learner: "u9", Active: true, Status: 1}, true, nil
				}
			},
			skipped: []Skip{{Learner: "u9", Certificate: merit, Reason: SkipStatus}},
		},
		"the enrolment source is away": {
			change: func(w *world, _ *Event) {
				w.enrolment = func(context.Context, BatchID, LearnerID) (Enrolment, bool, error) {
					return Enrolment{}, false, ErrUnavailable
				}
			},
			held: true,
		},
		"the content service is away": {
			change: func(w *world, _ *Event) {
				w.course = func(context.Context, CourseID) (Course, error) { return Course{}, outage() }
			},
			held: true,
		},
		"the ledger is away": {
			change: func(w *world, _ *Event) { w.store.fails = func(op string) error { return errorOf(op == "adopt") } },
			held:   true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				event := foreign
				test.change(w, &event)
				outcome := w.workEvent(event)
				require.Empty(t, w.generated, "only numbered events are worked")
				require.Empty(t, w.buried)
				if test.held {
					require.Equal(t, Outcome{HoldFor: 2 * time.Second}, outcome)
					require.Empty(t, w.store.adopted)
					require.Zero(t, w.events("adopted"))
					return
				}
				require.Equal(t, Outcome{AtRest: true}, outcome)
				require.Equal(t, 1, w.events("adopted"))
				require.Len(t, w.store.adopted, 1)
				got := w.store.adopted[0]
				require.Empty(t, cmp.Diff(test.wanted, got.Page.Wanted))
				require.Empty(t, cmp.Diff(test.skipped, got.Page.Skipped))
				require.Equal(t, "LP.1.x", got.Page.Cause, "an event that comes twice is one re-issue")
				require.True(t, got.Job.Resolved)
				require.True(t, got.Job.ReIssue)
			})
		})
	}
}

func errorOf(fails bool) error {
	if fails {
		return errors.New("away")
	}
	return nil
}

func TestStandingJobs(t *testing.T) {
	t.Parallel()
	event := Event{Batch: "b", Course: "c", Certificate: "Merit", Learner: "u1"}
	same, other := event, event
	same.Learner, same.ReIssue, same.MID = "u2", true, "x"
	other.Certificate = "Completion"
	require.Equal(t, standingJob(event).ID, standingJob(same).ID)
	require.NotEqual(t, standingJob(event).ID, standingJob(other).ID)
	require.Equal(t, JobID("1c49fa5b-811e-5e08-acec-c22bf16f5053"), standingJob(event).ID, "for ever")
}

func TestPoison(t *testing.T) {
	cause := errors.New("not a certificate request: the record has no value")
	inWorld(t, func(w *world) {
		require.Equal(t, Outcome{AtRest: true}, w.worker.Poison(w.t.Context(), "requests-3-17", cause, w.bury))
		want := DeadLetter{
			ID: "requests-3-17", Class: ClassPoison, Step: StepDecode, Reason: ReasonDecode, Message: cause.Error(),
			FirstFailure: time.Now(), LastFailure: time.Now(),
		}
		require.Equal(t, []DeadLetter{want}, w.buried)
		want.Place = Place{Partition: 4, Offset: 44}
		require.Equal(t, []DeadLetter{want}, w.store.poison)
		require.Equal(t, 1, w.deadLetters(StepDecode, ReasonDecode))
		require.Equal(t, 1, w.tries(StepDecode, Permanent, ReasonDecode))
		require.Equal(t, 1, w.events("dead_lettered"))
	})
	t.Run("the topic is away", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.buryErr = errors.New("away")
			require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.worker.Poison(w.t.Context(), "requests-3-17", cause, w.bury))
			require.Empty(t, w.store.poison, "first the topic, then the index")
			require.Zero(t, w.deadLetters(StepDecode, ReasonDecode))
		})
	})
	t.Run("the ledger is away", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.store.fails = func(string) error { return errors.New("away") }
			require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.worker.Poison(w.t.Context(), "requests-3-17", cause, w.bury))
			require.Zero(t, w.events("dead_lettered"))
		})
	})
}

// One event at whose deaths two processes died is worked at a time, beside the
// others, so that a third death convicts the right one.
func TestOneSuspectAtATime(t *testing.T) {
	inWorld(t, func(w *world) {
		suspects := []*row{w.row, w.store.add("u2")}
		innocent := w.store.add("u3")
		for _, r := range suspects {
			r.Crashes = 2
		}
		generate := w.generate
		let := make(chan struct{})
		w.generate = func(ctx context.Context, r GenerateRequest) (Certificate, error) {
			if r.Recipient.ID != innocent.Learner {
				<-let
			}
			return generate(ctx, r)
		}
		events := []Event{w.store.dispatch(suspects[0]), w.store.dispatch(suspects[1])}
		for _, event := range events {
			require.Equal(t, hold(holdAway), w.workEvent(event), "what it is shows only by its claim")
		}
		first := make(chan Outcome)
		go func() { first <- w.workEvent(events[0]) }()
		synctest.Wait()
		second := events[1]
		require.Equal(t, hold(holdBusy), w.workEvent(second))
		require.Zero(t, suspects[1].Attempts)
		require.Nil(t, suspects[1].claim, "it would share the fate of the other")
		require.Equal(t, atRest, w.workEvent(w.store.dispatch(innocent)), "the others go on")
		close(let)
		require.Equal(t, atRest, <-first)
		require.Equal(t, atRest, w.workEvent(second))
		require.Equal(t, Notified, suspects[1].State)
	})
}

func TestPresence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []string
		store := processes{
			alive: func(ctx context.Context, p Process) error {
				told = append(told, fmt.Sprint("alive ", p.ID, " ", p.Allowed, " ", p.Finished))
				if len(told) == 2 {
					return errors.New("away") // is no reason to stop telling it
				}
				return nil
			},
			gone: func(ctx context.Context, id string) error {
				require.NoError(t, ctx.Err(), "goodbye is said after the end")
				told = append(told, "gone "+id)
				return nil
			},
		}
		rested := int64(100)
		w := &Presence{
			Store: store, Process: Process{ID: "p", Capacity: 8}, Every: 5 * time.Second, Log: nopLog(),
			Allowed: func() int { return 1000 }, Rested: func() int64 { rested += 50; return rested },
		}
		require.NoError(t, w.Announce(t.Context()))
		ctx, stop := context.WithTimeout(t.Context(), 17*time.Second)
		defer stop()
		require.NoError(t, w.Run(ctx))
		require.Equal(t, []string{
			"alive p 8 0", "alive p 8 50", "alive p 8 50", "alive p 8 50", "gone p",
		}, told, "its limiters let through no more than it works, and 50 events rested in each five seconds")
	})
}

// A program starts telling that it lives while its first word is under way.
func TestPresenceMayBeToldTwiceAtOnce(t *testing.T) {
	t.Parallel()
	store := processes{alive: func(context.Context, Process) error { return nil }}
	p := &Presence{
		Store: store, Process: Process{ID: "p", Capacity: 8}, Log: nopLog(),
		Allowed: func() int { return 1 }, Rested: func() int64 { return 1 },
	}
	var told sync.WaitGroup
	for range 2 {
		told.Go(func() { assert.NoError(t, p.Announce(t.Context())) })
	}
	told.Wait()
}

type processes struct {
	alive func(context.Context, Process) error
	gone  func(context.Context, string) error
}

func (p processes) Alive(ctx context.Context, process Process) error { return p.alive(ctx, process) }
func (p processes) Gone(ctx context.Context, id string) error        { return p.gone(ctx, id) }

func TestMetricsStartAtZero(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	NewWorkMetrics(registry)
	NewDispatchMetrics(registry)
	for name, want := range map[string]int{
		"ecreds_events_total":          6,
		"ecreds_published_total":       3,
		"ecreds_step_duration_seconds": 5,
		"ecreds_dead_letters_total":    5 * 19,
		"ecreds_step_attempts_total":   5 * (1 + 3*19),
	} {
		require.Equal(t, want, testutil.CollectAndCount(registry, name), name)
	}
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}
