package stream

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

// partition works one partition while it is assigned to this process: it
// fetches in order, queues events by key in lanes, and tracks what is at rest.
type partition struct {
	c       *Consumer
	id      int
	tracker *tracker
	window  chan struct{} // one place for each event between watermark and newest

	fetch     context.Context // ends when the partition goes away or the program stops; then nothing is begun
	stopFetch context.CancelFunc

	mu    sync.Mutex
	lanes map[lane][]kafka.Message // a lane is here while it runs
}

// lane names what is worked in order: the events of one key, or an event
// without a key alone.
type lane struct {
	key   string
	alone int64 // offset of an event without a key, and one
}

func laneOf(message kafka.Message) lane {
	if message.Key == nil {
		return lane{alone: message.Offset + 1}
	}
	return lane{key: string(message.Key)}
}

func (c *Consumer) newPartition(id int) *partition {
	p := &partition{
		c: c, id: id, tracker: newTracker(), window: make(chan struct{}, c.Window), lanes: map[lane][]kafka.Message{},
	}
	p.fetch, p.stopFetch = context.WithCancel(c.fetching)
	return p
}

func (c *Consumer) newReader(partition int) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers: c.conn.brokers, Topic: c.Topic, Partition: partition, Dialer: c.conn.dialer,
		MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second, QueueCapacity: 256,
		ReadBatchTimeout: closeTimeout, // for one record of a batch; closing waits for it
		ReadLagInterval:  -1,           // it would open a connection of its own, and outlive Close
		IsolationLevel:   kafka.ReadCommitted, OffsetOutOfRangeError: true,
		ErrorLogger: kafka.LoggerFunc(c.kafkaTrouble),
	})
}

// run fetches from an offset until the partition goes away. The reader may
// take a second to close, which nobody needs to wait for but the program's end.
func (p *partition) run(offset int64) {
	defer p.c.ending.Done()
	reader := p.c.newReader(p.id)
	p.follow(reader, offset)
	if err := reader.Close(); err != nil {
		p.c.Log.Warn("cannot close a reader", zap.Int("partition", p.id), zap.Error(err))
	}
}

func (p *partition) follow(reader *kafka.Reader, offset int64) {
	defer p.c.work.Done()
	position, ok := p.locate(offset)
	if !ok {
		return
	}
	p.tracker.begin(position, offset)
	if err := reader.SetOffset(position); err != nil {
		p.c.Log.Error("cannot set a reader's offset", zap.Int("partition", p.id), zap.Error(err))
		return
	}
	for p.room() {
		message, err := p.next(reader)
		if errors.Is(err, kafka.OffsetOutOfRange) {
			p.startOver(position)
		}
		if err != nil {
			return
		}
		if message.Offset > position {
			p.explainGap(position)
		}
		position = message.Offset + 1
		p.behind(message.HighWaterMark - position)
		p.tracker.deliver(message.Offset)
		p.enqueue(message)
	}
}

// locate finds where to begin: at an offset, or at the first record where there
// is no offset or the log does not have it; false = the partition went away.
func (p *partition) locate(offset int64) (int64, bool) {
	doubted := false
	for {
		first, last, err := p.c.conn.bounds(p.fetch, p.c.Topic, p.id)
		switch {
		case p.fetch.Err() != nil:
			return 0, false
		case err != nil:
			p.c.Log.Warn("cannot find the bounds of a partition; trying again", zap.Int("partition", p.id), zap.Error(err))
		case offset < 0:
			p.c.Log.Info("no offset is committed; beginning at the first record",
				zap.Int("partition", p.id), zap.Int64("first", first))
			p.behind(last - first)
			return first, true
		case first <= offset && offset <= last:
			p.behind(last - offset)
			return offset, true
		case offset < first || doubted:
			p.outOfRange(offset, first)
			p.behind(last - first)
			return first, true
		default:
			// A leader that has just taken over may know less for a moment.
			doubted = true
		}
		if !sleep(p.fetch, fetchPause) {
			return 0, false
		}
	}
}

// startOver puts another partition in the place of this one when the log ends
// before the position: its offsets mean other records now, so what is in flight
// must not count for them. If that was a leader's passing ignorance, it begins
// with what is not at rest.
func (p *partition) startOver(position int64) {
	start, ok := p.locate(position)
	if !ok {
		return
	}
	if start == position {
		start, _ = p.tracker.toCommit()
	}
	p.c.reopen(p, start)
}

// outOfRange tells that the log does not have an offset: records were deleted
// before they were worked, or the topic was made anew. What is met twice is
// recognised by the ledger.
func (p *partition) outOfRange(offset, first int64) {
	p.c.Metrics.outOfRange.Inc()
	p.c.Log.Error("the log no longer has the next offset; going on at its first record",
		zap.Int("partition", p.id), zap.Int64("offset", offset), zap.Int64("first", first))
}

// explainGap looks why a record was not delivered. A hole in the log is
// ordinary (a compacted topic, a transaction's end), but the library also skips
// records that were deleted, and does not say so.
func (p *partition) explainGap(position int64) {
	first, _, err := p.c.conn.bounds(p.fetch, p.c.Topic, p.id)
	switch {
	case p.fetch.Err() != nil: // and so is the answer
	case err != nil:
		p.c.Log.Warn("cannot tell whether records were lost", zap.Int("partition", p.id),
			zap.Int64("offset", position), zap.Error(err))
	case position < first:
		p.outOfRange(position, first)
	}
}

// room waits for the window before anything is fetched, so that what is in
// memory is bounded; false = the partition went away.
func (p *partition) room() bool {
	select {
	case p.window <- struct{}{}:
		return p.c.gate.wait(p.fetch)
	case <-p.fetch.Done():
		return false
	}
}

// fetchPause is the wait before a fetch is repeated that failed for good: the
// reader itself has retried by then.
const fetchPause = time.Second

// next fetches one record, however long the brokers are away. Its error means
// that the partition went away, or that the log does not have the offset.
func (p *partition) next(reader *kafka.Reader) (kafka.Message, error) {
	for {
		message, err := reader.FetchMessage(p.fetch)
		if err == nil || p.fetch.Err() != nil || errors.Is(err, kafka.OffsetOutOfRange) {
			return message, err
		}
		p.c.Log.Warn("cannot fetch; trying again", zap.Int("partition", p.id), zap.Error(p.c.conn.explain(err)))
		if !sleep(p.fetch, fetchPause) {
			return message, p.fetch.Err()
		}
	}
}

// enqueue puts an event behind those of its key.
func (p *partition) enqueue(message kafka.Message) {
	l := laneOf(message)
	p.mu.Lock()
	defer p.mu.Unlock()
	queue, running := p.lanes[l]
	p.lanes[l] = append(queue, message)
	if !running {
		p.c.work.Add(1)
		go p.runLane(l)
	}
}

// runLane works the events of a lane, one after another, and ends when none is
// left.
func (p *partition) runLane(l lane) {
	defer p.c.work.Done()
	for {
		message, ok := p.head(l)
		if !ok {
			return
		}
		if p.work(message) {
			for range p.tracker.rest(message.Offset) {
				<-p.window
			}
		}
	}
}

// head takes the next event of a lane, or ends it.
func (p *partition) head(l lane) (kafka.Message, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	queue := p.lanes[l]
	if len(queue) == 0 || p.fetch.Err() != nil {
		delete(p.lanes, l)
		return kafka.Message{}, false
	}
	p.lanes[l] = queue[1:]
	return queue[0], true
}

// work offers an event to the handler until it is at rest; false = it was
// given up, for the partition went away or the program stops.
func (p *partition) work(message kafka.Message) bool {
	for holds := 0; ; holds++ {
		if !p.c.begin(p) {
			return false
		}
		outcome := p.c.handle(message)
		p.c.end()
		if outcome.AtRest {
			p.c.Metrics.rested(message)
			return true
		}
		// A held event has given up its place: waiting costs nobody anything.
		if !sleep(p.fetch, holdFor(outcome.HoldFor, holds)) {
			return false
		}
	}
}

// drop gives up what has not begun. Events in flight are finished; their
// results are not committed by us when the partition went away.
func (p *partition) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopFetch()
	p.c.Metrics.unassigned(p.c.Topic, p.id)
}

// behind shows how many records are still to be fetched, while the partition
// is ours.
func (p *partition) behind(records int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fetch.Err() == nil {
		p.c.Metrics.behind(p.c.Topic, p.id, records)
	}
}

// maxHold is the longest wait that repeated holds of one event grow to: events
// keep being fetched while others are held, and thousands that ask again every
// two seconds would themselves be the load of an outage.
const maxHold = 15 * time.Second

// holdFor is the wait before an event is offered again that was held so many
// times before: never less than the handler asked for (which may be what a
// service asked for), doubling up to maxHold, and spread so that events held
// together do not come back together.
func holdFor(asked time.Duration, holds int) time.Duration {
	wait := max(asked, min(asked<<min(holds, 4), maxHold))
	return max(asked, wait/2+rand.N(wait/2+1))
}
