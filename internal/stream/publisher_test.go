package stream

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func newPublisher(tb testing.TB, conn *Connection) *Publisher {
	tb.Helper()
	return newPublisherOf(tb, conn, topic)
}

func newPublisherOf(tb testing.TB, conn *Connection, topic string) *Publisher {
	tb.Helper()
	publisher := NewPublisher(conn, topic)
	tb.Cleanup(func() { publisher.Close() })
	return publisher
}

func (s *site) publisher(tb testing.TB, conn *Connection) *Publisher {
	tb.Helper()
	return newPublisherOf(tb, conn, s.topic)
}

// readBack fetches one record.
func readBack(tb testing.TB, conn *Connection, partition int, offset int64) kafka.Message {
	tb.Helper()
	return readTopic(tb, conn, topic, partition, offset)
}

func readTopic(tb testing.TB, conn *Connection, topic string, partition int, offset int64) kafka.Message {
	tb.Helper()
	var message kafka.Message
	require.Eventually(tb, func() bool {
		response, err := conn.client.Fetch(tb.Context(), &kafka.FetchRequest{
			Topic: topic, Partition: partition, Offset: offset, MaxBytes: 1 << 20, MaxWait: time.Second,
		})
		if err != nil || response.Error != nil {
			return false
		}
		for {
			record, err := response.Records.ReadRecord()
			if err != nil {
				return false
			}
			if record.Offset == offset {
				value, err := kafka.ReadAll(record.Value)
				message = kafka.Message{Offset: offset, Value: value}
				return err == nil
			}
		}
	}, patience, glimpse)
	return message
}

func TestT25AllReplicasAcknowledge(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	acks := make(chan int16, 10)
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		acks <- r.(*kmsg.ProduceRequest).Acks
		return nil, nil, false
	})
	receipt := newPublisher(t, connect(t, cluster)).Publish(t.Context(), kafka.Message{Value: []byte("v")})[0]
	require.NoError(t, receipt.Err)
	require.Equal(t, int16(-1), <-acks)
}

func TestT26LoneWriteDoesNotWait(t *testing.T) { onEachBroker(t, 1, loneWriteDoesNotWait) }

func loneWriteDoesNotWait(t *testing.T, s *site) {
	conn := s.connect(t)
	publisher := s.publisher(t, conn)
	require.NoError(t, publisher.Publish(t.Context(), kafka.Message{Value: []byte("warm")})[0].Err)
	best := time.Hour
	for range 5 {
		begun := time.Now()
		require.NoError(t, publisher.Publish(t.Context(), kafka.Message{Value: []byte("v")})[0].Err)
		best = min(best, time.Since(begun))
	}
	plain := &kafka.Writer{Addr: kafka.TCP(conn.brokers...), Topic: s.topic, Transport: conn.transport}
	defer plain.Close()
	begun := time.Now()
	require.NoError(t, plain.WriteMessages(t.Context(), kafka.Message{Value: []byte("v")}))
	require.Less(t, 5*best, time.Since(begun), "at the library's defaults it waits a second")
}

func TestT27KeysGoWhereJavaPutsThem(t *testing.T) { onEachBroker(t, 7, keysGoWhereJavaPutsThem) }

func keysGoWhereJavaPutsThem(t *testing.T, s *site) {
	partitions := s.partitions
	conn := s.connect(t)
	publisher := s.publisher(t, conn)
	// From org.apache.kafka.common.utils.UtilsTest.testMurmur2.
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		receipt := publisher.Publish(t.Context(), kafka.Message{Key: []byte(key), Value: []byte("of " + key)})[0]
		require.NoError(t, receipt.Err)
		require.Equal(t, int(hash&0x7fffffff)%partitions, receipt.Partition, key)
		message := readTopic(t, conn, s.topic, receipt.Partition, receipt.Offset)
		require.Equal(t, "of "+key, string(message.Value))
		require.Equal(t, receipt.Offset, message.Offset)
	}
}

func TestReceiptsSayWhereEachRecordIs(t *testing.T) { onEachBroker(t, 3, receiptsSayWhereEachRecordIs) }

func receiptsSayWhereEachRecordIs(t *testing.T, s *site) {
	conn := s.connect(t)
	publisher := s.publisher(t, conn)
	messages := make([]kafka.Message, 1200) // more than a batch
	for i := range messages {
		messages[i] = kafka.Message{Key: []byte(ownKey(i)), Value: []byte(strconv.Itoa(i)), Headers: []kafka.Header{{Key: "n", Value: []byte{1}}}}
	}
	receipts := publisher.Publish(t.Context(), messages...)
	require.Len(t, receipts, len(messages))
	seen := map[place]bool{}
	for i, r := range receipts {
		require.NoError(t, r.Err)
		require.False(t, r.Unknown)
		require.False(t, seen[place{r.Partition, r.Offset}], "each has a place of its own")
		seen[place{r.Partition, r.Offset}] = true
		require.Nil(t, messages[i].WriterData, "what the caller passed is not touched")
	}
	for _, i := range []int{0, 1, 599, 1199} {
		require.Equal(t, strconv.Itoa(i), string(readTopic(t, conn, s.topic, receipts[i].Partition, receipts[i].Offset).Value))
	}
	require.Empty(t, publisher.Publish(t.Context()))
}

func TestT28EndedContextIsUnknown(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	publisher := newPublisher(t, conn)
	require.NoError(t, publisher.Publish(t.Context(), kafka.Message{Value: []byte("first")})[0].Err)
	stall := make(chan struct{})
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.SleepControl(func() { <-stall })
		return nil, nil, false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	receipt := publisher.Publish(ctx, kafka.Message{Value: []byte("late")})[0]
	require.ErrorIs(t, receipt.Err, context.DeadlineExceeded)
	require.True(t, receipt.Unknown)
	close(stall)
	require.Equal(t, "late", string(readBack(t, conn, 0, 1).Value), "it was written all the same")
}

func TestT29FailedOrUnknown(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		faults  []kfake.Fault
		want    error
		unknown bool
		tries   int
	}{
		"refused for good":              {faults: []kfake.Fault{{Err: kerr.TopicAuthorizationFailed, Count: -1}}, want: kafka.TopicAuthorizationFailed, tries: 1},
		"leader moved for a moment":     {faults: []kfake.Fault{{Err: kerr.NotLeaderForPartition, Count: 2}}, tries: 2},
		"too few replicas, all along":   {faults: []kfake.Fault{{Err: kerr.NotEnoughReplicas, Count: -1}}, want: kafka.NotEnoughReplicas, tries: 5},
		"replicas lost after the write": {faults: []kfake.Fault{{Err: kerr.NotEnoughReplicasAfterAppend, Count: -1}}, want: kafka.NotEnoughReplicasAfterAppend, unknown: true, tries: 5},
		"no answer in time, then refused": {
			faults: []kfake.Fault{{Err: kerr.RequestTimedOut}, {Err: kerr.TopicAuthorizationFailed, Count: -1}},
			want:   kafka.TopicAuthorizationFailed, unknown: true, tries: 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := newBroker(t, 1)
			for i := range test.faults {
				test.faults[i].Keys = []kmsg.Key{kmsg.Produce}
			}
			faults := cluster.Fault(test.faults...)
			receipt := newPublisher(t, connect(t, cluster)).Publish(t.Context(), kafka.Message{Value: []byte("v")})[0]
			if test.want == nil {
				require.NoError(t, receipt.Err)
			} else {
				require.ErrorIs(t, receipt.Err, test.want)
				require.ErrorContains(t, receipt.Err, cluster.ListenAddrs()[0])
			}
			require.Equal(t, test.unknown, receipt.Unknown)
			require.Equal(t, test.tries, faults.Hits())
		})
	}
}

func TestT29LostConnectionIsUnknownWhateverFollows(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		return nil, io.ErrUnexpectedEOF, true // closes the connection
	})
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	receipt := newPublisher(t, connect(t, cluster)).Publish(t.Context(), kafka.Message{Value: []byte("v")})[0]
	require.ErrorIs(t, receipt.Err, kafka.TopicAuthorizationFailed)
	require.True(t, receipt.Unknown, "the first attempt may have been written")
}

func TestT30TooLargeRecordSparesOthers(t *testing.T) { onEachBroker(t, 1, tooLargeRecordSparesOthers) }

func tooLargeRecordSparesOthers(t *testing.T, s *site) {
	publisher := s.publisher(t, s.connect(t))
	large := []byte(strings.Repeat("x", 2*maxRecord))
	receipts := publisher.Publish(t.Context(), kafka.Message{Value: large}, kafka.Message{Value: []byte("v")}, kafka.Message{Value: large})
	for i, fits := range []bool{false, true, false} {
		require.False(t, receipts[i].Unknown)
		if fits {
			require.NoError(t, receipts[i].Err)
		} else {
			require.ErrorIs(t, receipts[i].Err, kafka.MessageSizeTooLarge)
		}
	}
}

func TestT30BrokerMeasuresBatches(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "20000"}))
	publisher := newPublisher(t, connect(t, cluster))
	messages := make([]kafka.Message, 8)
	for i := range messages {
		messages[i].Value = []byte(strings.Repeat("x", 6000))
	}
	messages[5].Value = []byte(strings.Repeat("x", 30000))
	for i, r := range publisher.Publish(t.Context(), messages...) {
		if i == 5 {
			require.ErrorIs(t, r.Err, kafka.MessageSizeTooLarge)
			require.False(t, r.Unknown)
			continue
		}
		require.NoError(t, r.Err, "record %d fits alone", i)
	}
}

func TestT31MovedLeaderIsFound(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1, kfake.NumBrokers(2))
	conn := connect(t, cluster)
	publisher := newPublisher(t, conn)
	for i := range 4 {
		require.NoError(t, cluster.MoveTopicPartition(topic, 0, int32(i%2)))
		require.NoError(t, publisher.Publish(t.Context(), kafka.Message{Value: []byte("v")})[0].Err)
	}
}

func TestT32TopicIsNotCreatedByWriting(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1, kfake.AllowAutoTopicCreation())
	publisher := NewPublisher(connect(t, cluster), "mistyped")
	t.Cleanup(func() { publisher.Close() })
	receipt := publisher.Publish(t.Context(), kafka.Message{Value: []byte("v")})[0]
	require.ErrorIs(t, receipt.Err, kafka.UnknownTopicOrPartition)
	require.False(t, receipt.Unknown)
	require.Nil(t, cluster.TopicInfo("mistyped"))
}

func TestT33EachRecordHasItsOwnReceipt(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 2)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{1}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	messages := make([]kafka.Message, 20)
	for i := range messages {
		messages[i] = kafka.Message{Key: []byte(ownKey(i))}
	}
	failed := 0
	for _, r := range newPublisher(t, connect(t, cluster)).Publish(t.Context(), messages...) {
		if r.Err != nil {
			require.ErrorIs(t, r.Err, kafka.TopicAuthorizationFailed)
			failed++
		} else {
			require.Zero(t, r.Partition)
		}
	}
	require.Positive(t, failed)
	require.Less(t, failed, 20)
}

func TestClosedPublisherRefuses(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	publisher := NewPublisher(connect(t, cluster), topic)
	require.NoError(t, publisher.Publish(t.Context(), kafka.Message{Value: []byte("v")})[0].Err)
	require.NoError(t, publisher.Close())
	receipt := publisher.Publish(t.Context(), kafka.Message{Value: []byte("v")})[0]
	require.ErrorIs(t, receipt.Err, io.ErrClosedPipe)
	require.False(t, receipt.Unknown)
}

func TestBrokerThatIsGoneDidNotWrite(t *testing.T) {
	t.Parallel()
	for name, warm := range map[string]bool{"never seen": false, "seen before": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := newBroker(t, 1)
			publisher := newPublisher(t, connect(t, cluster))
			if warm {
				require.NoError(t, publisher.Publish(t.Context(), kafka.Message{Value: []byte("v")})[0].Err)
			}
			address := cluster.ListenAddrs()[0]
			cluster.Close()
			var receipt Receipt
			require.Eventually(t, func() bool {
				receipt = publisher.Publish(t.Context(), kafka.Message{Value: []byte("v")})[0]
				return receipt.Err != nil && !receipt.Unknown
			}, patience, glimpse)
			require.ErrorContains(t, receipt.Err, address)
		})
	}
}

func TestWhatAnErrorOfAWriteMeans(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err              error
		written, mayPass bool
	}{
		"written":         {},
		"answered":        {err: fmt.Errorf("produce: %w", kafka.InvalidRecord)},
		"timed out":       {err: kafka.RequestTimedOut, written: true, mayPass: true},
		"after the write": {err: kafka.NotEnoughReplicasAfterAppend, written: true, mayPass: true},
		"cut off":         {err: io.ErrUnexpectedEOF, written: true, mayPass: true},
		"reset":           {err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}, written: true, mayPass: true},
		"not reached":     {err: &connectError{cause: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, mayPass: true},
		"no leader":       {err: fmt.Errorf("produce: %w", protocol.NewErrNoLeader(topic, 0)), mayPass: true},
		"broker unknown":  {err: kafka.BrokerNotAvailable, mayPass: true},
		"ended":           {err: context.Canceled, written: true},
		"closed":          {err: io.ErrClosedPipe, written: true}, // refused before there was a batch, see read
		"too large":       {err: kafka.MessageTooLargeError{}},
	} {
		require.Equal(t, test.written, maybeWritten(test.err), name)
		require.Equal(t, test.mayPass, mayPass(test.err), name)
	}
}
