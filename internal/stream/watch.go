package stream

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// timing is how long the consumer looks on.
type timing struct {
	look      time.Duration // between two looks at the ends of the logs
	stall     time.Duration // for which a record may be there and not be fetched
	rebalance time.Duration // for which a rebalance waits for a member
	silence   time.Duration // for which the group may say nothing although brokers answer; longer than a rebalance
	refresh   time.Duration // after which an offset is committed again, well before brokers forget it
}

var defaultTiming = timing{
	look: 10 * time.Second, stall: 30 * time.Second, rebalance: time.Minute, silence: 2 * time.Minute, refresh: 24 * time.Hour,
}

// What is made anew when it no longer works.
const (
	rebuiltReader     = "reader"
	rebuiltMembership = "membership"
)

// watchLoop keeps the lag fresh, also while nothing is fetched, and makes anew
// what no longer works without saying so: the client library is known to stop
// fetching after a failover, for reasons that nobody has found.
func (c *Consumer) watchLoop(ctx context.Context) {
	suspects := map[int]suspect{}
	for sleep(ctx, c.timing.look) {
		c.watchGroup(ctx)
		for _, p := range c.lookAtEnds(ctx) {
			s := suspects[p.id].seen(p, time.Now())
			if s.waited(time.Now()) > c.timing.stall<<s.remedies && c.conn.hasRecord(ctx, c.Topic, p.id, s.position) {
				c.remedy(p, s)
				s = s.remedied(time.Now())
			}
			suspects[p.id] = s
		}
	}
}

// suspect is what is known of a partition that may have stalled.
type suspect struct {
	position int64     // the offset that does not come
	since    time.Time // it is waited for, and is there
	remedies int       // tried for it
}

// seen takes another look. A partition is under suspicion from when the end of
// its log is first seen beyond what it waits for.
func (s suspect) seen(p *partition, now time.Time) suspect {
	position, end := p.tracker.frontier()
	switch {
	case position != s.position || s.since.IsZero():
		return suspect{position: position, since: now}
	case position >= end || !p.awaiting.Load():
		s.since = now
	}
	return s
}

func (s suspect) waited(now time.Time) time.Duration { return now.Sub(s.since) }

// remedied gives each remedy twice the time of the one before, up to an hour.
func (s suspect) remedied(now time.Time) suspect {
	return suspect{position: s.position, since: now, remedies: min(s.remedies+1, 7)}
}

// lookAtEnds learns where the logs end, and returns the partitions of which
// that is known. What we did is known before: so the lag is never negative.
func (c *Consumer) lookAtEnds(ctx context.Context) []*partition {
	held := c.holding()
	if len(held) == 0 {
		return nil
	}
	ids := make([]int, 0, len(held))
	for _, p := range held {
		ids = append(ids, p.id)
	}
	ends, err := c.conn.ends(ctx, c.Topic, ids)
	if hungUp(err) { // the connection had been kept over a broker's restart
		ends, err = c.conn.ends(ctx, c.Topic, ids)
	}
	if err != nil {
		c.Log.Debug("cannot ask for the ends of the partitions", zap.Error(err))
	}
	var known []*partition
	for _, p := range held {
		if end, ok := ends[p.id]; ok {
			p.tracker.reach(end)
			known = append(known, p)
		}
	}
	return known
}

// remedy gets a partition going again whose next record is not fetched, though
// it can be: through a new connection, or else through a new membership.
func (c *Consumer) remedy(p *partition, s suspect) {
	what, do := rebuiltReader, p.reconnect
	if s.remedies > 0 {
		what, do = rebuiltMembership, c.rejoinGroup
	}
	c.Metrics.rebuilds.WithLabelValues(what).Inc()
	c.Log.Error("a partition has records and they are not fetched; making anew what may hang",
		zap.Int("partition", p.id), zap.Int64("offset", s.position), zap.String("what", what))
	do()
}

// watchGroup looks whether the group's own loop goes on. It says something at
// least as often as a rebalance may last, if only that it failed.
func (c *Consumer) watchGroup(ctx context.Context) {
	c.mu.Lock()
	silent, member := time.Since(c.heard), c.rejoin != nil
	c.mu.Unlock()
	if c.gate.isOpen() || !member || silent < c.timing.silence || c.conn.Ping(ctx) != nil {
		return
	}
	c.Metrics.rebuilds.WithLabelValues(rebuiltMembership).Inc()
	c.Log.Error("the group has said nothing for long although brokers answer; joining it anew",
		zap.String("group", c.Group), zap.Duration("silent", silent))
	c.rejoinGroup()
}

// rejoinGroup gives up the membership of now.
func (c *Consumer) rejoinGroup() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rejoin != nil {
		c.rejoin()
		c.rejoin = nil
	}
}
