package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// Receipt says what became of one record. An error that is Unknown leaves open
// whether the record was written.
type Receipt struct {
	Partition int
	Offset    int64
	Unknown   bool
	Err       error
}

// Publisher writes records and waits for all in-sync replicas. Records of one
// key go to one partition, the one that Java clients would choose.
type Publisher struct {
	conn   *Connection
	writer *kafka.Writer
}

// publishSlack is how much larger than a broker's default limit a record may
// be: a dead letter is its original with headers.
const publishSlack = 64 << 10

// NewPublisher prepares a publisher to one topic.
func NewPublisher(conn *Connection, topic string) *Publisher {
	return &Publisher{conn: conn, writer: &kafka.Writer{
		Addr: kafka.TCP(conn.brokers...), Topic: topic, Transport: conn.transport,
		// Every setting here replaces a default that loses records, their order
		// or a second: see the client's documentation of each.
		RequiredAcks: kafka.RequireAll,
		Balancer:     kafka.Murmur2Balancer{Consistent: true},
		BatchTimeout: 5 * time.Millisecond,
		BatchSize:    500,
		BatchBytes:   1<<20 + publishSlack,
		MaxAttempts:  4,
		ReadTimeout:  10 * time.Second,
		WriteTimeout: 10 * time.Second,
		Completion:   complete,
	}}
}

// slot is where a record's fate is kept while it is being written.
type slot struct {
	mu      sync.Mutex
	known   bool
	receipt Receipt
}

// complete runs in the writer for each batch, before the waiting call returns.
func complete(messages []kafka.Message, err error) {
	for _, m := range messages {
		s, ok := m.WriterData.(*slot)
		if !ok {
			continue
		}
		s.mu.Lock()
		s.known = true
		s.receipt = Receipt{Partition: m.Partition, Offset: m.Offset, Err: err, Unknown: maybeWritten(err)}
		s.mu.Unlock()
	}
}

// maybeWritten says whether a failed write may have happened all the same. A
// broker that answered with an error did not write; without an answer nobody
// knows.
func maybeWritten(err error) bool {
	var answered kafka.Error
	return err != nil && (!errors.As(err, &answered) || errors.Is(err, kafka.RequestTimedOut) ||
		errors.Is(err, kafka.NotEnoughReplicasAfterAppend))
}

// Publish writes records and returns one receipt for each, in their order. It
// returns when all are decided or ctx ends; what is undecided then is unknown.
func (p *Publisher) Publish(ctx context.Context, messages ...kafka.Message) []Receipt {
	slots := make([]slot, len(messages))
	for i := range messages {
		messages[i].WriterData = &slots[i]
	}
	err := p.writer.WriteMessages(ctx, messages...)
	receipts := make([]Receipt, len(messages))
	for i := range slots {
		receipts[i] = slots[i].read(err, ctx.Err() != nil)
		if receipts[i].Err != nil {
			receipts[i].Err = p.conn.explain(receipts[i].Err)
		}
	}
	return receipts
}

// read returns a slot's receipt. A record whose batch never reported was
// refused before it was sent, unless waiting for it was cut short.
func (s *slot) read(err error, cutShort bool) Receipt {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known {
		return s.receipt
	}
	if err == nil {
		err = errors.New("the writer returned without an answer")
	}
	return Receipt{Err: fmt.Errorf("publish: %w", err), Unknown: cutShort}
}

// Close writes what is still queued and releases the publisher.
func (p *Publisher) Close() error { return p.writer.Close() }
