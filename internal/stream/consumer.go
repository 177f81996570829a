package stream

import (
	"context"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

// Outcome is what a handler says of an event: at rest, or to be offered again
// after a while.
type Outcome struct {
	AtRest  bool
	HoldFor time.Duration
}

// Handler works one event. Its context ends only when the time for draining is
// over.
type Handler func(ctx context.Context, message kafka.Message) Outcome

// Config says what a consumer works and how.
type Config struct {
	Topic          string
	Group          string
	Concurrency    int           // events in flight in this process
	Window         int           // events of a partition between the oldest unfinished and the newest fetched
	SessionTimeout time.Duration // after which the group gives up a silent member
	DrainTimeout   time.Duration // for work in flight when the program stops
	Handle         Handler
	Metrics        *Metrics
	Log            *zap.Logger

	timing timing // zero = defaultTiming; tests have less patience
}

const (
	heartbeatInterval = time.Second
	joinBackoff       = 500 * time.Millisecond
	commitInterval    = time.Second
	commitTimeout     = 5 * time.Second
	// closeTimeout bounds leaving the group: the library may wait for a join in
	// progress, and a member that is gone is noticed by its session anyway.
	closeTimeout = 5 * time.Second
	// cancelTimeout is what handlers get to return once their context ended.
	cancelTimeout = 5 * time.Second
)

// Consumer is one member of a consumer group.
type Consumer struct {
	Config
	conn *Connection

	gate     *gate // open while a generation is in force
	pause    *pause
	fetching context.Context // ends when the program stops
	working  context.Context // ends when the time for draining is over
	slots    chan struct{}   // places of Concurrency
	work     sync.WaitGroup  // fetch loops and lanes
	ending   sync.WaitGroup  // readers and generations, which take a moment to end
	commits  sync.Mutex      // one commit at a time: none overtakes another

	mu         sync.Mutex
	partitions map[int]*partition
	generation *kafka.Generation // the last one that was in force
	memberID   string            // as the group last knew us
	heard      time.Time         // when the group last said something
	rejoin     func()            // gives up the membership, for another one; nil = there is none
	stopping   bool              // no partition is opened any more
}

// NewConsumer prepares a consumer; Run starts it.
func NewConsumer(conn *Connection, config Config) *Consumer {
	if config.timing == (timing{}) {
		config.timing = defaultTiming
	}
	return &Consumer{
		Config: config, conn: conn, gate: newGate(), pause: newPause(), slots: make(chan struct{}, config.Concurrency),
		partitions: map[int]*partition{},
	}
}

// Run works until ctx ends. Then it stops fetching, finishes what is in flight
// within DrainTimeout, commits, and leaves the group.
func (c *Consumer) Run(ctx context.Context) error {
	// Work and membership outlive ctx: that is what draining means.
	background := context.WithoutCancel(ctx)
	c.fetching = ctx
	working, stopWorking := context.WithCancel(background)
	defer stopWorking()
	c.working = working
	membership, leave := context.WithCancel(background)
	defer leave()

	var loops sync.WaitGroup
	defer loops.Wait()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	loops.Go(func() { c.probeLoop(watching) })
	loops.Go(func() { c.watchLoop(watching) })
	c.Metrics.show(c)
	left := make(chan error, 1)
	go func() { left <- c.belong(membership) }()

	select {
	case <-ctx.Done():
	case err := <-left:
		return err
	}
	c.drain(stopWorking)
	c.commit(membership, c.current())
	leave()
	err := <-left
	c.assign(nil, nil)
	if !within(closeTimeout, c.ending.Wait) {
		c.Log.Warn("readers took too long to close; they end with the program")
	}
	return err
}

// holding lists the partitions that are ours now.
func (c *Consumer) holding() []*partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.partitions))
}

// begin waits for the end of a pause, or for a turn as its probe, and takes a
// place; ok = false: the event is not to be begun any more.
func (c *Consumer) begin(p *partition, turn <-chan struct{}) (probe, ok bool) {
	for {
		if probe, ok = c.pause.admit(p.fetch, turn); !ok {
			return false, false
		}
		if !c.takePlace(p) {
			if probe {
				c.pause.probed()
			}
			return false, false
		}
		if probe || c.pause.running.isOpen() {
			c.Metrics.inFlight.Inc()
			return probe, true
		}
		<-c.slots // a pause began meanwhile
	}
}

// takePlace waits for a place of Concurrency, while the partition is ours.
func (c *Consumer) takePlace(p *partition) bool {
	select {
	case c.slots <- struct{}{}:
	case <-p.fetch.Done():
		return false
	}
	if p.fetch.Err() != nil {
		<-c.slots
		return false
	}
	return true
}

func (c *Consumer) end(probe bool) {
	c.Metrics.inFlight.Dec()
	<-c.slots
	if probe {
		c.pause.probed()
	}
}

// holdAfterPanic is how long an event waits whose handler panicked outside of
// its own recovery.
const holdAfterPanic = 5 * time.Second

// handle calls the handler. A panic must not take the other events with it.
func (c *Consumer) handle(message kafka.Message) (outcome Outcome) {
	defer func() {
		if p := recover(); p != nil {
			c.Log.Error("a handler panicked", zap.Int("partition", message.Partition),
				zap.Int64("offset", message.Offset), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			outcome = Outcome{HoldFor: holdAfterPanic}
		}
	}()
	return c.Handle(c.working, message)
}

// drain waits for work in flight. What is not finished in time is cancelled and
// comes again after the restart.
func (c *Consumer) drain(cancelWork context.CancelFunc) {
	c.mu.Lock()
	c.stopping = true // a rebalance meanwhile opens nothing that nobody waits for
	c.mu.Unlock()
	if within(c.DrainTimeout, c.work.Wait) {
		return
	}
	c.Log.Warn("work in flight was not finished in time; it is cancelled and comes again",
		zap.Duration("drain_timeout", c.DrainTimeout), zap.Int("events", len(c.slots)))
	cancelWork()
	if !within(cancelTimeout, c.work.Wait) {
		c.Log.Error("handlers did not return after their context ended", zap.Int("events", len(c.slots)))
	}
}

// within says whether f returned in time; otherwise it is left to itself.
func within(d time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// sleep waits; false = ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// await waits for a signal; false = ctx ended first.
func await(ctx context.Context, signal <-chan struct{}) bool {
	select {
	case <-signal:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
