package issue

import (
	"context"
	"time"

	"go.uber.org/zap"
)

const (
	// dispatchChunk is how many events are taken from the ledger and given to
	// Kafka in one go.
	dispatchChunk = 1000
	// dispatchPause is how often the dispatcher looks for what has become due
	// without anybody waking it: retries, and room made by consumers.
	dispatchPause = 250 * time.Millisecond
	// unacknowledgedAfter is when an event whose fate Kafka never told is
	// published again. Its old number makes a late twin harmless.
	unacknowledgedAfter = 60 * time.Second
)

// PublishOutcome is what became of one published event.
type PublishOutcome string

// Unknown is not a failure: a write whose answer was lost may have happened.
const (
	PublishOK      PublishOutcome = "ok"
	PublishFailed  PublishOutcome = "failed"
	PublishUnknown PublishOutcome = "unknown"
)

// PublishOutcomes lists every outcome, for metrics that start at zero.
func PublishOutcomes() []PublishOutcome {
	return []PublishOutcome{PublishOK, PublishFailed, PublishUnknown}
}

// Receipt tells what became of one event given to a Publisher.
type Receipt struct {
	Outcome PublishOutcome
	Place   Place // where it stands, when Outcome is PublishOK
	Err     error
}

// Published is an event with its receipt.
type Published struct {
	Event   Event
	Receipt Receipt
}

type (
	// Publisher writes events to the request topic, acknowledged by all
	// replicas. It returns one receipt for each event, in their order.
	Publisher interface {
		Publish(ctx context.Context, events []Event) []Receipt
	}

	// DispatchStore says what is due and keeps what was dispatched.
	DispatchStore interface {
		// TakeDue turns up to limit due issuances out, jobs in turn, each with
		// its next number, leaving no job with more than ahead events out
		// (0 = no limit).
		TakeDue(ctx context.Context, ahead, limit int) ([]Event, error)
		// Dispatched stores the places of events that were acknowledged and turns
		// in those that certainly failed; both only while the number is unchanged.
		Dispatched(ctx context.Context, published []Published) error
		// Recall turns in what was taken before a time and never acknowledged.
		Recall(ctx context.Context, takenBefore time.Time) (int, error)
	}
)

// Dispatcher publishes an event for each issuance that is due: a transactional
// outbox. Dying between taking and acknowledging leaves issuances that are out
// without a place; Recall brings them back.
type Dispatcher struct {
	Store     DispatchStore
	Publisher Publisher
	Ahead     int // events of one job in Kafka at once; 0 = no limit
	Metrics   *DispatchMetrics
	Log       *zap.Logger

	wake chan struct{}
}

// NewDispatcher makes a dispatcher; its fields may be set until Run is called.
func NewDispatcher(store DispatchStore, publisher Publisher, ahead int, metrics *DispatchMetrics, log *zap.Logger) *Dispatcher {
	return &Dispatcher{
		Store: store, Publisher: publisher, Ahead: ahead, Metrics: metrics, Log: log, wake: make(chan struct{}, 1),
	}
}

// Wake makes Run look for due issuances at once.
func (d *Dispatcher) Wake() { poke(d.wake) }

// Run works until ctx ends; it returns nil then.
func (d *Dispatcher) Run(ctx context.Context) error {
	var recalled time.Time
	for ctx.Err() == nil {
		if time.Since(recalled) >= unacknowledgedAfter/4 {
			d.recall(ctx)
			recalled = time.Now()
		}
		n, err := d.dispatch(ctx)
		if err != nil && ctx.Err() == nil {
			d.Log.Warn("cannot dispatch; trying again", zap.Error(err))
		}
		if n < dispatchChunk || err != nil {
			pause(ctx, d.wake, dispatchPause)
		}
	}
	return nil
}

// dispatch publishes one chunk and returns how many events it took. What was
// published is stored even when ctx ends meanwhile: otherwise those events
// would wait for Recall.
func (d *Dispatcher) dispatch(ctx context.Context) (int, error) {
	events, err := d.Store.TakeDue(ctx, d.Ahead, dispatchChunk)
	if err != nil || len(events) == 0 {
		return 0, err
	}
	for i := range events {
		events[i].MID = NewMID(time.Now())
	}
	published := make([]Published, len(events))
	for i, receipt := range d.Publisher.Publish(ctx, events) {
		published[i] = Published{Event: events[i], Receipt: receipt}
		d.Metrics.published(receipt.Outcome)
	}
	d.warnOfFailure(published)
	return len(events), d.Store.Dispatched(context.WithoutCancel(ctx), published)
}

// warnOfFailure writes one line for a chunk, however many of its events failed.
func (d *Dispatcher) warnOfFailure(published []Published) {
	failed, first := 0, error(nil)
	for _, p := range published {
		if p.Receipt.Outcome != PublishOK {
			failed++
			first = p.Receipt.Err
		}
	}
	if failed > 0 {
		d.Log.Warn("events were not acknowledged by Kafka; they are published again",
			zap.Int("events", failed), zap.Int("of", len(published)), zap.Error(first))
	}
}

func (d *Dispatcher) recall(ctx context.Context) {
	n, err := d.Store.Recall(ctx, time.Now().Add(-unacknowledgedAfter))
	switch {
	case err != nil && ctx.Err() == nil:
		d.Log.Warn("cannot recall unacknowledged events", zap.Error(err))
	case n > 0:
		d.Log.Info("recalled events that Kafka never acknowledged", zap.Int("events", n))
	}
}
