package stream

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap/zapcore"
)

func TestT3EventsAreAtRestBeforeTheyAreCommitted(t *testing.T) {
	onEachBroker(t, 3, eventsAreAtRestBeforeTheyAreCommitted)
}

func eventsAreAtRestBeforeTheyAreCommitted(t *testing.T, s *site) {
	const each = 300
	partitions := s.partitions
	conn := s.connect(t)
	for p := range partitions {
		s.fill(t, conn, p, each, func(i int) string { return ownKey(i % 40) })
	}
	j := s.watch(t, newJournal())
	m := s.join(t, conn, Config{Concurrency: 32, Handle: j.handler("m", func(ctx context.Context, m kafka.Message) Outcome {
		return after(time.Duration(m.Offset%7)*time.Millisecond)(ctx, m)
	})})
	j.requireRested(t, partitions*each)
	for p := range partitions {
		s.requireCommitted(t, conn, p, each)
		require.Zero(t, m.lagShown(t, p))
	}
	j.requireRight(t)
	require.Equal(t, partitions*each, j.completed, "without trouble nothing is worked twice")
	require.Equal(t, 1, m.rebalancesSeen(), "T8: a generation does not end by itself")
}

func TestEventsOfAKeyAreWorkedInOrder(t *testing.T) { onEachBroker(t, 2, eventsOfAKeyAreWorkedInOrder) }

func eventsOfAKeyAreWorkedInOrder(t *testing.T, s *site) {
	const each, keys = 400, 20
	partitions := s.partitions
	conn := s.connect(t)
	for p := range partitions {
		s.fill(t, conn, p, each, func(i int) string { return fmt.Sprintf("%d-%d", p, i%keys) })
	}
	j := newJournal()
	s.join(t, conn, Config{Concurrency: 64, Handle: j.handler("m", func(ctx context.Context, m kafka.Message) Outcome {
		return after(time.Duration(m.Offset%5)*time.Millisecond)(ctx, m)
	})})
	j.requireRested(t, partitions*each)
	j.requireRight(t)
	j.mu.Lock()
	defer j.mu.Unlock()
	require.Len(t, j.order, partitions*keys)
	for key, offsets := range j.order {
		require.IsIncreasing(t, offsets, "key %s", key)
	}
}

func TestEventsWithoutAKeyHaveNoOrder(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, nil)
	j := newJournal()
	release := make(chan struct{})
	join(t, conn, Config{Handle: j.handler("m", func(_ context.Context, m kafka.Message) Outcome {
		<-release
		return Outcome{AtRest: true}
	})})
	require.Eventually(t, func() bool { return j.runningNow() == 10 }, patience, glimpse)
	close(release)
	requireCommitted(t, conn, 0, 10)
}

func TestConcurrencyIsReachedAndNotPassed(t *testing.T) {
	t.Parallel()
	const concurrency = 7
	cluster := newBroker(t, 2)
	conn := connect(t, cluster)
	fill(t, conn, 0, 50, ownKey)
	fill(t, conn, 1, 50, ownKey)
	j := newJournal()
	release := make(chan struct{})
	m := join(t, conn, Config{Concurrency: concurrency, Handle: j.handler("m", func(context.Context, kafka.Message) Outcome {
		<-release
		return Outcome{AtRest: true}
	})})
	require.Eventually(t, func() bool { return j.runningNow() == concurrency }, patience, glimpse)
	require.Never(t, func() bool { return j.runningNow() > concurrency }, 300*time.Millisecond, glimpse)
	require.InDelta(t, concurrency, testutil.ToFloat64(m.Metrics.inFlight), 0)
	close(release)
	j.requireRested(t, 100)
	require.Equal(t, concurrency, j.most)
}

func TestHeldEventGivesUpItsPlace(t *testing.T) { onEachBroker(t, 1, heldEventGivesUpItsPlace) }

func heldEventGivesUpItsPlace(t *testing.T, s *site) {
	conn := s.connect(t)
	s.fill(t, conn, 0, 30, func(i int) string { return ownKey(i % 3) })
	j := s.watch(t, newJournal())
	var mu sync.Mutex
	held := 0
	// One place: were it kept by the held event, nothing else would go on.
	s.join(t, conn, Config{Concurrency: 1, Handle: j.handler("m", func(_ context.Context, m kafka.Message) Outcome {
		mu.Lock()
		defer mu.Unlock()
		if m.Offset == 0 && (held < 3 || j.restedEvents() < 20) {
			held++
			return Outcome{HoldFor: 20 * time.Millisecond}
		}
		return Outcome{AtRest: true}
	})})
	j.requireRested(t, 30)
	s.requireCommitted(t, conn, 0, 30)
	j.requireRight(t)
	require.GreaterOrEqual(t, j.begunAt(0, 0), 4, "a held event is offered again")
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, offset := range j.order[ownKey(0)][:held] {
		require.Zero(t, offset, "a held event keeps its key waiting")
	}
}

func TestT18HeldPartitionHoldsNoOther(t *testing.T) { onEachBroker(t, 2, heldPartitionHoldsNoOther) }

func heldPartitionHoldsNoOther(t *testing.T, s *site) {
	conn := s.connect(t)
	s.fill(t, conn, 0, 100, func(int) string { return "held" })
	s.fill(t, conn, 1, 500, ownKey)
	j := newJournal()
	var hold sync.Map
	hold.Store(0, true)
	s.join(t, conn, Config{Window: 5, Concurrency: 4, Handle: j.handler("m", func(_ context.Context, m kafka.Message) Outcome {
		if _, held := hold.Load(m.Partition); held {
			return Outcome{HoldFor: 20 * time.Millisecond}
		}
		return Outcome{AtRest: true}
	})})
	s.requireCommitted(t, conn, 1, 500)
	require.Equal(t, 501, j.begunEvents())
	require.Equal(t, int64(0), s.committed(t, conn, 0)[0])
	hold.Delete(0)
	s.requireCommitted(t, conn, 0, 100)
}

func TestWindowBoundsWhatIsFetchedBehindASlowHead(t *testing.T) {
	t.Parallel()
	const window = 5
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 50, ownKey)
	j := newJournal()
	release := make(chan struct{})
	m := join(t, conn, Config{Window: window, Handle: j.handler("m", func(_ context.Context, m kafka.Message) Outcome {
		if m.Offset == 0 {
			<-release
		}
		return Outcome{AtRest: true}
	})})
	j.requireRested(t, window-1)
	require.Never(t, func() bool { return j.begunEvents() > window }, 500*time.Millisecond, glimpse)
	require.Equal(t, 50, m.lagShown(t, 0), "what is fetched and not at rest, or not fetched at all")
	close(release)
	requireCommitted(t, conn, 0, 50)
}

func TestConsumerStopsWhileTheWindowIsFull(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 2000, ownKey)
	j := newJournal()
	m := join(t, conn, Config{Window: 5, Handle: j.handler("m", func(context.Context, kafka.Message) Outcome {
		return Outcome{HoldFor: time.Hour}
	})})
	require.Eventually(t, func() bool { return j.begunEvents() == 5 }, patience, glimpse)
	require.Less(t, m.stop(t), 4*time.Second)
	require.Equal(t, int64(0), committed(t, conn, 0)[0])
}

func TestPanicHoldsItsEventAndSparesOthers(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 20, ownKey)
	j := newJournal().watch(cluster)
	m := join(t, conn, Config{Handle: j.handler("m", func(_ context.Context, m kafka.Message) Outcome {
		if m.Offset == 3 && j.begunAt(0, 3) == 1 {
			panic("no such template")
		}
		return Outcome{AtRest: true}
	})})
	j.requireRested(t, 19)
	requireCommitted(t, conn, 0, 3)
	logged := m.logs.FilterMessage("a handler panicked").All()
	require.Len(t, logged, 1)
	require.Equal(t, zapcore.ErrorLevel, logged[0].Level)
	require.Equal(t, int64(3), logged[0].ContextMap()["offset"])
	require.Contains(t, logged[0].ContextMap()["stack"], "consumer_test.go")
	requireCommitted(t, conn, 0, 20)
	require.Equal(t, 2, j.begunAt(0, 3))
	j.requireRight(t)
}

func TestT15T16StartIsCommittedAtOnce(t *testing.T) { onEachBroker(t, 3, startIsCommittedAtOnce) }

func startIsCommittedAtOnce(t *testing.T, s *site) {
	conn := s.connect(t)
	s.fill(t, conn, 1, 10, ownKey)
	s.deleteRecords(t, 1, 4)
	s.fill(t, conn, 2, 10, ownKey)
	s.deleteRecords(t, 2, -1)
	m := s.join(t, conn, Config{Handle: func(context.Context, kafka.Message) Outcome { return Outcome{HoldFor: time.Hour} }})
	for partition, first := range map[int]int64{0: 0, 1: 4, 2: 10} {
		s.requireCommitted(t, conn, partition, first)
	}
	require.Equal(t, 3, m.logs.FilterMessageSnippet("no offset is committed").Len())
	require.Zero(t, m.lossesSeen())
}

func TestT15StartIsFoundWhenTheBrokerIsBack(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 2)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, ownKey)
	faults := cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: topic, Partitions: []int32{0}, Err: kerr.NotLeaderForPartition, Count: 3,
	})
	j := newJournal()
	join(t, conn, Config{Handle: j.handler("m", atOnce)})
	require.NoError(t, faults.Wait(t.Context(), 1))
	requireCommitted(t, conn, 0, 10)
}

func TestT19RecordsDeletedBeforeTheStart(t *testing.T) {
	onEachBroker(t, 1, recordsDeletedBeforeTheStart)
}

func recordsDeletedBeforeTheStart(t *testing.T, s *site) {
	conn := s.connect(t)
	s.fill(t, conn, 0, 30, ownKey)
	s.commitFor(t, conn, kafka.OffsetCommit{Offset: 5})
	s.deleteRecords(t, 0, 20)
	j := newJournal()
	m := s.join(t, conn, Config{Handle: j.handler("m", atOnce)})
	j.requireRested(t, 10)
	s.requireCommitted(t, conn, 0, 30)
	requireLoud(t, m, 5, 20)
	require.Equal(t, 1, j.begunAt(0, 20))
	require.Equal(t, 10, j.begunEvents())
}

func TestT19RecordsDeletedAheadOfAReader(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, ownKey)
	j := newJournal()
	m := join(t, conn, Config{Handle: j.handler("m", atOnce)})
	requireCommitted(t, conn, 0, 10)
	away := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: -1})
	fill(t, conn, 0, 30, ownKey)
	require.NoError(t, cluster.DeleteRecords(topic, 0, 25))
	require.NoError(t, away.Wait(t.Context(), 1))
	away.Remove()
	requireCommitted(t, conn, 0, 40)
	requireLoud(t, m, 10, 25)
	require.Equal(t, 25, j.begunEvents())
}

func TestT19OffsetBeyondTheLog(t *testing.T) { onEachBroker(t, 1, offsetBeyondTheLog) }

func offsetBeyondTheLog(t *testing.T, s *site) {
	conn := s.connect(t)
	s.fill(t, conn, 0, 10, ownKey)
	s.commitFor(t, conn, kafka.OffsetCommit{Offset: 100})
	j := newJournal()
	m := s.join(t, conn, Config{Handle: j.handler("m", atOnce)})
	j.requireRested(t, 10)
	s.requireCommitted(t, conn, 0, 10)
	requireLoud(t, m, 100, 0)
}

func TestT19TopicMadeAnewUnderAReader(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, ownKey)
	j := newJournal()
	release := make(chan struct{})
	m := join(t, conn, Config{Handle: j.handler("m", func(_ context.Context, m kafka.Message) Outcome {
		switch {
		case m.Offset == 1 && j.begunAt(0, 1) == 1:
			<-release // still in flight when the new log has an offset 1 of its own
		case m.Offset == 1:
			return Outcome{HoldFor: 50 * time.Millisecond}
		}
		return Outcome{AtRest: true}
	})})
	j.requireRested(t, 9)
	requireCommitted(t, conn, 0, 1)
	away := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: -1})
	require.NoError(t, cluster.DeleteTopic(topic))
	require.NoError(t, cluster.CreateTopic(topic, 1, nil))
	fill(t, conn, 0, 4, ownKey)
	require.NoError(t, away.Wait(t.Context(), 1))
	away.Remove()
	require.Eventually(t, func() bool { return j.begunAt(0, 1) > 1 && j.begunAt(0, 3) == 2 }, patience, glimpse)
	requireCommitted(t, conn, 0, 1)
	close(release)
	require.Never(t, func() bool { return committed(t, conn, 0)[0] != 1 }, 2*commitInterval, 100*time.Millisecond,
		"the old record at rest does not stand for the new one")
	requireLoud(t, m, 10, 0)
}

// requireLoud wants one loss, counted and told.
func requireLoud(t *testing.T, m *member, offset, first int64) {
	t.Helper()
	require.Equal(t, 1, m.lossesSeen())
	logged := m.logs.FilterMessageSnippet("no longer has the next offset").All()
	require.Len(t, logged, 1)
	require.Equal(t, zapcore.ErrorLevel, logged[0].Level)
	require.Equal(t, offset, logged[0].ContextMap()["offset"])
	require.Equal(t, first, logged[0].ContextMap()["first"])
}

func TestT20HolesAreNoLoss(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	require.NoError(t, cluster.CreateTopic("compacted", 1, map[string]string{"cleanup.policy": "compact"}))
	conn := connect(t, cluster)
	publisher := NewPublisher(conn, "compacted")
	t.Cleanup(func() { publisher.Close() })
	for i := range 30 {
		for _, r := range publisher.Publish(t.Context(), kafka.Message{Key: []byte(ownKey(i % 7)), Value: []byte("v")}) {
			require.NoError(t, r.Err)
		}
	}
	cluster.Compact()
	j := newJournal()
	m := join(t, conn, Config{Handle: j.handler("m", atOnce)})
	m.stop(t)
	other := NewConsumer(conn, m.Config)
	other.Topic = "compacted"
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.NoError(t, other.Run(ctx))
	}()
	require.Eventually(t, func() bool {
		response, err := conn.client.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{
			GroupID: group, Topics: map[string][]int{"compacted": {0}},
		})
		if err != nil || len(response.Topics["compacted"]) == 0 {
			return false
		}
		return response.Topics["compacted"][0].CommittedOffset == 30
	}, patience, 50*time.Millisecond)
	cancel()
	<-done
	require.Less(t, j.begunEvents(), 30, "there are holes")
	require.Zero(t, m.lossesSeen())
}

func TestT33RefusedCommitIsNotTakenForSuccess(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 2)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, ownKey)
	fill(t, conn, 1, 10, ownKey)
	refused := cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: topic, Partitions: []int32{0}, Err: kerr.IllegalGeneration, Count: 3},
		kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: topic, Partitions: []int32{1}, Err: kerr.GroupAuthorizationFailed, Count: 2},
	)
	j := newJournal()
	m := join(t, conn, Config{Handle: j.handler("m", atOnce)})
	j.requireRested(t, 20)
	require.NoError(t, refused.Wait(t.Context(), 2))
	requireCommitted(t, conn, 0, 10)
	requireCommitted(t, conn, 1, 10)
	require.GreaterOrEqual(t, refused.Hits(), 3)
	require.NotZero(t, m.logs.FilterMessageSnippet("a commit was refused").Len(), "what is not an ordinary end is told")
}

func TestT33AnswerThatLeavesOutAPartition(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	c := NewConsumer(connect(t, cluster), Config{Window: 1})
	c.fetching = t.Context()
	p := c.newPartition(0)
	p.tracker.begin(0, 0)
	p.tracker.deliver(kafka.Message{})
	p.tracker.rest(0)
	c.accept(nil, map[int]*partition{0: p}, []kafka.OffsetCommit{{Partition: 0, Offset: 1}})
	_, news := p.tracker.toCommit()
	require.True(t, news)
}

func TestT38FreshBrokerIsWaitedFor(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, ownKey)
	fresh := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Group: group, Err: kerr.CoordinatorNotAvailable, Count: 4})
	j := newJournal()
	begun := time.Now()
	join(t, conn, Config{Handle: j.handler("m", atOnce)})
	j.requireRested(t, 10)
	require.Equal(t, 4, fresh.Hits(), "T9: the next join is always awaited")
	require.Less(t, time.Since(begun), 10*time.Second, "T10: the library's own backoff is 5 s a time")
}

func TestMetricsAreWellFormed(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	c := NewConsumer(nil, Config{Topic: topic})
	c.fetching = t.Context()
	c.partitions[1] = c.newPartition(1)
	c.partitions[1].tracker.begin(0, 0)
	m.show(c)
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, 1, testutil.CollectAndCount(&m.holdings, "ecreds_consumer_lag"))
	c.partitions = nil
	require.Zero(t, testutil.CollectAndCount(&m.holdings, "ecreds_consumer_lag"), "a partition that went away is not shown")
}
