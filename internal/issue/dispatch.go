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
	// recallEvery is how often the dispatcher looks for events that cannot come
	// any more.
	recallEvery = 15 * time.Second
	// aheadOfNobody is how many events wait in Kafka while no consumer lives.
	aheadOfNobody = 1000
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

// Ahead says how many events may be out at once: in Kafka, or being worked.
// 0 = no limit.
type Ahead struct {
	InAll  int // shared by the jobs that have something due, at least 1 each
	PerJob int
}

// Pace is what the living consumers do, together.
type Pace struct {
	Consumers int
	Allowed   int // calls of a step that their limiters let through at once, now
	Finished  int // events in the last five seconds
}

// ahead is how far it pays to be ahead of them: what they work now and as much
// again, or what they finish until they are looked at again.
func (p Pace) ahead() int {
	if p.Consumers == 0 {
		return aheadOfNobody
	}
	return max(2*p.Allowed, p.Finished, 1)
}

// Reach is the part of a partition whose records may still come to a consumer:
// those from From on and before To.
type Reach struct {
	Partition int
	From, To  int64
}

type (
	// RequestLog tells which records of the request topic may still come, for
	// every partition that there is.
	RequestLog interface {
		Reaches(ctx context.Context) ([]Reach, error)
	}

	// Publisher writes events to the request topic, acknowledged by all
	// replicas. It returns one receipt for each event, in their order.
	Publisher interface {
		Publish(ctx context.Context, events []Event) []Receipt
	}

	// DispatchStore says what is due and keeps what was dispatched.
	DispatchStore interface {
		// TakeDue turns up to limit due issuances out, jobs in turn, each with
		// its next number.
		TakeDue(ctx context.Context, ahead Ahead, limit int) ([]Event, error)
		// Dispatched stores the places of events that were acknowledged and turns
		// in those that certainly failed; both only while the number is unchanged.
		Dispatched(ctx context.Context, published []Published) error
		// Recall turns in what was taken before a time, has no live claim, and
		// cannot come any more: it was never acknowledged, or its record stands
		// where nothing reaches. Nil reaches say nothing about places.
		Recall(ctx context.Context, takenBefore time.Time, reaches []Reach) (int, error)
		// Pace adds up what the living consumers last told.
		Pace(ctx context.Context) (Pace, error)
	}
)

// DispatcherConfig holds what a dispatcher works with and by.
type DispatcherConfig struct {
	Store     DispatchStore
	Publisher Publisher
	Log       RequestLog
	PerJob    int // events of one job in Kafka at once; 0 = everything due
	Metrics   *DispatchMetrics
	Logger    *zap.Logger
}

// Dispatcher publishes an event for each issuance that is due: a transactional
// outbox. Dying between taking and acknowledging leaves issuances that are out
// without a place; recalling brings them back, and what Kafka has lost.
type Dispatcher struct {
	DispatcherConfig
	wake chan struct{}
}

// NewDispatcher makes a dispatcher.
func NewDispatcher(config DispatcherConfig) *Dispatcher {
	return &Dispatcher{DispatcherConfig: config, wake: make(chan struct{}, 1)}
}

// Wake makes Run look for due issuances at once.
func (d *Dispatcher) Wake() { poke(d.wake) }

// Run works until ctx ends; it returns nil then.
func (d *Dispatcher) Run(ctx context.Context) error {
	var recalled time.Time
	for ctx.Err() == nil {
		if time.Since(recalled) >= recallEvery {
			d.recall(ctx)
			recalled = time.Now()
		}
		n, err := d.dispatch(ctx)
		if err != nil && ctx.Err() == nil {
			d.Logger.Warn("cannot dispatch; trying again", zap.Error(err))
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
	ahead, err := d.ahead(ctx)
	if err != nil {
		return 0, err
	}
	events, err := d.Store.TakeDue(ctx, ahead, dispatchChunk)
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
		d.Logger.Warn("events were not acknowledged by Kafka; they are published again",
			zap.Int("events", failed), zap.Int("of", len(published)), zap.Error(first))
	}
}

// ahead follows the consumers' pace, so that a small job never waits behind all
// of a large one, and pausing acts at once.
func (d *Dispatcher) ahead(ctx context.Context) (Ahead, error) {
	if d.PerJob == 0 {
		return Ahead{}, nil
	}
	pace, err := d.Store.Pace(ctx)
	return Ahead{InAll: pace.ahead(), PerJob: d.PerJob}, err
}

// recall turns in what cannot come any more. Where records stand is read before
// the rows: a row that is placed later is younger than what is recalled.
func (d *Dispatcher) recall(ctx context.Context) {
	before := time.Now().Add(-unacknowledgedAfter)
	reaches, err := d.Log.Reaches(ctx)
	if err != nil && ctx.Err() == nil {
		d.Logger.Warn("cannot tell which records may still come; asking again", zap.Error(err))
		reaches = nil
	}
	n, err := d.Store.Recall(ctx, before, reaches)
	switch {
	case err != nil && ctx.Err() == nil:
		d.Logger.Warn("cannot recall events that will not come", zap.Error(err))
	case n > 0:
		d.Logger.Info("recalled events that will not come", zap.Int("events", n))
	}
}
