package stream

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestDrainFinishesWhatIsInFlight(t *testing.T) { onEachBroker(t, 6, drainFinishesWhatIsInFlight) }

func drainFinishesWhatIsInFlight(t *testing.T, s *site) {
	const each, concurrency = 50, 10
	partitions := s.partitions
	conn := s.connect(t)
	for p := range partitions {
		s.fill(t, conn, p, each, func(i int) string { return strconv.Itoa(p) + ownKey(i%20) })
	}
	j := s.watch(t, newJournal())
	m := s.join(t, conn, Config{Concurrency: concurrency, Handle: j.handler("m", after(400*time.Millisecond))})
	j.requireRested(t, 3*concurrency)
	require.Eventually(t, func() bool { return j.runningNow() == concurrency }, patience, time.Millisecond)
	took := m.stop(t)
	require.Less(t, took, 4*time.Second, "a reader takes a second to close, but not one after another")

	require.Equal(t, j.begunEvents(), j.restedEvents(), "what had begun is finished")
	require.Less(t, j.restedEvents(), partitions*each, "what had not begun is not begun")
	j.requireRight(t)
	watermark := map[int]int64{}
	for p := range partitions {
		watermark[p] = 0
		for j.rested[place{p, watermark[p]}] > 0 {
			watermark[p]++
		}
	}
	require.Equal(t, watermark, s.committed(t, conn, 0, 1, 2, 3, 4, 5), "what is finished is committed")
	require.Empty(t, s.members(t, conn), "the group is left")
	require.Zero(t, m.logs.FilterMessageSnippet("too long").Len())
}

func TestIdleReadersCloseTogether(t *testing.T) { onEachBroker(t, 12, idleReadersCloseTogether) }

func idleReadersCloseTogether(t *testing.T, s *site) {
	partitions := s.partitions
	conn, other := s.connect(t), s.connect(t)
	a := s.join(t, conn, Config{Handle: atOnce})
	a.requireAssigned(t, partitions)
	for p := range partitions {
		s.requireCommitted(t, conn, p, 0)
	}
	begun := time.Now()
	b := s.join(t, other, Config{Handle: atOnce})
	b.requireAssigned(t, partitions/2)
	a.requireAssigned(t, partitions/2)
	require.Less(t, time.Since(begun), 4*time.Second, "a rebalance does not wait for readers")
	require.Less(t, a.stop(t), 4*time.Second)
	b.requireAssigned(t, partitions)
	require.Less(t, b.stop(t), 4*time.Second)
}

func TestDrainTimeoutCancelsHandlers(t *testing.T) { onEachBroker(t, 1, drainTimeoutCancelsHandlers) }

func drainTimeoutCancelsHandlers(t *testing.T, s *site) {
	conn := s.connect(t)
	s.fill(t, conn, 0, 5, ownKey)
	j := s.watch(t, newJournal())
	m := s.join(t, conn, Config{DrainTimeout: 300 * time.Millisecond, Handle: j.handler("m", func(ctx context.Context, m kafka.Message) Outcome {
		if m.Offset < 2 {
			return Outcome{AtRest: true}
		}
		<-ctx.Done()
		return Outcome{HoldFor: time.Hour}
	})})
	require.Eventually(t, func() bool { return j.runningNow() == 3 }, patience, glimpse)
	took := m.stop(t)
	require.Greater(t, took, 300*time.Millisecond)
	require.Less(t, took, 3*time.Second)
	require.Equal(t, int64(2), s.committed(t, conn, 0)[0])
	require.Empty(t, s.members(t, conn))
	require.Equal(t, 1, m.logs.FilterMessageSnippet("not finished in time").Len())
}

func TestHandlerThatIgnoresItsContextIsLeftBehind(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 1, ownKey)
	j := newJournal()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	m := join(t, conn, Config{DrainTimeout: 100 * time.Millisecond, Handle: j.handler("m", func(context.Context, kafka.Message) Outcome {
		<-release
		return Outcome{AtRest: true}
	})})
	require.Eventually(t, func() bool { return j.runningNow() == 1 }, patience, glimpse)
	require.Less(t, m.stop(t), cancelTimeout+3*time.Second)
	require.Equal(t, int64(0), committed(t, conn, 0)[0])
	require.Empty(t, cluster.GroupInfo(group).Members)
}

func TestRebalanceWhileDraining(t *testing.T) { onEachBroker(t, 4, rebalanceWhileDraining) }

func rebalanceWhileDraining(t *testing.T, s *site) {
	partitions := s.partitions
	conn, other := s.connect(t), s.connect(t)
	for p := range partitions {
		s.fill(t, conn, p, 1, ownKey)
	}
	j := s.watch(t, newJournal())
	release := make(chan struct{})
	a := s.join(t, conn, Config{Handle: j.handler("a", func(context.Context, kafka.Message) Outcome {
		<-release
		return Outcome{AtRest: true}
	})})
	require.Eventually(t, func() bool { return j.runningNow() == partitions }, patience, glimpse)
	a.cancel()
	b := s.join(t, other, Config{Handle: j.handler("b", atOnce)})
	b.requireAssigned(t, partitions/2)
	require.Eventually(t, func() bool { return a.rebalancesSeen() == 2 }, patience, glimpse)
	close(release)
	require.Less(t, a.stop(t), 5*time.Second)
	b.requireAssigned(t, partitions)
	for p := range partitions {
		s.requireCommitted(t, conn, p, 1)
	}
	j.requireCommitsRight(t)
	require.LessOrEqual(t, j.completed, partitions+partitions/2, "what stayed was committed while it drained")
}

func TestT12StopDoesNotWaitForAJoin(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	stalled, stall := make(chan struct{}, 10), make(chan struct{})
	t.Cleanup(func() { close(stall) })
	cluster.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.SleepControl(func() { stalled <- struct{}{}; <-stall })
		return nil, nil, false
	})
	m := join(t, connect(t, cluster), Config{Handle: atOnce})
	<-stalled
	require.Less(t, m.stop(t), closeTimeout+3*time.Second)
}

func TestT12StopLeavesAGroupThatIsBeingJoined(t *testing.T) {
	onEachBroker(t, 2, stopLeavesAGroupThatIsBeingJoined)
}

func stopLeavesAGroupThatIsBeingJoined(t *testing.T, s *site) {
	conn, other := s.connect(t), s.connect(t)
	m := s.join(t, conn, Config{SessionTimeout: 25 * time.Second, Handle: atOnce})
	m.requireAssigned(t, 2)
	// A member that joined once and never again: everybody's join waits for it.
	silent, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: s.group, Brokers: other.brokers, Topics: []string{s.topic}, SessionTimeout: 25 * time.Second,
	})
	require.NoError(t, err)
	generation, err := silent.Next(t.Context())
	require.NoError(t, err)
	stay := make(chan struct{})
	generation.Start(func(context.Context) { <-stay })
	m.requireAssigned(t, 1)
	third, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: s.group, Brokers: other.brokers, Topics: []string{s.topic}, SessionTimeout: 25 * time.Second,
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !m.gate.isOpen() }, patience, glimpse, "the member is joining again")

	id := m.current().MemberID
	require.Less(t, m.stop(t), closeTimeout+3*time.Second)
	require.Eventually(t, func() bool { return !slices.Contains(s.members(t, conn), id) }, 5*time.Second, glimpse, "it is not a phantom until its session ends")
	close(stay)
	require.NoError(t, silent.Close())
	require.NoError(t, third.Close())
}

func TestStopBeforeTheBrokerAnswers(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	conn, err := NewConnection(ConnectionConfig{Brokers: []string{listener.Addr().String()}, ClientID: "test"})
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	m := join(t, conn, Config{Handle: atOnce})
	require.Less(t, m.stop(t), 3*closeTimeout)
}

func TestRestartAfterAKillRepeatsOnlyWhatIsUncommitted(t *testing.T) {
	onEachBroker(t, 1, restartAfterAKillRepeatsOnlyWhatIsUncommitted)
}

func restartAfterAKillRepeatsOnlyWhatIsUncommitted(t *testing.T, s *site) {
	const n, concurrency = 400, 8
	conn, doomed := s.connect(t), s.connect(t)
	life := newLifeline(doomed)
	s.fill(t, conn, 0, n, ownKey)
	j := s.watch(t, newJournal())
	killed := s.join(t, doomed, Config{
		Concurrency: concurrency, SessionTimeout: 2 * time.Second, Handle: j.handler("killed", after(40*time.Millisecond)),
	})
	require.Eventually(t, func() bool { return s.committedNow(t, conn, 0) > 100 }, patience, glimpse)
	life.cut()
	killed.stop(t)
	from := s.committed(t, conn, 0)[0]

	next := newJournal()
	s.join(t, conn, Config{Concurrency: concurrency, Handle: next.handler("next", func(ctx context.Context, m kafka.Message) Outcome {
		j.rest(placeOf(m))
		return Outcome{AtRest: true}
	})})
	s.requireCommitted(t, conn, 0, n)
	require.Zero(t, next.begunAt(0, from-1), "what is committed is not repeated")
	require.Equal(t, n-int(from), next.begunEvents(), "everything else is worked")
	j.requireRight(t)
}

func TestBrokerRestart(t *testing.T) {
	t.Parallel()
	port := freePorts(t, 1)[0]
	options := []kfake.Opt{kfake.DataDir(t.TempDir()), kfake.SyncWrites(), kfake.Ports(port)}

	cluster := newBroker(t, 2, options...)
	conn := connect(t, cluster)
	publisher := NewPublisher(conn, topic)
	t.Cleanup(func() { publisher.Close() })
	fill(t, conn, 0, 600, ownKey)
	j := newJournal().watch(cluster)
	m := join(t, conn, Config{Concurrency: 4, Handle: j.handler("m", after(10*time.Millisecond))})
	require.Eventually(t, func() bool { return committed(t, conn, 0)[0] > 50 }, patience, glimpse)
	require.NoError(t, conn.Ping(t.Context()))

	cluster.Close()
	require.ErrorContains(t, conn.Ping(t.Context()), fmt.Sprintf("127.0.0.1:%d", port), "an absent broker is noticed at once")
	cluster = newBroker(t, 2, options...)
	j.watch(cluster)
	receipt := publisher.Publish(t.Context(), kafka.Message{Key: []byte("late")})[0]
	for receipt.Unknown { // it went out on a connection that the old broker had closed, which only the caller may repeat
		receipt = publisher.Publish(t.Context(), kafka.Message{Key: []byte("late")})[0]
	}
	require.NoError(t, receipt.Err, "a record that meets a restart is written in the end")

	j.requireRested(t, 601)
	requireCommitted(t, conn, 0, 600+int64(1-receipt.Partition))
	require.LessOrEqual(t, j.completed, 601+2*150, "only what was not committed is repeated")
	m.requireAssigned(t, 2)
	j.requireCommitsRight(t)
}
