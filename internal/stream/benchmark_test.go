package stream

import (
	"context"
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// workload is what a benchmark works. Timers stand for an event's calls, so that
// what is measured is this package and the client library, with the broker in
// the same process.
type workload struct {
	name        string
	partitions  int
	concurrency int
	calls       int
	call        time.Duration
	keys        func(i int) string
	events      int
}

const benchCalls, benchCall = 3, 50 * time.Millisecond

// BenchmarkConsumer compares what is reached with what the concurrency, or the
// busiest key, allows, and with a plain loop over a group's reader. One round
// is enough; it takes some seconds.
func BenchmarkConsumer(b *testing.B) {
	for _, l := range []workload{
		{name: "256×3×50ms/1partition", partitions: 1, concurrency: 256, calls: 3, call: benchCall, keys: ownKey, events: 10_000},
		{name: "256×3×50ms/12partitions", partitions: 12, concurrency: 256, calls: 3, call: benchCall, keys: ownKey, events: 10_000},
		{name: "1500×3×50ms/1partition", partitions: 1, concurrency: 1500, calls: 3, call: benchCall, keys: ownKey, events: 60_000},
		{name: "1500×3×50ms/12partitions", partitions: 12, concurrency: 1500, calls: 3, call: benchCall, keys: ownKey, events: 60_000},
		{name: "1000×3×100ms/12partitions", partitions: 12, concurrency: 1000, calls: 3, call: 2 * benchCall, keys: ownKey, events: 20_000},
		{name: "256×3×50ms/12partitions/zipf", partitions: 12, concurrency: 256, calls: 3, call: benchCall, keys: zipf(), events: 10_000},
		{name: "skip/1partition", partitions: 1, concurrency: 256, keys: ownKey, events: 200_000},
		{name: "skip/12partitions", partitions: 12, concurrency: 256, keys: ownKey, events: 200_000},
	} {
		b.Run(l.name, l.stream)
	}
	b.Run("plain/3×50ms", workload{concurrency: 1, calls: 3, call: benchCall, keys: ownKey, events: 30}.plain)
	b.Run("plain/skip", workload{concurrency: 1, keys: ownKey, events: 2000}.plain)
}

// zipf draws keys of which a few are busy.
func zipf() func(int) string {
	draw := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 20, 9_999)
	return func(int) string { return "z" + strconv.FormatUint(draw.Uint64(), 10) }
}

// fill writes the events, and returns how many the busiest key of a partition
// has.
func (l workload) fill(b *testing.B, conn *Connection) (busiest int) {
	b.Helper()
	for p := range l.partitions {
		of := map[string]int{}
		fill(b, conn, p, l.events/l.partitions, func(i int) string {
			key := l.keys(i)
			of[key]++
			busiest = max(busiest, of[key])
			return key
		})
	}
	return busiest
}

func (l workload) stream(b *testing.B) {
	l.events -= l.events % l.partitions
	for b.Loop() {
		cluster := newBroker(b, int32(l.partitions))
		conn := connect(b, cluster)
		busiest := l.fill(b, conn)
		begun, rested := make(chan struct{}, l.events), make(chan struct{}, l.events)
		m := join(b, conn, Config{
			Concurrency: l.concurrency, Window: max(1000, 2*l.concurrency),
			Handle: func(ctx context.Context, _ kafka.Message) Outcome {
				begun <- struct{}{}
				for range l.calls {
					sleep(ctx, l.call)
				}
				rested <- struct{}{}
				return Outcome{AtRest: true}
			},
		})
		<-begun
		l.measure(b, busiest, func() {
			for range l.events {
				<-rested
			}
		})
		m.stop(b)
		cluster.Close()
	}
}

func (l workload) plain(b *testing.B) {
	for b.Loop() {
		cluster := newBroker(b, 1)
		conn := connect(b, cluster)
		fill(b, conn, 0, l.events, l.keys)
		reader := kafka.NewReader(kafka.ReaderConfig{Brokers: conn.brokers, Topic: topic, GroupID: group, MaxWait: time.Second})
		message, err := reader.FetchMessage(b.Context())
		require.NoError(b, err)
		l.measure(b, 1, func() {
			for i := range l.events {
				for range l.calls {
					sleep(b.Context(), l.call)
				}
				require.NoError(b, reader.CommitMessages(b.Context(), message))
				if i < l.events-1 {
					message, err = reader.FetchMessage(b.Context())
					require.NoError(b, err)
				}
			}
		})
		require.NoError(b, reader.Close())
		cluster.Close()
	}
}

// measure reports the rate, its share of the bound, and the processor's time.
func (l workload) measure(b *testing.B, busiest int, work func()) {
	b.Helper()
	var before, after syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	begun := time.Now()
	work()
	took := time.Since(begun)
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(l.events)/took.Seconds(), "events/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(l.events), "cpu-µs/event")
	if each := time.Duration(l.calls) * l.call; each > 0 {
		least := max(each*time.Duration(l.events/l.concurrency), each*time.Duration(busiest))
		b.ReportMetric(100*least.Seconds()/took.Seconds(), "%bound")
	}
}

// BenchmarkGap reports the longest time without a completion while the group or
// its broker changes, with 256 events of 150 ms in flight; for the broker, from
// when it is back.
func BenchmarkGap(b *testing.B) {
	for name, change := range map[string]func(*gap){
		"join":        (*gap).join,
		"leave":       (*gap).leave,
		"coordinator": (*gap).moveCoordinator,
		"restart":     (*gap).restart,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				g := newGap(b)
				change(g)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(g.journal.longestGap().Milliseconds()), "gap-ms")
				for _, m := range g.members {
					m.stop(b)
				}
				g.cluster.Close()
			}
		})
	}
}

type gap struct {
	*testing.B
	options []kfake.Opt
	cluster *kfake.Cluster
	journal *journal
	members []*member
}

func newGap(b *testing.B) *gap {
	b.Helper()
	g := &gap{B: b, journal: newJournal(), options: []kfake.Opt{
		kfake.Ports(freePorts(b, 1)...), kfake.DataDir(b.TempDir()), kfake.SyncWrites(),
	}}
	g.cluster = newBroker(b, 12, g.options...)
	conn := connect(b, g.cluster)
	for p := range 12 {
		fill(b, conn, p, 4000, func(i int) string { return strconv.Itoa(p) + ownKey(i) })
	}
	g.members = []*member{g.member(), g.member()}
	g.journal.requireRested(b, 1000)
	g.settle(6, g.members...)
	g.journal.beginGap()
	return g
}

func (g *gap) member() *member {
	return join(g.B, connect(g.B, g.cluster), Config{Concurrency: 128, Handle: g.journal.handler("m", after(benchCalls*benchCall))})
}

// settle waits for a group, and for a while of it.
func (g *gap) settle(partitions int, members ...*member) {
	for _, m := range members {
		m.requireAssigned(g.B, partitions)
	}
	g.journal.requireRested(g.B, g.journal.restedEvents()+2000)
}

func (g *gap) join() {
	g.members = append(g.members, g.member())
	g.settle(4, g.members...)
}

func (g *gap) leave() {
	g.members[0].stop(g.B)
	g.settle(12, g.members[1])
}

// moved has each of n members meet a coordinator that is one no more, twice:
// when it says that it lives, and when it joins.
func moved(n int) []kfake.Fault {
	return []kfake.Fault{
		{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, Err: kerr.NotCoordinator, Count: n},
		{Keys: []kmsg.Key{kmsg.JoinGroup}, Group: group, Err: kerr.NotCoordinator, Count: n},
	}
}

func (g *gap) moveCoordinator() {
	before := g.members[0].rebalancesSeen()
	g.cluster.Fault(moved(len(g.members))...)
	require.Eventually(g.B, func() bool { return g.members[0].rebalancesSeen() > before }, patience, glimpse)
	g.settle(6, g.members...)
}

func (g *gap) restart() {
	g.cluster.Close()
	require.Eventually(g.B, func() bool { return g.journal.runningNow() == 0 }, patience, glimpse)
	g.cluster = newBroker(g.B, 12, g.options...)
	g.journal.beginGap()
	g.settle(6, g.members...)
}
