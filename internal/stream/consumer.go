package stream

import (
	"context"
	"errors"
	"fmt"
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
}

const (
	heartbeatInterval = time.Second
	rebalanceTimeout  = 60 * time.Second
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

	gate     *gate           // open while a generation is in force
	fetching context.Context // ends when the program stops
	working  context.Context // ends when the time for draining is over
	slots    chan struct{}   // places of Concurrency
	lanes    sync.WaitGroup

	mu         sync.Mutex
	partitions map[int]*partition
	generation *kafka.Generation // the last one that was in force
}

// NewConsumer prepares a consumer; Run starts it.
func NewConsumer(conn *Connection, config Config) *Consumer {
	return &Consumer{
		Config: config, conn: conn, gate: newGate(), slots: make(chan struct{}, config.Concurrency),
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

	group, err := c.newGroup()
	if err != nil {
		return fmt.Errorf("join group %s: %w", c.Group, c.conn.explain(err))
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		c.generations(membership, group)
	}()

	<-ctx.Done()
	c.drain(stopWorking)
	c.commit(membership, c.current())
	leave()
	c.closeGroup(group)
	<-left
	c.assign(nil, nil)
	return nil
}

func (c *Consumer) newGroup() (*kafka.ConsumerGroup, error) {
	return kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: c.Group, Brokers: c.conn.brokers, Dialer: c.conn.dialer, Topics: []string{c.Topic},
		HeartbeatInterval: heartbeatInterval, SessionTimeout: c.SessionTimeout, RebalanceTimeout: rebalanceTimeout,
		JoinGroupBackoff: joinBackoff, WatchPartitionChanges: true, StartOffset: kafka.FirstOffset,
		ErrorLogger: kafka.LoggerFunc(c.kafkaTrouble),
	})
}

// generations takes part in the group until ctx ends.
func (c *Consumer) generations(ctx context.Context, group *kafka.ConsumerGroup) {
	for ctx.Err() == nil {
		generation, err := group.Next(ctx)
		switch {
		case err == nil:
			c.enter(ctx, generation)
		case ctx.Err() != nil, errors.Is(err, kafka.ErrGroupClosed):
			return
		default:
			c.Log.Warn("cannot join the group; trying again", zap.String("group", c.Group), zap.Error(err))
			c.forget(ctx)
		}
	}
}

// enter puts a generation in force: partitions that stay keep what they know,
// others go or come.
func (c *Consumer) enter(ctx context.Context, generation *kafka.Generation) {
	c.Metrics.rebalances.Inc()
	assigned := generation.Assignments[c.Topic]
	c.assign(generation, assigned)
	c.Log.Info("partitions assigned", zap.Int32("generation", generation.ID), zap.Int("partitions", len(assigned)))
	c.gate.set(true)
	generation.Start(func(ended context.Context) {
		c.commitLoop(ended, generation)
		c.gate.set(false)
		c.commit(ctx, generation)
	})
}

// assign makes the held partitions those of a generation. A partition stays
// only from one generation to the very next: otherwise somebody else may have
// worked it in between, and it starts anew from its committed offset.
func (c *Consumer) assign(generation *kafka.Generation, assigned []kafka.PartitionAssignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.generation != nil && generation != nil && generation.ID == c.generation.ID+1
	keep := map[int]*partition{}
	for _, a := range assigned {
		if p := c.partitions[a.ID]; p != nil && next {
			keep[a.ID] = p
			delete(c.partitions, a.ID)
		}
	}
	for _, p := range c.partitions {
		p.close()
	}
	c.partitions, c.generation = keep, generation
	for _, a := range assigned {
		if keep[a.ID] == nil {
			c.open(a)
		}
	}
	c.Metrics.assigned.Set(float64(len(c.partitions)))
}

// open starts a partition at its committed offset, or where there is none at
// its first record, which is then committed at once: an absent offset would
// mean a different place to whoever comes next.
func (c *Consumer) open(a kafka.PartitionAssignment) {
	committed := a.Offset
	if a.Offset < 0 {
		first, err := c.conn.firstOffset(c.fetching, c.Topic, a.ID)
		if err != nil {
			c.Log.Warn("cannot find the first record of a partition", zap.Int("partition", a.ID), zap.Error(err))
			return
		}
		a.Offset, committed = first, uncommitted
	}
	p, err := c.newPartition(a, committed)
	if err != nil {
		c.Log.Error("cannot open a partition", zap.Int("partition", a.ID), zap.Error(err))
		return
	}
	c.partitions[a.ID] = p
}

// forget leaves the group under the last member id. After a failed join the
// library has forgotten that id, and the old membership would block the next
// join until its session ends; so this goes on until it is acknowledged.
func (c *Consumer) forget(ctx context.Context) {
	generation := c.current()
	c.assign(nil, nil)
	for generation != nil && ctx.Err() == nil {
		response, err := c.conn.client.LeaveGroup(ctx, &kafka.LeaveGroupRequest{
			GroupID: generation.GroupID, Members: []kafka.LeaveGroupRequestMember{{ID: generation.MemberID}},
		})
		if err == nil && (response.Error == nil || errors.Is(response.Error, kafka.UnknownMemberId)) {
			return
		}
		sleep(ctx, joinBackoff)
	}
}

func (c *Consumer) held() []*partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.partitions))
}

func (c *Consumer) current() *kafka.Generation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// begin takes a place for an event; false = it is not to be begun any more.
func (c *Consumer) begin(p *partition) bool {
	select {
	case c.slots <- struct{}{}:
	case <-p.fetch.Done():
		return false
	}
	if p.isDropped() || c.fetching.Err() != nil {
		<-c.slots
		return false
	}
	c.Metrics.inFlight.Inc()
	return true
}

func (c *Consumer) end() {
	c.Metrics.inFlight.Dec()
	<-c.slots
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
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for _, p := range c.held() {
			<-p.done // no lane begins after that
		}
		c.lanes.Wait()
	}()
	select {
	case <-finished:
		return
	case <-time.After(c.DrainTimeout):
	}
	c.Log.Warn("work in flight was not finished in time; it is cancelled and comes again",
		zap.Duration("drain_timeout", c.DrainTimeout), zap.Int("events", len(c.slots)))
	cancelWork()
	select {
	case <-finished:
	case <-time.After(cancelTimeout):
		c.Log.Error("handlers did not return after their context ended", zap.Int("events", len(c.slots)))
	}
}

// closeGroup leaves the group. The library may hang in it, hence the deadline.
func (c *Consumer) closeGroup(group *kafka.ConsumerGroup) {
	closed := make(chan error, 1)
	go func() { closed <- group.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			c.Log.Warn("cannot leave the group properly", zap.Error(err))
		}
	case <-time.After(closeTimeout):
		c.Log.Warn("leaving the group took too long; its session will end by itself", zap.String("group", c.Group))
	}
}

// kafkaTrouble receives what the client library would otherwise keep silent.
func (c *Consumer) kafkaTrouble(format string, args ...any) {
	c.Log.Debug("kafka client: " + fmt.Sprintf(format, args...))
}
