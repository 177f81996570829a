package stream

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// freePorts asks for ports that a broker can have again after its restart.
func freePorts(tb testing.TB, n int) (ports []int) {
	tb.Helper()
	if n == 0 {
		return nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	defer listener.Close() // when all are found, so that they differ
	return append(freePorts(tb, n-1), listener.Addr().(*net.TCPAddr).Port)
}

// soak is a group under load in which everything goes wrong that may.
type soak struct {
	*testing.T
	random  *rand.Rand
	options []kfake.Opt
	cluster *kfake.Cluster
	journal *journal
	running map[int]*soaked
	total   []int // records by partition
}

type soaked struct {
	*member
	life *lifeline
}

// hurried waits for nobody for long. This broker ends the session of who waits
// to join, too, and then does not answer him.
var hurried = timing{
	look: time.Second, stall: time.Minute, rebalance: 3 * time.Second, silence: time.Minute, refresh: time.Hour,
}

const soakPartitions, soakMembers = 6, 8

func (s *soak) start() {
	s.cluster = newBroker(s.T, soakPartitions, s.options...)
	s.journal.watch(s.cluster)
}

func (s *soak) handle(ctx context.Context, m kafka.Message) Outcome {
	switch n := s.journal.begunAt(m.Partition, m.Offset); {
	case m.Offset%97 == 0 && n == 1:
		return Outcome{HoldFor: 30 * time.Millisecond}
	case m.Offset%13 == 0:
		return after(80*time.Millisecond)(ctx, m)
	}
	return after(3*time.Millisecond)(ctx, m)
}

func (s *soak) join(id int) {
	conn := connect(s.T, s.cluster)
	life := newLifeline(conn)
	s.running[id] = &soaked{life: life, member: join(s.T, conn, Config{
		Concurrency: 8, SessionTimeout: 2 * time.Second, timing: hurried, Handle: s.journal.handler(strconv.Itoa(id), s.handle),
	})}
}

func (s *soak) write() {
	p, n := s.random.IntN(soakPartitions), 20+s.random.IntN(200)
	conn := connect(s.T, s.cluster) // which knows where the leaders are now
	fill(s.T, conn, p, n, func(i int) string { return strconv.Itoa(p) + ownKey(i%17) })
	s.total[p] += n
}

// fate lets something happen to a member.
func (s *soak) fate() {
	id := s.random.IntN(soakMembers)
	m := s.running[id]
	if m == nil {
		s.join(id)
		return
	}
	switch s.random.IntN(4) {
	case 0:
		m.cancel() // it leaves while others come and go, and this does not wait for it
		delete(s.running, id)
	case 1:
		m.life.cut() // it is killed
		m.cancel()
		delete(s.running, id)
	case 2:
		m.life.breakOne(s.random)
	case 3:
		m.Pause("soak")
		time.AfterFunc(300*time.Millisecond, func() { m.Resume("soak") })
	}
}

// fault lets something happen to the brokers.
func (s *soak) fault() {
	faults := []kfake.Fault{
		{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, Err: kerr.NotCoordinator},
		{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, Err: kerr.RebalanceInProgress},
		{Keys: []kmsg.Key{kmsg.JoinGroup}, Group: group, Err: kerr.CoordinatorLoadInProgress},
		{Keys: []kmsg.Key{kmsg.SyncGroup}, Group: group, Err: kerr.RebalanceInProgress},
		{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: group, Err: kerr.IllegalGeneration},
		{Keys: []kmsg.Key{kmsg.LeaveGroup}, Group: group, TopLevel: true, Err: kerr.NotCoordinator},
		{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: 3},
		{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: 3},
	}
	switch i := s.random.IntN(len(faults) + 2); i {
	case len(faults):
		s.cluster.RehashCoordinators()
	case len(faults) + 1:
		s.cluster.ShufflePartitionLeaders()
	default:
		s.cluster.Fault(faults[i])
	}
}

func TestSoakOfMembersThatComeAndGo(t *testing.T) {
	t.Parallel()
	const lasts = 10 * time.Second
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &soak{
		T: t, random: rand.New(rand.NewPCG(seed, 7)), journal: newJournal(), running: map[int]*soaked{}, total: make([]int, soakPartitions),
		options: []kfake.Opt{kfake.NumBrokers(3), kfake.Ports(freePorts(t, 3)...), kfake.DataDir(t.TempDir()), kfake.SyncWrites()},
	}
	s.start()
	next := time.NewTicker(200 * time.Millisecond)
	defer next.Stop()
	begun, restarted := time.Now(), false
	for ; time.Since(begun) < lasts; <-next.C {
		s.write()
		if s.random.IntN(2) == 0 {
			s.fate()
		}
		if s.random.IntN(2) == 0 {
			s.fault()
		}
		if !restarted && time.Since(begun) > lasts/2 {
			restarted = true
			s.cluster.Close()
			s.start()
		}
	}
	conn := connect(t, s.cluster)
	join(t, conn, Config{Concurrency: 32, timing: hurried, Handle: s.journal.handler("last", s.handle)})
	for _, m := range s.running {
		m.Resume("soak")
	}
	sum := 0
	for p, n := range s.total {
		requireCommitted(t, conn, p, int64(n))
		sum += n
	}
	s.journal.requireRested(t, sum)
	s.journal.requireCommitsRight(t)
	s.journal.requireOrder(t)
	t.Logf("%d events, %d handled", sum, s.journal.completed)
}
