package issue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// takes has a place come after a wait, and notes when it is taken and given
// back.
func (w *world) takes(wait time.Duration) {
	w.place = func(ctx context.Context, step Step) (context.Context, func(), error) {
		w.called("place of " + string(step))
		time.Sleep(wait) //nolint:forbidigo // fake clock
		return ctx, func() { w.called("done") }, nil
	}
}

func TestFirstThePlaceThenTheWriteThenTheCall(t *testing.T) {
	inWorld(t, func(w *world) {
		w.takes(0)
		recipient := w.recipient
		w.recipient = func(ctx context.Context, id LearnerID) (Recipient, error) {
			w.called("look up")
			return recipient(ctx, id)
		}
		require.True(t, w.work().AtRest)
		require.Equal(t, []string{
			"call look up", "call place of generate", "write generating", "call generate", "call done",
			"call place of register", "write registering", "call register", "call done",
		}, w.log[:9])
	})
}

func TestThePlaceReachesTheCall(t *testing.T) {
	type key struct{}
	inWorld(t, func(w *world) {
		w.place = func(ctx context.Context, step Step) (context.Context, func(), error) {
			return context.WithValue(ctx, key{}, step), func() {}, nil
		}
		generate, found := w.generate, Step("")
		w.generate = func(ctx context.Context, r GenerateRequest) (Certificate, error) {
			found, _ = ctx.Value(key{}).(Step)
			return generate(ctx, r)
		}
		require.True(t, w.work().AtRest)
		require.Equal(t, StepGenerate, found)
	})
}

func TestNoPlaceInTime(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		step Step
		none *NoPlaceError
		hold time.Duration
	}{
		"generate":     {StepGenerate, &NoPlaceError{Service: "cert-service"}, time.Second},
		"register":     {StepRegister, &NoPlaceError{Service: "learner-service"}, time.Second},
		"notify":       {StepNotify, &NoPlaceError{Service: "notifier"}, time.Second},
		"asks a pause": {StepNotify, &NoPlaceError{Service: "notifier", RetryAfter: 20 * time.Second}, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.place = func(ctx context.Context, step Step) (context.Context, func(), error) {
					if step == test.step {
						return ctx, func() {}, test.none
					}
					return ctx, func() {}, nil
				}
				event := w.store.dispatch(w.row)
				for range 10 {
					require.Equal(t, Outcome{HoldFor: test.hold}, w.workEvent(event))
					require.Nil(t, w.row.claim, "who waits for its turn has no claim")
					require.Empty(t, w.row.reason, "nothing is wrong")
					require.Zero(t, w.row.FirstFailure)
					require.Zero(t, w.row.Rounds)
				}
				require.Zero(t, w.tries(test.step, Transient, ReasonOther))
				require.Zero(t, w.lines.FilterMessage("an event is on hold").Len())
				w.serve()
				require.True(t, w.workEvent(event).AtRest)
				require.Equal(t, Notified, w.row.State)
				require.Equal(t, 1, w.generated, "what was made is kept")
				require.Contains(t, w.row.history, "registered:1", "waiting spends no attempts")
			})
		})
	}
	t.Run("for a lookup", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.recipient = func(context.Context, LearnerID) (Recipient, error) {
				return Recipient{}, &NoPlaceError{Service: "learner-service"}
			}
			require.Equal(t, Outcome{HoldFor: time.Second}, w.work())
			require.Zero(t, w.row.Attempts)
			require.Nil(t, w.row.claim)
		})
	})
}

func TestRefusedBecauseOfAnOutage(t *testing.T) {
	inWorld(t, func(w *world) {
		away := outage()
		away.HTTPStatus, away.Unsent = 0, true
		w.place = func(ctx context.Context, step Step) (context.Context, func(), error) {
			if step == StepRegister {
				return ctx, func() {}, away
			}
			return ctx, func() {}, nil
		}
		event := w.store.dispatch(w.row)
		for range 20 {
			require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.workEvent(event))
			require.Zero(t, w.row.Attempts)
		}
		require.Equal(t, ReasonUnavailable, w.row.reason, "people see what it waits for")
		require.Empty(t, w.buried)
		require.NotContains(t, w.log, "write registering", "an attempt that is not made is not recorded")
		w.serve()
		require.True(t, w.workEvent(event).AtRest)
		require.Equal(t, 1, w.generated)
	})
}

// The time of a step begins with its first place, and its claim outlives it.
func TestWaitingForAPlaceCostsNoTime(t *testing.T) {
	inWorld(t, func(w *world) {
		const wait = 5 * time.Second
		w.takes(wait)
		begun, calls, generate := time.Now(), 0, w.generate
		w.generate = func(ctx context.Context, r GenerateRequest) (Certificate, error) {
			require.True(t, w.row.claim.Until.After(time.Now().Add(w.worker.CallTimeout[StepGenerate]+claimGrace-time.Second)),
				"the claim outlives the call")
			deadline, _ := ctx.Deadline()
			require.Equal(t, begun.Add(wait+stepPatience+w.worker.CallTimeout[StepGenerate]), deadline)
			if calls++; calls == 1 {
				failure := transient(ReasonOther)
				failure.RetryAfter = 3 * time.Second
				return Certificate{}, failure
			}
			return generate(ctx, r)
		}
		require.True(t, w.work().AtRest)
		require.Equal(t, 2, calls, "there was time for another try")
	})
}

func TestAPlaceIsGivenBackWhenTheLedgerIsAway(t *testing.T) {
	inWorld(t, func(w *world) {
		w.takes(0)
		w.store.fails = func(op string) error { return errorOf(op == string(Generating)) }
		require.Equal(t, Outcome{HoldFor: 2 * time.Second}, w.work())
		require.Contains(t, w.log, "call done")
		require.Zero(t, w.generated)
	})
}

func TestStoppedWhileItWaitsForAPlace(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, cancel := context.WithCancel(w.t.Context())
		w.place = func(ctx context.Context, _ Step) (context.Context, func(), error) {
			cancel()
			return ctx, func() {}, ctx.Err()
		}
		require.False(t, w.worker.Work(ctx, w.store.dispatch(w.row), w.bury).AtRest)
		require.Nil(t, w.row.claim)
		require.Zero(t, w.row.Attempts)
	})
}

func TestNoPlaceErrorSaysWhy(t *testing.T) {
	t.Parallel()
	require.EqualError(t, &NoPlaceError{Service: "notifier"}, "no place at notifier became free in time")
	require.EqualError(t, errors.Join(&NoPlaceError{Service: "notifier", RetryAfter: 1500 * time.Millisecond}),
		"notifier asked for a pause, of which 1.5s are left")
}
