package issue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// outbox is a ledger with so many events due, and a Kafka that answers as told.
type outbox struct {
	mu         sync.Mutex
	due        int
	next       int64
	takes      []time.Duration // when TakeDue was called, since the start
	ahead      []Ahead
	pace       Pace
	reaches    []Reach
	reachErr   error
	recalled   [][]Reach
	dispatched []Published
	recalls    []time.Duration
	before     []time.Duration // how old an event must be to be recalled
	outcome    func(n int64) Receipt
	takeErr    error
	storeErr   error
	begun      time.Time
}

func newOutbox(due int) *outbox {
	return &outbox{due: due, begun: time.Now(), outcome: func(n int64) Receipt {
		return Receipt{Outcome: PublishOK, Place: Place{Partition: 1, Offset: n}}
	}}
}

func (o *outbox) TakeDue(_ context.Context, ahead Ahead, limit int) ([]Event, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.takes, o.ahead = append(o.takes, time.Since(o.begun)), append(o.ahead, ahead)
	if o.takeErr != nil {
		return nil, o.takeErr
	}
	n := min(o.due, limit)
	o.due -= n
	events := make([]Event, n)
	for i := range events {
		o.next++
		events[i] = Event{Issuance: IssuanceID(fmt.Sprint(o.next)), Number: o.next}
	}
	return events, nil
}

func (o *outbox) Dispatched(ctx context.Context, published []Published) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	o.dispatched = append(o.dispatched, published...)
	return o.storeErr
}

func (o *outbox) Pace(context.Context) (Pace, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pace, o.takeErr
}

func (o *outbox) Reaches(context.Context) ([]Reach, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reaches, o.reachErr
}

func (o *outbox) Recall(_ context.Context, before time.Time, reaches []Reach) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.recalled = append(o.recalled, reaches)
	o.recalls, o.before = append(o.recalls, time.Since(o.begun)), append(o.before, time.Since(before))
	return 0, errorOf(len(o.recalls) == 2)
}

func (o *outbox) Publish(_ context.Context, events []Event) []Receipt {
	receipts := make([]Receipt, len(events))
	for i, event := range events {
		receipts[i] = o.outcome(event.Number)
	}
	return receipts
}

// with reads or changes what the dispatcher sees.
func (o *outbox) with(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

func (o *outbox) run(t *testing.T, ahead int, test func(d *Dispatcher, stop func())) *Dispatcher {
	t.Helper()
	d := NewDispatcher(DispatcherConfig{
		Store: o, Publisher: o, Log: o, PerJob: ahead, Metrics: NewDispatchMetrics(prometheus.NewRegistry()), Logger: nopLog(),
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	synctest.Wait()
	test(d, stop)
	stop()
	require.NoError(t, <-ended)
	return d
}

func TestDispatchReceipts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(5)
		refused := errors.New("refused")
		o.outcome = func(n int64) Receipt {
			switch n {
			case 2:
				return Receipt{Outcome: PublishFailed, Err: refused}
			case 4:
				return Receipt{Outcome: PublishUnknown, Err: refused}
			default:
				return Receipt{Outcome: PublishOK, Place: Place{Partition: 1, Offset: n}}
			}
		}
		d := o.run(t, 77, func(*Dispatcher, func()) {})
		require.Equal(t, Ahead{InAll: aheadOfNobody, PerJob: 77}, o.ahead[0])
		require.Len(t, o.dispatched, 5)
		mids := map[string]bool{}
		for i, p := range o.dispatched {
			require.EqualValues(t, i+1, p.Event.Number)
			require.Equal(t, o.outcome(p.Event.Number), p.Receipt, "each event has its own receipt")
			mids[p.Event.MID] = true
		}
		require.Len(t, mids, 5, "each event has its own id")
		require.NotContains(t, mids, "")
		for outcome, want := range map[PublishOutcome]float64{PublishOK: 3, PublishFailed: 1, PublishUnknown: 1} {
			require.InDelta(t, want, testutil.ToFloat64(d.Metrics.publishedTotal.WithLabelValues(string(outcome))), 0)
		}
	})
}

func TestDispatchPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(2500)
		o.run(t, 0, func(d *Dispatcher, _ func()) {
			o.with(func() {
				require.Equal(t, []time.Duration{0, 0, 0}, o.takes, "full chunks follow each other without a pause")
			})
			time.Sleep(dispatchPause) //nolint:forbidigo // fake clock
			synctest.Wait()
			o.with(func() { require.Len(t, o.takes, 4, "then it looks from time to time") })
			o.with(func() { o.due = 3 })
			d.Wake()
			synctest.Wait()
			o.with(func() { require.Len(t, o.dispatched, 2503, "or when it is woken") })
		})
	})
}

func TestDispatchGoesOnAfterErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(2000)
		o.takeErr = ErrUnavailable
		o.run(t, 0, func(*Dispatcher, func()) {
			o.with(func() {
				require.Len(t, o.takes, 1, "no spinning")
				o.takeErr, o.storeErr = nil, ErrUnavailable
			})
			time.Sleep(dispatchPause) //nolint:forbidigo // fake clock
			synctest.Wait()
			o.with(func() {
				require.Len(t, o.takes, 2, "nor when receipts cannot be stored")
				o.storeErr = nil
			})
			time.Sleep(dispatchPause) //nolint:forbidigo // fake clock
			synctest.Wait()
			o.with(func() { require.Len(t, o.dispatched, 2000) })
		})
	})
}

func TestReceiptsAreStoredAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(0)
		o.run(t, 0, func(d *Dispatcher, stop func()) {
			o.with(func() {
				o.due = 3
				o.outcome = func(n int64) Receipt {
					stop() // while Kafka has them
					return Receipt{Outcome: PublishOK, Place: Place{Offset: n}}
				}
			})
			d.Wake()
			synctest.Wait()
			o.with(func() { require.Len(t, o.dispatched, 3) })
		})
	})
}

func TestDispatchKeepsToTheConsumersPace(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pace Pace
		want int
	}{
		"nobody lives":         {Pace{}, aheadOfNobody},
		"what they work twice": {Pace{Consumers: 2, Allowed: 300, Finished: 100}, 600},
		"what they finish":     {Pace{Consumers: 2, Allowed: 300, Finished: 9000}, 9000},
		"all limits are down":  {Pace{Consumers: 1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := newOutbox(1)
				o.pace = tt.pace
				o.run(t, 500, func(*Dispatcher, func()) {})
				require.Equal(t, Ahead{InAll: tt.want, PerJob: 500}, o.ahead[0])
				o = newOutbox(1)
				o.pace = tt.pace
				o.run(t, 0, func(*Dispatcher, func()) {})
				require.Equal(t, Ahead{}, o.ahead[0], "everything at once was asked for")
			})
		})
	}
}

func TestRecallKnowsWhatMayStillCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(0)
		o.reaches = []Reach{{Partition: 1, From: 5, To: 9}}
		o.run(t, 0, func(*Dispatcher, func()) {
			o.with(func() { o.reachErr = errors.New("no broker") })
			time.Sleep(recallEvery) //nolint:forbidigo // fake clock
			synctest.Wait()
		})
		require.Equal(t, o.reaches, o.recalled[0])
		require.Nil(t, o.recalled[1], "without knowing, no record is taken for lost")
	})
}

func TestRecall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(0)
		o.run(t, 0, func(*Dispatcher, func()) {
			time.Sleep(65 * time.Second) //nolint:forbidigo // fake clock
			synctest.Wait()
		})
		require.GreaterOrEqual(t, len(o.recalls), 5, "at the start and again and again, errors or not")
		require.Zero(t, o.recalls[0])
		for _, age := range o.before {
			require.Equal(t, time.Minute, age, "never sooner than Kafka may still tell")
		}
	})
}
