package stream

import (
	"context"
	"errors"
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
	reader  *kafka.Reader
	tracker *tracker
	window  chan struct{} // one place for each event between watermark and newest

	fetch     context.Context // ends when the partition goes away or the program stops
	stopFetch context.CancelFunc
	done      chan struct{} // closed when the fetch loop has ended

	mu      sync.Mutex
	lanes   map[string][]kafka.Message // a key is here while its lane runs
	dropped bool                       // events that have not begun are not begun any more
}

func (c *Consumer) newPartition(a kafka.PartitionAssignment, committed int64) (*partition, error) {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: c.conn.brokers, Topic: c.Topic, Partition: a.ID, Dialer: c.conn.dialer,
		MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second, QueueCapacity: 256,
		IsolationLevel: kafka.ReadCommitted, OffsetOutOfRangeError: true,
		ErrorLogger: kafka.LoggerFunc(c.kafkaTrouble),
	})
	if err := reader.SetOffset(a.Offset); err != nil {
		return nil, errors.Join(err, reader.Close())
	}
	p := &partition{
		c: c, id: a.ID, reader: reader, tracker: newTracker(a.Offset, committed),
		window: make(chan struct{}, c.Window), done: make(chan struct{}), lanes: map[string][]kafka.Message{},
	}
	p.fetch, p.stopFetch = context.WithCancel(c.fetching)
	go p.run()
	return p, nil
}

// run fetches until the partition goes away. It waits for the window before it
// fetches, so what is in memory is bounded.
func (p *partition) run() {
	defer close(p.done)
	for {
		select {
		case p.window <- struct{}{}:
		case <-p.fetch.Done():
			return
		}
		if !p.c.gate.wait(p.fetch) {
			return
		}
		message, err := p.next()
		if err != nil {
			return
		}
		p.tracker.deliver(message.Offset)
		p.c.Metrics.fetched(p.c.Topic, message)
		p.enqueue(message)
	}
}

// next fetches one record, however long the brokers are away. Its error means
// that the partition went away.
func (p *partition) next() (kafka.Message, error) {
	for {
		message, err := p.reader.FetchMessage(p.fetch)
		switch {
		case err == nil:
			return message, nil
		case p.fetch.Err() != nil:
			return message, err
		case errors.Is(err, kafka.OffsetOutOfRange):
			p.startOver()
		default:
			p.c.Log.Warn("cannot fetch; trying again", zap.Int("partition", p.id), zap.Error(err))
		}
		if !sleep(p.fetch, fetchPause) {
			return message, p.fetch.Err()
		}
	}
}

// fetchPause is the wait before a fetch is repeated that failed for good: the
// reader itself has retried by then.
const fetchPause = time.Second

// startOver goes on at the first record that the broker still has. Records
// below are lost to us, or the topic was made anew: either way somebody must
// know. What is met twice is recognised by the ledger.
func (p *partition) startOver() {
	p.c.Metrics.outOfRange.Inc()
	p.c.Log.Error("the log no longer has the committed offset; going on at its first record",
		zap.Int("partition", p.id), zap.Int64("offset", p.reader.Offset()))
	first, err := p.c.conn.firstOffset(p.fetch, p.c.Topic, p.id)
	if err != nil {
		p.c.Log.Warn("cannot find the first record", zap.Int("partition", p.id), zap.Error(err))
		return
	}
	if err := p.reader.SetOffset(first); err != nil {
		p.c.Log.Warn("cannot go to the first record", zap.Int("partition", p.id), zap.Error(err))
	}
}

// enqueue puts an event behind those of its key.
func (p *partition) enqueue(message kafka.Message) {
	key := string(message.Key)
	p.mu.Lock()
	defer p.mu.Unlock()
	queue, running := p.lanes[key]
	p.lanes[key] = append(queue, message)
	if !running {
		p.c.lanes.Add(1)
		go p.lane(key)
	}
}

// lane works the events of one key, one after another, and ends when none is
// left.
func (p *partition) lane(key string) {
	defer p.c.lanes.Done()
	for {
		message, ok := p.head(key)
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

// head takes the next event of a key, or ends its lane.
func (p *partition) head(key string) (kafka.Message, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	queue := p.lanes[key]
	if len(queue) == 0 || p.dropped {
		delete(p.lanes, key)
		return kafka.Message{}, false
	}
	p.lanes[key] = queue[1:]
	return queue[0], true
}

// work offers an event to the handler until it is at rest; false = it was
// given up, for the partition went away or the program stops.
func (p *partition) work(message kafka.Message) bool {
	for {
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
		if !sleep(p.fetch, outcome.HoldFor) {
			return false
		}
	}
}

// drop gives up what has not begun. Events in flight are finished; their
// results are not committed by us when the partition went away.
func (p *partition) drop() {
	p.mu.Lock()
	p.dropped = true
	p.mu.Unlock()
	p.stopFetch()
}

func (p *partition) isDropped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// close waits for the fetch loop and closes the reader.
func (p *partition) close() {
	p.drop()
	<-p.done
	if err := p.reader.Close(); err != nil {
		p.c.Log.Warn("cannot close a reader", zap.Int("partition", p.id), zap.Error(err))
	}
	p.c.Metrics.unassigned(p.c.Topic, p.id)
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
