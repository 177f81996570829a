package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
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

const (
	// maxRecord is the largest record, in bytes: what producers send by default and
	// 64 KiB for the headers of a dead letter.
	maxRecord = 1<<20 + 64<<10
	// publishAttempts and publishPause outlast metadataTTL: the waits are 100,
	// 400, 900 and 1,600 ms.
	publishAttempts = 5
	publishPause    = 100 * time.Millisecond
)

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
		BatchBytes:   maxRecord,
		// Publish repeats by itself: the writer keeps only the last error, and
		// with it nobody could tell whether an earlier attempt was written.
		MaxAttempts:  1,
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
	if errors.As(err, &answered) {
		return answered == kafka.RequestTimedOut || answered == kafka.NotEnoughReplicasAfterAppend
	}
	return err != nil && !unsent(err)
}

// unsent says that there was nobody to send to: a leader is being elected, or
// its broker is not known, cannot be reached or does not let us in.
func unsent(err error) bool {
	var failed *connectError
	return errors.Is(err, protocol.ErrNoLeader) || errors.Is(err, kafka.BrokerNotAvailable) || errors.As(err, &failed)
}

// Publish writes records and returns one receipt for each, in their order. It
// returns when all are decided or ctx ends; what is undecided then is unknown.
func (p *Publisher) Publish(ctx context.Context, messages ...kafka.Message) []Receipt {
	receipts := make([]Receipt, len(messages))
	pending := make([]int, len(messages))
	for i := range pending {
		pending[i] = i
	}
	for attempt := 1; ; attempt++ {
		p.attempt(ctx, messages, pending, receipts)
		p.separate(ctx, messages, pending, receipts)
		pending = slices.DeleteFunc(pending, func(i int) bool { return !mayPass(receipts[i].Err) })
		if len(pending) == 0 || attempt == publishAttempts ||
			!sleep(ctx, time.Duration(attempt*attempt)*publishPause) {
			break
		}
	}
	for i := range receipts {
		receipts[i].Err = p.conn.explain(receipts[i].Err)
	}
	return receipts
}

// attempt writes the pending records once. Unknown stays unknown whatever a
// later attempt fails of.
func (p *Publisher) attempt(ctx context.Context, messages []kafka.Message, pending []int, receipts []Receipt) {
	slots := make([]slot, len(pending))
	batch := make([]kafka.Message, len(pending))
	for n, i := range pending {
		batch[n] = messages[i]
		batch[n].WriterData = &slots[n]
	}
	err := p.write(ctx, batch)
	for n, i := range pending {
		before := receipts[i].Unknown
		receipts[i] = slots[n].read(err, ctx.Err() != nil)
		receipts[i].Unknown = receipts[i].Err != nil && (receipts[i].Unknown || before)
	}
}

// write passes records to the writer, which refuses a whole call for one record
// that is too large: the others go without it.
func (p *Publisher) write(ctx context.Context, batch []kafka.Message) error {
	err := p.writer.WriteMessages(ctx, batch...)
	var tooLarge kafka.MessageTooLargeError
	for errors.As(err, &tooLarge) && len(tooLarge.Remaining) > 0 {
		complete([]kafka.Message{tooLarge.Message}, err)
		err = p.writer.WriteMessages(ctx, tooLarge.Remaining...)
	}
	return err
}

// separate writes one by one the records that the broker refused as too large
// together: it measures batches, not records.
func (p *Publisher) separate(ctx context.Context, messages []kafka.Message, pending []int, receipts []Receipt) {
	if len(pending) < 2 {
		return
	}
	for _, i := range pending {
		if errors.Is(receipts[i].Err, kafka.MessageSizeTooLarge) {
			p.attempt(ctx, messages, []int{i}, receipts)
		}
	}
}

// mayPass says whether an error may be gone in a moment: a leader that moved, a
// broker that restarts. Refused credentials are not: asking again and again may
// lock them.
func mayPass(err error) bool {
	if errors.Is(err, ErrRefused) {
		return false
	}
	if unsent(err) {
		return true
	}
	var answered kafka.Error
	if errors.As(err, &answered) {
		return answered.Temporary()
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
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

// Close writes what is still queued and releases the publisher. The library
// may hang in it, hence the deadline.
func (p *Publisher) Close() error {
	var err error
	if !within(requestTimeout, func() { err = p.writer.Close() }) {
		return p.conn.explain(errors.New("closing a publisher took too long; what was queued may be lost"))
	}
	return err
}
