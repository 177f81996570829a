package stream

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

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

// run fetches from an offset until the partition goes away.
func (p *partition) run(offset int64) {
	defer p.c.ending.Done()
	defer p.c.work.Done()
	position, ok := p.locate(offset)
	if !ok {
		return
	}
	p.tracker.begin(position, offset)
	for p.read() {
		p.c.Log.Info("fetching through a new connection", zap.Int("partition", p.id))
	}
}

// read fetches through one reader; true = it is given up, and another one goes
// on.
func (p *partition) read() bool {
	reader := p.c.newReader(p.id)
	defer p.close(reader)
	reading, renew := context.WithCancel(p.fetch)
	defer renew()
	p.mu.Lock()
	p.renew = renew
	p.mu.Unlock()
	position, _ := p.tracker.frontier()
	if err := reader.SetOffset(position); err != nil {
		p.c.Log.Error("cannot set a reader's offset", zap.Int("partition", p.id), zap.Error(err))
		return false
	}
	for p.room() {
		message, err := p.next(reading, reader)
		switch {
		case errors.Is(err, kafka.OffsetOutOfRange):
			p.startOver(position)
			return false
		case err != nil:
			<-p.window
			return p.fetch.Err() == nil
		case message.Offset > position:
			p.explainGap(position)
		}
		position = message.Offset + 1
		p.tracker.deliver(message)
		p.enqueue(message)
	}
	return false
}

// close ends a reader, which may take a second that nobody needs to wait for
// but the program's end.
func (p *partition) close(reader *kafka.Reader) {
	p.c.ending.Go(func() {
		if err := reader.Close(); err != nil {
			p.c.Log.Warn("cannot close a reader", zap.Int("partition", p.id), zap.Error(err))
		}
	})
}

// reconnect gives up the reader that fetches now.
func (p *partition) reconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renew()
}

// locate finds where to begin: at an offset, or at the first record where there
// is no offset or the log does not have it; false = the partition went away.
func (p *partition) locate(offset int64) (int64, bool) {
	doubted := false
	for {
		first, last, err := p.c.conn.bounds(p.fetch, p.c.Topic, p.id)
		p.tracker.reach(last)
		switch {
		case p.fetch.Err() != nil:
			return 0, false
		case err != nil:
			p.c.Log.Warn("cannot find the bounds of a partition; trying again", zap.Int("partition", p.id), zap.Error(err))
		case offset < 0:
			p.c.Log.Info("no offset is committed; beginning at the first record",
				zap.Int("partition", p.id), zap.Int64("first", first))
			return first, true
		case first <= offset && offset <= last:
			return offset, true
		case offset < first || doubted:
			p.outOfRange(offset, first)
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
// memory is bounded, for a generation, and for the end of a pause or a turn
// within it; false = the partition went away.
func (p *partition) room() bool {
	select {
	case p.window <- struct{}{}:
	case <-p.fetch.Done():
		return false
	}
	if !await(p.fetch, p.c.gate.whenOpen()) {
		return false
	}
	_, ok := p.c.pause.admit(p.fetch, p.c.pause.fetch)
	return ok
}

// fetchPause is the wait before a fetch is repeated that failed for good: the
// reader itself has retried by then.
const fetchPause = time.Second

// next fetches one record, however long the brokers are away. Its error means
// that the reader is given up, or that the log does not have the offset.
func (p *partition) next(reading context.Context, reader *kafka.Reader) (kafka.Message, error) {
	p.awaiting.Store(true)
	defer p.awaiting.Store(false)
	for {
		message, err := reader.FetchMessage(reading)
		if err == nil || reading.Err() != nil || errors.Is(err, kafka.OffsetOutOfRange) {
			return message, err
		}
		p.c.Log.Warn("cannot fetch; trying again", zap.Int("partition", p.id), zap.Error(p.c.conn.explain(err)))
		if !sleep(reading, fetchPause) {
			return message, reading.Err()
		}
	}
}
