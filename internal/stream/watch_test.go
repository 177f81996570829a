package stream

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// hasty sees at once what takes the watch half a minute otherwise.
var hasty = timing{
	look: 50 * time.Millisecond, stall: 400 * time.Millisecond, rebalance: time.Minute, silence: time.Hour, refresh: time.Hour,
}

func (m *member) rebuilds(what string) int {
	return int(testutil.ToFloat64(m.Metrics.rebuilds.WithLabelValues(what)))
}

// stall has readers fetch nothing any more, while the broker's other requests go
// on, and so does a fetch of another kind.
func stall(cluster *kfake.Cluster) *kfake.FaultHandle {
	const readers = 10 // the version that a reader fetches with
	return cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.UnknownServerError, Count: -1,
		When: func(r kmsg.Request) bool { return r.GetVersion() == readers },
	})
}

func TestT13StalledReaderIsMadeAnew(t *testing.T) {
	t.Parallel()
	for _, what := range []string{rebuiltReader, rebuiltMembership} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			cluster := newBroker(t, 2)
			conn := connect(t, cluster)
			j := newJournal().watch(cluster)
			fill(t, conn, 0, 10, ownKey)
			m := join(t, conn, Config{timing: hasty, Handle: j.handler("m", atOnce)})
			requireCommitted(t, conn, 0, 10)
			stalled := stall(cluster)
			require.NoError(t, stalled.Wait(t.Context(), 3))
			fill(t, conn, 0, 10, ownKey)
			require.Eventually(t, func() bool { return m.rebuilds(what) == 1 }, patience, glimpse)
			if what == rebuiltReader {
				require.Zero(t, m.rebuilds(rebuiltMembership), "the smaller remedy comes first")
			}
			stalled.Remove()
			requireCommitted(t, conn, 0, 20)
			require.Equal(t, 20, j.completed, "each is worked once")
			require.Len(t, cluster.GroupInfo(group).Members, 1)
			require.NotZero(t, m.logs.FilterMessageSnippet("they are not fetched").Len())
			j.requireRight(t)
		})
	}
}

func TestT13WhereThereIsNothingToFetchNothingIsMadeAnew(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 2)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, ownKey)
	j := newJournal()
	m := join(t, conn, Config{timing: hasty, Window: 5, Handle: j.handler("m", func(context.Context, kafka.Message) Outcome {
		return Outcome{HoldFor: time.Hour}
	})})
	require.Eventually(t, func() bool { return j.begunEvents() == 5 }, patience, glimpse, "the window is full")
	m.Pause("down")
	fill(t, conn, 1, 10, ownKey)
	require.Never(t, func() bool { return m.rebuilds(rebuiltReader)+m.rebuilds(rebuiltMembership) > 0 }, 4*hasty.stall, glimpse)
	require.True(t, conn.hasRecord(t.Context(), topic, 0, 9))
	require.False(t, conn.hasRecord(t.Context(), topic, 0, 10), "the end of a transaction is not a record")
}

func TestT13GroupThatHangsIsJoinedAnew(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, ownKey)
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	var joins atomic.Int32
	cluster.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		if joins.Add(1) == 1 {
			cluster.SleepControl(func() { <-hang })
		}
		return nil, nil, false
	})
	impatient := hasty
	impatient.silence = time.Second
	j := newJournal()
	m := join(t, conn, Config{timing: impatient, Handle: j.handler("m", atOnce)})
	requireCommitted(t, conn, 0, 10)
	require.Equal(t, 1, m.rebuilds(rebuiltMembership))
}

func TestT24LagIsKnownWhateverIsFetched(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 2)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, ownKey)
	j := newJournal()
	release := make(chan struct{})
	m := join(t, conn, Config{timing: hasty, Window: 5, Handle: j.handler("m", func(context.Context, kafka.Message) Outcome {
		<-release
		return Outcome{AtRest: true}
	})})
	requireLag := func(partition, lag int) {
		t.Helper()
		require.Eventually(t, func() bool {
			shown, ok := m.shown(t, "ecreds_consumer_lag")[strconv.Itoa(partition)] // not before it is first asked for
			return ok && int(shown) == lag
		}, patience, glimpse)
	}
	require.Eventually(t, func() bool { return j.runningNow() == 5 }, patience, glimpse)
	requireLag(0, 10)
	requireLag(1, 0)
	fill(t, conn, 0, 20, ownKey)
	requireLag(0, 30) // behind a full window
	m.Pause("down")
	fill(t, conn, 1, 20, ownKey)
	requireLag(1, 20) // in a pause
	close(release)
	m.Resume("down")
	requireLag(0, 0)
	requireLag(1, 0)
}

func TestOldestEventsAge(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	write := func(age time.Duration) {
		response, err := conn.client.Produce(t.Context(), &kafka.ProduceRequest{
			Topic: topic, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Time: time.Now().Add(-age), Value: kafka.NewBytes([]byte("v"))}),
		})
		require.NoError(t, err)
		require.NoError(t, response.Error)
	}
	release := map[int64]chan struct{}{0: make(chan struct{}), 1: make(chan struct{})}
	j := newJournal()
	m := join(t, conn, Config{Handle: j.handler("m", func(_ context.Context, m kafka.Message) Outcome {
		<-release[m.Offset]
		return Outcome{AtRest: true}
	})})
	age := func() float64 { return m.shown(t, "ecreds_oldest_event_age_seconds")[""] }
	require.Zero(t, age())
	write(time.Minute)
	write(time.Hour) // from a producer whose clock is wrong
	require.Eventually(t, func() bool { return j.runningNow() == 2 }, patience, glimpse)
	require.InDelta(t, 3600, age(), 30)
	close(release[1])
	require.Eventually(t, func() bool { return age() < 120 }, patience, glimpse)
	require.InDelta(t, 60, age(), 30)
	close(release[0])
	require.Eventually(t, func() bool { return age() == 0 }, patience, glimpse)
}

func TestT15IdlePartitionsAreCommittedAgain(t *testing.T) {
	t.Parallel()
	s := newFakeSite(t, 1)
	conn := s.connect(t)
	s.fill(t, conn, 0, 10, ownKey)
	s.commitFor(t, conn, kafka.OffsetCommit{Offset: 10})
	commits := s.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: group, Observe: true, Count: -1})
	seldom := join(t, conn, Config{Handle: atOnce})
	require.NoError(t, commits.Wait(t.Context(), 1), "how old an offset is that we find, nobody says")
	require.Never(t, func() bool { return commits.Hits() > 1 }, 2*commitInterval, glimpse)
	seldom.stop(t)
	forgetful := hasty
	forgetful.refresh = 100 * time.Millisecond
	join(t, conn, Config{timing: forgetful, Handle: atOnce})
	require.NoError(t, commits.Wait(t.Context(), 4))
	requireCommitted(t, conn, 0, 10)
}

func TestT7PartitionThatIsAddedIsWorked(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	j := newJournal()
	m := join(t, conn, Config{Handle: j.handler("m", atOnce)})
	m.requireAssigned(t, 1)
	response, err := conn.client.CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 2}},
	})
	require.NoError(t, err)
	require.NoError(t, response.Errors[topic])
	m.requireAssigned(t, 2)
	fill(t, conn, 1, 10, ownKey)
	j.requireRested(t, 10)
	requireCommitted(t, conn, 1, 10)
}
