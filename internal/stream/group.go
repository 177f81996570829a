package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

func (c *Consumer) newGroup() (*kafka.ConsumerGroup, error) {
	return kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: c.Group, Brokers: c.conn.brokers, Dialer: c.conn.dialer, Topics: []string{c.Topic},
		HeartbeatInterval: heartbeatInterval, SessionTimeout: c.SessionTimeout, RebalanceTimeout: c.timing.rebalance,
		JoinGroupBackoff: joinBackoff, WatchPartitionChanges: true, StartOffset: kafka.FirstOffset,
		// The second is for a group in which somebody does not know the first.
		GroupBalancers: []kafka.GroupBalancer{sticky{topic: c.Topic, owned: c.claim}, kafka.RangeGroupBalancer{}},
		Logger:         kafka.LoggerFunc(c.groupNews),
		ErrorLogger:    kafka.LoggerFunc(c.kafkaTrouble),
	})
}

// groupNews learns the member id from what the library would log: when the
// joining fails later than that, it tells the id to nobody else.
func (c *Consumer) groupNews(format string, args ...any) {
	if !strings.HasPrefix(format, "Joined group") || len(args) < 2 {
		return
	}
	if id, ok := args[1].(string); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.memberID = id
	}
}

// belong takes part in the group until ctx ends, under one membership after
// another: the watch gives up one that hangs. Then it has left the group.
func (c *Consumer) belong(ctx context.Context) error {
	for ctx.Err() == nil {
		group, err := c.newGroup()
		if err != nil {
			return fmt.Errorf("join group %s: %w", c.Group, c.conn.explain(err))
		}
		membership, leave := context.WithCancel(ctx)
		c.mu.Lock()
		c.rejoin, c.heard = leave, time.Now()
		c.mu.Unlock()
		c.generations(membership, group)
		leave()
		if !c.closeGroup(context.WithoutCancel(ctx), group) {
			c.forget(ctx)
		}
	}
	return nil
}

// generations takes part in the group until ctx ends.
func (c *Consumer) generations(ctx context.Context, group *kafka.ConsumerGroup) {
	for ctx.Err() == nil {
		generation, err := group.Next(ctx)
		c.hear()
		switch {
		case err == nil:
			c.enter(ctx, generation)
		case ctx.Err() != nil, errors.Is(err, kafka.ErrGroupClosed):
			return
		case errors.Is(err, kafka.RebalanceInProgress):
			// The next rebalance overtook this one. The library goes on with the
			// same membership, which must not be left.
			c.Log.Info("joining the group again: it changed meanwhile", zap.String("group", c.Group))
		default:
			c.cannotJoin(err)
			c.forget(ctx)
			if errors.Is(err, ErrRefused) {
				sleep(ctx, refusedPause)
			}
		}
	}
}

// hear takes note that the group's own loop goes on.
func (c *Consumer) hear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = time.Now()
}

// refusedPause is the wait before credentials are tried again that were refused:
// trying often may lock them.
const refusedPause = 5 * time.Second

func (c *Consumer) cannotJoin(err error) {
	fields := []zap.Field{zap.String("group", c.Group), zap.Error(c.conn.explain(err))}
	if errors.Is(err, ErrRefused) {
		c.Log.Error("kafka refuses our credentials; trying again", fields...)
		return
	}
	c.Log.Warn("cannot join the group; trying again", fields...)
}

// enter puts a generation in force: partitions that stay keep what they know,
// others go or come.
func (c *Consumer) enter(ctx context.Context, generation *kafka.Generation) {
	c.Metrics.rebalances.Inc()
	assigned := generation.Assignments[c.Topic]
	c.assign(generation, assigned)
	c.Log.Info("partitions assigned", zap.Int32("generation", generation.ID), zap.Int("partitions", len(assigned)))
	c.ending.Add(1)
	generation.Start(func(ended context.Context) {
		defer c.ending.Done()
		c.commitLoop(ended, generation)
		c.suspend(generation)
		c.commit(ctx, generation)
	})
}

// assign makes the held partitions those of a generation. A partition stays
// only from one generation to the very next: otherwise somebody else may have
// worked it in between, and it starts anew from its committed offset. Nothing
// here waits for the network, since the group waits for this.
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
		p.drop()
	}
	c.partitions, c.generation = keep, generation
	for _, a := range assigned {
		if keep[a.ID] == nil {
			c.open(a.ID, a.Offset)
		}
	}
	c.Metrics.assigned.Set(float64(len(c.partitions)))
	c.gate.set(generation != nil)
}

// suspend ends fetching at the end of a generation, unless another is in force
// already: a generation that ends while it is entered says so late.
func (c *Consumer) suspend(generation *kafka.Generation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = time.Now()
	if c.generation == generation {
		c.gate.set(false)
	}
}

// open starts a partition at an offset; c.mu is held.
func (c *Consumer) open(id int, offset int64) {
	if c.stopping {
		return
	}
	p := c.newPartition(id)
	c.partitions[id] = p
	c.work.Add(1)
	c.ending.Add(1)
	go p.run(offset)
}

// reopen starts a partition anew, at an offset.
func (c *Consumer) reopen(p *partition, offset int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.partitions[p.id] == p {
		p.drop()
		delete(c.partitions, p.id)
		c.open(p.id, offset)
	}
}

// forget leaves the group under the last member id. After a failed join the
// library has forgotten that id, and the old membership would block the next
// join until its session ends; so this goes on until it is acknowledged; false =
// ctx ended first.
func (c *Consumer) forget(ctx context.Context) bool {
	c.assign(nil, nil)
	member := c.member()
	for ctx.Err() == nil {
		err := c.leaveGroup(ctx, member)
		if err == nil {
			return true
		}
		c.Log.Debug("cannot leave the group yet", zap.String("group", c.Group), zap.Error(err))
		sleep(ctx, joinBackoff)
	}
	return false
}

// leaveGroup takes a member out of the group; one that is not in it is as good.
func (c *Consumer) leaveGroup(ctx context.Context, member string) error {
	if member == "" {
		return nil
	}
	response, err := c.conn.client.LeaveGroup(ctx, &kafka.LeaveGroupRequest{
		GroupID: c.Group, Members: []kafka.LeaveGroupRequestMember{{ID: member}},
	})
	if err != nil {
		return c.conn.explain(err)
	}
	err = leaveError(response)
	if errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.GroupIdNotFound) {
		return nil
	}
	return err
}

// leaveError reads the error out of an answer. The library takes its fields in
// the wrong order, so that a code of the group comes out as milliseconds of
// throttling, and as no error. (A broker that really throttles would read as an
// error, and be asked again.)
func leaveError(response *kafka.LeaveGroupResponse) error {
	if code := int16(response.Throttle.Milliseconds()); code != 0 {
		return kafka.Error(code)
	}
	for _, m := range response.Members {
		if m.Error != nil {
			return m.Error
		}
	}
	return response.Error
}

func (c *Consumer) current() *kafka.Generation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

func (c *Consumer) member() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.memberID
}

// closeGroup leaves the group, and says whether the broker took note. The library
// may hang in it, hence the deadline; a join in progress, which it waits for, is
// ended by leaving. It leaves once, too, and does not say when that failed.
func (c *Consumer) closeGroup(ctx context.Context, group *kafka.ConsumerGroup) bool {
	if !within(closeTimeout, func() { _ = group.Close() }) { // which has no error to tell
		c.Log.Warn("leaving the group took too long", zap.String("group", c.Group))
	}
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	left := c.forget(ctx)
	if !left {
		c.Log.Warn("the broker does not take note that we leave; our session will end by itself", zap.String("group", c.Group))
	}
	return left
}

// kafkaTrouble receives what the client library would otherwise keep silent.
func (c *Consumer) kafkaTrouble(format string, args ...any) {
	c.Log.Debug("kafka client: " + fmt.Sprintf(format, args...))
}
