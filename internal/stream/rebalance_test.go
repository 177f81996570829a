package stream

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestT7WorkGoesOnAcrossRebalances(t *testing.T) { onEachBroker(t, 12, workGoesOnAcrossRebalances) }

func workGoesOnAcrossRebalances(t *testing.T, s *site) {
	const each = 400
	partitions := s.partitions
	conn, other := s.connect(t), s.connect(t)
	for p := range partitions {
		s.fill(t, conn, p, each, func(i int) string { return strconv.Itoa(p) + ownKey(i%100) })
	}
	j := s.watch(t, newJournal())
	a := s.join(t, conn, Config{Concurrency: 32, Handle: j.handler("a", after(60*time.Millisecond))})
	a.requireAssigned(t, partitions)
	j.requireRested(t, 200)

	b := s.join(t, other, Config{Concurrency: 32, Handle: j.handler("b", after(60*time.Millisecond))})
	b.requireAssigned(t, partitions/2)
	a.requireAssigned(t, partitions/2)
	lost := b.owned()
	for id := range a.owned() {
		require.False(t, lost[id], "a partition has one owner")
	}
	seen := j.restedEvents()
	j.requireRested(t, seen+300)
	b.stop(t)
	a.requireAssigned(t, partitions)

	j.requireRested(t, partitions*each)
	for p := range partitions {
		s.requireCommitted(t, conn, p, each)
	}
	j.requireRight(t)
	require.Equal(t, 3, a.rebalancesSeen(), "T8: one generation for each change")
	twice := 0
	for at, n := range j.begun {
		if n > 1 {
			require.True(t, lost[at.partition], "partition %d stayed, so it keeps its position", at.partition)
			twice += n - 1
		}
	}
	require.Less(t, twice, partitions*each/10, "only what was in flight or not yet committed is worked twice")
	require.Less(t, j.gap, 2*time.Second, "completions go on while the group changes")
	t.Logf("longest gap between completions %v, worked twice %d of %d", j.gap, twice, partitions*each)
}

func TestT1CommitsAreFenced(t *testing.T) { onEachBroker(t, 2, commitsAreFenced) }

func commitsAreFenced(t *testing.T, s *site) {
	partitions := s.partitions
	conn, other := s.connect(t), s.connect(t)
	for p := range partitions {
		s.fill(t, conn, p, 10, ownKey)
	}
	j := s.watch(t, newJournal())
	releaseA, releaseB := make(chan struct{}), make(chan struct{})
	blocked := func(release chan struct{}) Handler {
		return func(context.Context, kafka.Message) Outcome {
			<-release
			return Outcome{AtRest: true}
		}
	}
	a := s.join(t, conn, Config{Concurrency: 4, Handle: j.handler("a", blocked(releaseA))})
	require.Eventually(t, func() bool { return j.runningNow() == 4 }, patience, glimpse)
	b := s.join(t, other, Config{Concurrency: 20, Handle: j.handler("b", blocked(releaseB))})
	b.requireAssigned(t, 1)
	a.requireAssigned(t, 1)
	var kept, lost int
	for id := range b.owned() {
		kept, lost = 1-id, id
	}
	require.Eventually(t, func() bool { return j.runningNow() == 14 }, patience, glimpse, "b works all of its partition")

	close(releaseA) // a finishes what it had begun of either, and all of what it keeps
	s.requireCommitted(t, conn, kept, 10)
	require.Equal(t, int64(0), s.committed(t, conn, lost)[lost], "a result of a lost partition is not committed by us")
	for offset := range int64(10) {
		require.Positive(t, j.begunAt(lost, offset))
	}
	j.mu.Lock()
	for at, by := range j.by {
		if at.partition == lost {
			require.Equal(t, "b", by, "an event of a lost partition that had not begun is dropped")
		}
	}
	j.mu.Unlock()
	close(releaseB)
	s.requireCommitted(t, conn, lost, 10)
	j.requireRight(t)
}

func TestCommitOfAnOlderGenerationIsNotSent(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	commits := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: group, Observe: true, Count: -1})
	c := NewConsumer(conn, Config{Topic: topic, Window: 1})
	c.fetching = t.Context()
	old, current := &kafka.Generation{ID: 1, GroupID: group}, &kafka.Generation{ID: 2, GroupID: group}
	p := c.newPartition(0)
	p.tracker.begin(5, uncommitted)
	c.partitions[0], c.generation = p, current
	c.commit(t.Context(), old)
	c.commit(t.Context(), nil)
	require.Zero(t, commits.Hits())

	c.gate.set(true)
	c.suspend(old)
	require.True(t, c.gate.isOpen(), "an older generation that ends late does not stop fetching")
}

func TestT4CommitsDoNotOvertakeEachOther(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	c := NewConsumer(conn, Config{Topic: topic, Window: 1, Log: nopLog})
	c.fetching = t.Context()
	c.generation = &kafka.Generation{ID: -1, GroupID: group}
	p := c.newPartition(0)
	p.tracker.begin(0, 0)
	c.partitions[0] = p
	var mu sync.Mutex
	var seen []int64
	stall := make(chan struct{})
	cluster.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		mu.Lock()
		seen = append(seen, r.(*kmsg.OffsetCommitRequest).Topics[0].Partitions[0].Offset)
		first := len(seen) == 1
		mu.Unlock()
		if first {
			cluster.SleepControl(func() { <-stall })
		}
		return nil, nil, false
	})
	var commits sync.WaitGroup
	for offset := range int64(2) {
		p.tracker.deliver(kafka.Message{Offset: offset})
		p.tracker.rest(offset)
		commits.Go(func() { c.commit(t.Context(), c.generation) })
		require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) > 0 }, patience, glimpse)
	}
	require.Never(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) > 1 }, 200*time.Millisecond, glimpse)
	close(stall)
	commits.Wait()
	require.Equal(t, []int64{1, 2}, seen)
	require.Equal(t, int64(2), committed(t, conn, 0)[0])
}

func TestT14FailedJoinLeavesNoPhantom(t *testing.T) {
	t.Parallel()
	const session = 25 * time.Second
	for name, stubborn := range map[string]int{"at once": 0, "until it is acknowledged": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := newBroker(t, 2)
			conn := connect(t, cluster)
			fill(t, conn, 0, 10, ownKey)
			j := newJournal().watch(cluster)
			m := join(t, conn, Config{SessionTimeout: session, Handle: j.handler("m", atOnce)})
			requireCommitted(t, conn, 0, 10)

			moved := cluster.Fault(
				kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, Err: kerr.NotCoordinator},
				kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Group: group, Err: kerr.NotCoordinator},
			)
			if stubborn > 0 {
				cluster.Fault(kfake.Fault{
					Keys: []kmsg.Key{kmsg.LeaveGroup}, Group: group, TopLevel: true, Err: kerr.NotCoordinator, Count: stubborn,
				})
			}
			require.NoError(t, moved.Wait(t.Context(), 2))
			begun := time.Now()
			fill(t, conn, 1, 10, ownKey)
			j.requireRested(t, 20)
			require.Less(t, time.Since(begun), session/3)
			m.requireAssigned(t, 2)
			requireCommitted(t, conn, 1, 10)
			require.Len(t, cluster.GroupInfo(group).Members, 1)
			j.requireRight(t)
		})
	}
}

// The library leaves the group then, once, and tells nobody when that failed.
func TestT14JoinThatFailsAtItsEndLeavesNoPhantom(t *testing.T) {
	t.Parallel()
	const session = 25 * time.Second
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, ownKey)
	cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.SyncGroup}, Group: group, Err: kerr.NotCoordinator},
		kfake.Fault{Keys: []kmsg.Key{kmsg.LeaveGroup}, Group: group, TopLevel: true, Err: kerr.NotCoordinator, Count: 2},
	)
	begun := time.Now()
	join(t, conn, Config{SessionTimeout: session, Handle: atOnce})
	requireCommitted(t, conn, 0, 10)
	require.Less(t, time.Since(begun), session/3)
	require.Len(t, cluster.GroupInfo(group).Members, 1)
}

func TestT14StopLeavesNoPhantomEither(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	m := join(t, connect(t, cluster), Config{Handle: atOnce})
	m.requireAssigned(t, 1)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.LeaveGroup}, Group: group, TopLevel: true, Err: kerr.NotCoordinator, Count: 2})
	m.stop(t)
	require.Empty(t, cluster.GroupInfo(group).Members)
}

func TestOvertakenRebalanceKeepsTheMembership(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	fill(t, conn, 0, 10, ownKey)
	j := newJournal()
	m := join(t, conn, Config{Handle: j.handler("m", atOnce)})
	requireCommitted(t, conn, 0, 10)
	leaves := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.LeaveGroup}, Group: group, Observe: true, Count: -1})
	cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, Err: kerr.RebalanceInProgress},
		kfake.Fault{Keys: []kmsg.Key{kmsg.SyncGroup}, Group: group, Err: kerr.RebalanceInProgress},
	)
	before := cluster.GroupInfo(group).Members[0].MemberID
	require.Eventually(t, func() bool { return m.rebalancesSeen() == 2 }, patience, glimpse)
	fill(t, conn, 0, 10, ownKey)
	requireCommitted(t, conn, 0, 20)
	require.Zero(t, leaves.Hits())
	require.Equal(t, before, cluster.GroupInfo(group).Members[0].MemberID)
	require.NotZero(t, m.logs.FilterMessageSnippet("it changed meanwhile").Len())
}

func TestEvictedMemberStartsAnew(t *testing.T) { onEachBroker(t, 1, evictedMemberStartsAnew) }

func evictedMemberStartsAnew(t *testing.T, s *site) {
	conn := s.connect(t)
	s.fill(t, conn, 0, 10, ownKey)
	j := s.watch(t, newJournal())
	release := make(chan struct{})
	m := s.join(t, conn, Config{SessionTimeout: 2 * time.Second, Handle: j.handler("m", func(_ context.Context, m kafka.Message) Outcome {
		if m.Offset == 4 && j.begunAt(0, 4) == 1 {
			<-release
		}
		return Outcome{AtRest: true}
	})})
	s.requireCommitted(t, conn, 0, 4)
	require.Equal(t, m.current().MemberID, m.member(), "the library logs it otherwise now: look after groupNews")
	require.NoError(t, m.leaveGroup(t.Context(), m.member()), "evict it")
	require.NoError(t, m.leaveGroup(t.Context(), "nobody"))
	require.NoError(t, NewConsumer(conn, Config{Group: "no such group", Log: nopLog}).leaveGroup(t.Context(), "nobody"))
	// Somebody else may have worked the partition: it is read again from what
	// was committed, and the event in flight is offered beside itself.
	s.requireCommitted(t, conn, 0, 10)
	require.Equal(t, 2, j.begunAt(0, 4))
	close(release)
	m.stop(t)
	j.requireCommitsRight(t)
}

func TestT37LeaveGroupHidesItsError(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.LeaveGroup}, Group: group, TopLevel: true, Err: kerr.NotCoordinator})
	response, err := conn.client.LeaveGroup(t.Context(), &kafka.LeaveGroupRequest{
		GroupID: group, Members: []kafka.LeaveGroupRequestMember{{ID: "nobody"}},
	})
	require.NoError(t, err)
	require.NoError(t, response.Error, "the library has been mended: leaveError may be simpler")
	require.ErrorIs(t, leaveError(response), kafka.NotCoordinatorForGroup)
}

func TestMembersComeAndGo(t *testing.T) { onEachBroker(t, 6, membersComeAndGo) }

func membersComeAndGo(t *testing.T, s *site) {
	const members, lasts = 5, 5 * time.Second
	partitions := s.partitions
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 7))
	feed := s.connect(t)
	j := s.watch(t, newJournal())
	handle := func(ctx context.Context, m kafka.Message) Outcome {
		switch n := j.begunAt(m.Partition, m.Offset); {
		case m.Offset%97 == 0 && n == 1:
			return Outcome{HoldFor: 30 * time.Millisecond}
		case m.Offset%13 == 0:
			return after(80*time.Millisecond)(ctx, m)
		}
		return after(3*time.Millisecond)(ctx, m)
	}
	running := map[int]*member{}
	total := make([]int, partitions)
	next := time.NewTicker(250 * time.Millisecond)
	defer next.Stop()
	for end := time.Now().Add(lasts); time.Now().Before(end); <-next.C {
		p := random.IntN(partitions)
		n := 20 + random.IntN(200)
		s.fill(t, feed, p, n, func(i int) string { return strconv.Itoa(p) + ownKey(i%17) })
		total[p] += n
		id := random.IntN(members)
		switch m := running[id]; {
		case random.IntN(3) > 0: // let it work
		case m == nil:
			running[id] = s.join(t, s.connect(t), Config{Concurrency: 8, Handle: j.handler(strconv.Itoa(id), handle)})
		default:
			// It leaves while others come and go, and this does not wait for it.
			m.cancel()
			delete(running, id)
		}
	}
	s.join(t, s.connect(t), Config{Concurrency: 32, Handle: j.handler("last", handle)})
	sum := 0
	for p, n := range total {
		s.requireCommitted(t, feed, p, int64(n))
		sum += n
	}
	j.requireRested(t, sum)
	j.requireCommitsRight(t)
	t.Logf("%d events, %d handled", sum, j.completed)
}
