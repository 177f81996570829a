package stream

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

func TestPauseStopsAndResumeOffersAgainAtOnce(t *testing.T) {
	t.Parallel()
	const n, concurrency, window = 300, 8, 40
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, n, ownKey)
	j := newJournal().watch(cluster)
	var down atomic.Bool
	down.Store(true)
	m := join(t, conn, Config{Concurrency: concurrency, Window: window, Handle: j.handler("m", func(context.Context, kafka.Message) Outcome {
		if down.Load() {
			return Outcome{HoldFor: time.Minute}
		}
		return Outcome{AtRest: true}
	})})
	require.Eventually(t, func() bool { return j.begunEvents() == window }, patience, glimpse)
	m.Pause("cert")
	m.Pause("ledger")
	m.Pause("cert")
	before := j.count(func() int { return len(j.order[ownKey(0)]) })
	require.Equal(t, 1, before, "a held event waits")
	begun := func() int { return j.count(func() int { return sum(j.begun) }) }
	require.Never(t, func() bool { return begun() > window+3 }, 2500*time.Millisecond, glimpse, "one probe a second")
	require.Greater(t, begun(), window, "there are probes")

	down.Store(false)
	m.Resume("cert")
	require.False(t, m.pause.running.isOpen(), "there is another cause")
	resumed := time.Now()
	m.Resume("ledger")
	m.Resume("ledger")
	j.requireRested(t, n)
	require.Less(t, time.Since(resumed), 3*time.Second, "no held event waits for its minute")
	requireCommitted(t, conn, 0, n)
	j.requireRight(t)
	require.Equal(t, 1, m.logs.FilterMessage("paused").Len())
	require.Equal(t, 1, m.logs.FilterMessage("resumed").Len())
}

func sum(counts map[place]int) (total int) {
	for _, n := range counts {
		total += n
	}
	return total
}

// TestPauseProbesTellThatTheCauseHasGone has the handler resume, as the breaker
// of a service does when a call succeeds.
func TestPauseProbesTellThatTheCauseHasGone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		first  int // worked and held before the pause
		second int // written after it
	}{
		"one held event":                 {first: 1},
		"nothing here, one record comes": {second: 1},
		"nothing held, a backlog":        {second: 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const partitions = 12
			cluster := newBroker(t, partitions)
			conn := connect(t, cluster)
			j := newJournal()
			var down atomic.Bool
			down.Store(true)
			var m *member
			made := make(chan struct{})
			m = join(t, conn, Config{Handle: j.handler("m", func(context.Context, kafka.Message) Outcome {
				<-made
				if down.Load() {
					return Outcome{HoldFor: time.Hour}
				}
				m.Resume("down")
				return Outcome{AtRest: true}
			})})
			close(made)
			fill(t, conn, 7, test.first, ownKey)
			m.requireAssigned(t, partitions)
			require.Eventually(t, func() bool { return j.begunEvents() == test.first }, patience, glimpse)
			m.Pause("down")
			fill(t, conn, 7, test.second, ownKey)
			require.Eventually(t, func() bool { return j.count(func() int { return sum(j.begun) }) > 2 }, patience, glimpse,
				"the same event probes again")
			require.LessOrEqual(t, j.begunEvents(), 2)
			down.Store(false)
			gone := time.Now()
			j.requireRested(t, test.first+test.second)
			require.Less(t, time.Since(gone), 2500*time.Millisecond)
		})
	}
}

func TestPausedConsumerFetchesOneRecordOfAPartitionAtMost(t *testing.T) {
	t.Parallel()
	const partitions, each = 4, 50
	cluster := newBroker(t, partitions)
	conn := connect(t, cluster)
	for p := range partitions {
		fill(t, conn, p, each, ownKey)
	}
	j := newJournal()
	release := make(chan struct{})
	m := join(t, conn, Config{Handle: j.handler("m", func(context.Context, kafka.Message) Outcome {
		<-release
		return Outcome{AtRest: true}
	})})
	m.Pause("down") // before there is a generation
	require.Eventually(t, func() bool { return j.runningNow() == maxProbes }, patience, glimpse)
	require.Never(t, func() bool { return j.runningNow() > maxProbes }, 2*probeInterval, glimpse, "they take long")
	fetched := int64(0)
	for _, p := range m.holding() {
		position, _ := p.tracker.frontier()
		fetched += position
	}
	require.LessOrEqual(t, fetched, int64(partitions+maxProbes))
	for p := range partitions {
		require.Equal(t, each, m.lagShown(t, p), "the lag is known all the same")
	}
	close(release)
	m.Resume("down")
	j.requireRested(t, partitions*each)
}

func TestPauseProbesWithHeldEventsInTurn(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 2)
	conn := connect(t, cluster)
	j := newJournal()
	m := join(t, conn, Config{Handle: j.handler("m", func(context.Context, kafka.Message) Outcome {
		return Outcome{HoldFor: time.Hour}
	})})
	fill(t, conn, 0, 1, ownKey)
	fill(t, conn, 1, 1, ownKey)
	require.Eventually(t, func() bool { return j.begunEvents() == 2 }, patience, glimpse)
	m.Pause("down")
	fill(t, conn, 0, 20, func(i int) string { return "fresh" + strconv.Itoa(i) })
	require.Eventually(t, func() bool { return j.begunAt(0, 0) == 2 && j.begunAt(1, 0) == 2 }, patience, glimpse,
		"each partition has its turn")
	require.Equal(t, 2, j.begunEvents(), "held events probe before fresh ones")
	require.Eventually(t, func() bool { return j.begunEvents() == 3 }, patience, glimpse,
		"but not for ever: something else may hold them")
}

func TestStopAndRebalanceWhilePaused(t *testing.T) {
	t.Parallel()
	const partitions, each = 2, 20
	cluster := newBroker(t, partitions)
	conn, other := connect(t, cluster), connect(t, cluster)
	for p := range partitions {
		fill(t, conn, p, each, ownKey)
	}
	j := newJournal().watch(cluster)
	a := join(t, conn, Config{Handle: j.handler("a", func(context.Context, kafka.Message) Outcome {
		return Outcome{HoldFor: time.Hour}
	})})
	require.Eventually(t, func() bool { return j.begunEvents() == partitions*each }, patience, glimpse)
	a.Pause("down")
	b := join(t, other, Config{Handle: j.handler("b", atOnce)})
	b.requireAssigned(t, 1)
	j.requireRested(t, each)
	for id := range b.owned() {
		requireCommitted(t, conn, id, each)
	}
	require.Less(t, a.stop(t), 4*time.Second)
	j.requireRested(t, partitions*each)
	j.requireCommitsRight(t)
}
