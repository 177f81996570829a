package issue

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// failFor lets generate fail for everybody.
func (w *world) failFor(failure *Failure) {
	w.generate = func(context.Context, GenerateRequest) (Certificate, error) {
		w.called("generate")
		w.generated++
		return Certificate{}, failure
	}
}

// dispatchMore queues more learners and dispatches all of them.
func (w *world) dispatchMore(n int) []Event {
	events := []Event{w.store.dispatch(w.row)}
	for i := range n - 1 {
		events = append(events, w.store.dispatch(w.store.add(LearnerID(fmt.Sprint("more-", i)))))
	}
	return events
}

func (w *world) use() TemplateUse { return TemplateUse{Job: "job-1", Certificate: merit} }

// requireWaiting looks at a learner who waits for his template.
func (w *world) requireWaiting(e Event) {
	w.t.Helper()
	r := w.store.rows[e.Issuance]
	require.Equal(w.t, Retrying, r.State)
	require.Zero(w.t, r.Attempts, "it costs no attempts")
	require.Zero(w.t, r.Rounds, "and none of the times he may wait")
	require.Equal(w.t, TemplateProbeEvery, time.Until(r.due))
	require.False(w.t, r.out)
	require.NotEmpty(w.t, r.message)
}

func TestANewTemplateThatFailsForEverybody(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]*Failure{
		"refused": permanent(ReasonTemplate), "unknown key": permanent(ReasonSigningKey), "odd": transient(ReasonOther),
		"hangs": {Verdict: Transient, Reason: ReasonTimeout, Message: "no reply"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.proven(false)
				w.worker.StepAttempts = 1
				w.failFor(failure)
				events := w.dispatchMore(9)
				for i, e := range events {
					require.Equal(t, atRest, w.workEvent(e))
					w.requireWaiting(e)
					require.Equal(t, min(i+1, DoubtsInANew), w.generated, "no call is made once it is known to be broken")
				}
				require.Empty(t, w.buried, "no batch is dead-lettered for its template")
				require.Equal(t, 9, w.events(outcomeRetried))

				// A probe, dispatched later, is worked, and fails like the others.
				time.Sleep(TemplateProbeEvery) //nolint:forbidigo // fake clock
				synctest.Wait()
				probe := w.store.dispatch(w.store.rows[events[8].Issuance])
				require.Equal(t, atRest, w.workEvent(probe))
				w.requireWaiting(probe)
				require.Equal(t, DoubtsInANew+1, w.generated)

				// The template is mended: the next probe finds it out, and all go on.
				w.serve()
				time.Sleep(TemplateProbeEvery) //nolint:forbidigo // fake clock
				for _, e := range events {
					require.Equal(t, atRest, w.workEvent(w.store.dispatch(w.store.rows[e.Issuance])))
					require.Equal(t, Notified, w.store.rows[e.Issuance].State)
				}
				require.Equal(t, TemplateStanding{Proven: true}, w.store.fares[w.use()].TemplateStanding)
			})
		})
	}
}

// What is in Kafka when the template is mended was dispatched before it broke;
// it is worked as soon as this process has seen the template work.
func TestAMendedTemplateIsKnownAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.proven(false)
		w.failFor(permanent(ReasonTemplate))
		events := w.dispatchMore(DoubtsInANew + 2)
		for _, e := range events[:DoubtsInANew] {
			w.workEvent(e)
		}
		w.serve()
		time.Sleep(TemplateProbeEvery) //nolint:forbidigo // fake clock
		w.workEvent(w.store.dispatch(w.store.rows[events[0].Issuance]))
		require.Equal(t, atRest, w.workEvent(events[DoubtsInANew]))
		require.Equal(t, Notified, w.store.rows[events[DoubtsInANew].Issuance].State)
	})
}

func TestAProvenTemplate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.failFor(permanent(ReasonTemplate))
		events := w.dispatchMore(DoubtsInAProven + 1)
		for _, e := range events[:DoubtsInAProven-1] {
			w.workEvent(e)
			require.Equal(t, Failed, w.store.rows[e.Issuance].State, "a bad learner comes to rest as usual")
		}
		for _, e := range events[DoubtsInAProven-1:] {
			w.workEvent(e)
			w.requireWaiting(e)
		}
		require.Equal(t, DoubtsInAProven, w.generated)
		require.Len(t, w.buried, DoubtsInAProven-1)
	})
}

func TestASuccessEndsTheRowOfFailures(t *testing.T) {
	inWorld(t, func(w *world) {
		w.proven(false)
		for i, e := range w.dispatchMore(3 * DoubtsInANew) {
			w.serve()
			if i%DoubtsInANew != 0 {
				w.failFor(permanent(ReasonTemplate))
			}
			time.Sleep(praiseEvery) //nolint:forbidigo // fake clock
			w.workEvent(e)
		}
		require.True(t, w.store.fares[w.use()].BrokenAt.IsZero())
		require.Len(t, w.store.fares[w.use()].doubts, DoubtsInANew-1)
	})
}

// One learner who is tried again and again counts once.
func TestDifferentLearnersCount(t *testing.T) {
	inWorld(t, func(w *world) {
		w.proven(false)
		w.failFor(permanent(ReasonTemplate))
		for range 3 * DoubtsInANew {
			w.work()
		}
		require.True(t, w.store.fares[w.use()].BrokenAt.IsZero())
	})
}

func TestWhatDoesNotCountAgainstTheTemplate(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]*Failure{
		"the recipient's name": permanent(ReasonBadRequest), "the service is away": outage(), "too many calls": transient(ReasonRateLimited),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.proven(false)
				w.failFor(failure)
				w.work()
				require.Empty(t, w.store.fares[w.use()].doubts)
			})
		})
	}
	for name, fail := range map[string]func(w *world){
		"a lookup": func(w *world) {
			w.recipient = func(context.Context, LearnerID) (Recipient, error) { return Recipient{}, permanent(ReasonUnknownUser) }
		},
		"another step": func(w *world) {
			w.register = func(context.Context, Registration) error { return permanent(ReasonConflict) }
		},
		"a panic": func(w *world) {
			w.generate = func(context.Context, GenerateRequest) (Certificate, error) { panic("oops") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.proven(false)
				fail(w)
				w.work()
				require.Empty(t, w.store.fares[w.use()].doubts)
				require.Equal(t, Failed, w.row.State)
			})
		})
	}
}

func TestTheLedgerIsAwayWhenATemplateFails(t *testing.T) {
	inWorld(t, func(w *world) {
		w.failFor(permanent(ReasonTemplate))
		w.store.fails = func(op string) error {
			if op == "template" {
				return errors.New("disk full")
			}
			return nil
		}
		require.False(t, w.work().AtRest, "nothing is decided without it")
		require.Empty(t, w.buried)
		w.store.fails = nil
		require.Equal(t, atRest, w.again())
		require.Equal(t, Failed, w.row.State)
	})
}

func TestDispatchedAt(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1566372109689)
	require.Equal(t, at, dispatchedAt(NewMID(at)))
	for _, odd := range []string{"", "LP", "LP.x.y", "topic-3-17"} {
		require.True(t, dispatchedAt(odd).IsZero(), odd)
	}
}
