package stream

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ecreds/issuer/internal/parts"
)

// TestMain lets more tests run at once than there are processors: they wait
// for sessions, heartbeats and commits, and compute next to nothing.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	// The broker in process ends its loop some time after Close, on a busy machine
	// later than goleak is patient.
	goleak.VerifyTestMain(parts.StopAfter(m), goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*Cluster).run"))
}

const (
	topic    = "requests"
	group    = "workers"
	patience = 30 * time.Second // for whatever must happen
	glimpse  = 5 * time.Millisecond
)

// newBroker starts a broker with the topic.
func newBroker(tb testing.TB, partitions int32, options ...kfake.Opt) *kfake.Cluster {
	tb.Helper()
	options = append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic), kfake.GroupMinSessionTimeout(time.Second),
	}, options...)
	cluster, err := kfake.NewCluster(options...)
	require.NoError(tb, err)
	tb.Cleanup(cluster.Close)
	return cluster
}

func connect(tb testing.TB, cluster addressed) *Connection {
	tb.Helper()
	conn, err := NewConnection(ConnectionConfig{Brokers: cluster.ListenAddrs(), ClientID: "test"})
	require.NoError(tb, err)
	tb.Cleanup(conn.Close)
	return conn
}

// fill writes n records to a partition, with keys made from their numbers.
func fill(tb testing.TB, conn *Connection, partition, n int, key func(i int) string) {
	tb.Helper()
	fillTopic(tb, conn, topic, partition, n, key)
}

func fillTopic(tb testing.TB, conn *Connection, topic string, partition, n int, key func(i int) string) {
	tb.Helper()
	const batch = 2000
	for from := 0; from < n; from += batch {
		records := make([]kafka.Record, 0, batch)
		for i := from; i < min(from+batch, n); i++ {
			record := kafka.Record{Time: time.Now(), Value: kafka.NewBytes([]byte(strconv.Itoa(i)))}
			if key != nil {
				record.Key = kafka.NewBytes([]byte(key(i)))
			}
			records = append(records, record)
		}
		response, err := conn.client.Produce(tb.Context(), &kafka.ProduceRequest{
			Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
		})
		require.NoError(tb, err)
		require.NoError(tb, response.Error)
	}
}

// nopLog is for what needs no log.
var nopLog = zap.NewNop()

// ownKey gives each record of a partition its key.
func ownKey(i int) string { return "k" + strconv.Itoa(i) }

// committed asks the broker for the group's offsets; -1 = none.
func committed(tb testing.TB, conn *Connection, partitions ...int) map[int]int64 {
	tb.Helper()
	offsets, err := askCommitted(context.Background(), conn, topic, group, partitions...)
	require.NoError(tb, err)
	return offsets
}

// askCommitted asks for the offsets of some partitions, or of all that have one.
func askCommitted(ctx context.Context, conn *Connection, topic, group string, partitions ...int) (map[int]int64, error) {
	topics := map[string][]int{topic: partitions}
	if len(partitions) == 0 {
		topics = nil
	}
	response, err := conn.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: topics})
	if err != nil {
		return nil, err
	}
	offsets := map[int]int64{}
	for _, p := range response.Topics[topic] {
		if p.Error != nil {
			return nil, p.Error
		}
		offsets[p.Partition] = p.CommittedOffset
	}
	if response.Error != nil && !errors.Is(response.Error, kafka.GroupIdNotFound) {
		return nil, response.Error
	}
	return offsets, nil
}

func requireCommitted(tb testing.TB, conn *Connection, partition int, offset int64) {
	tb.Helper()
	require.Eventually(tb, func() bool { return committed(tb, conn, partition)[partition] == offset },
		patience, 50*time.Millisecond, "partition %d is not committed at %d", partition, offset)
}

// place is where an event stands.
type place struct {
	partition int
	offset    int64
}

func placeOf(m kafka.Message) place { return place{m.Partition, m.Offset} }

// journal keeps what handlers did, apart from the bookkeeping under test.
type journal struct {
	mu        sync.Mutex
	begun     map[place]int
	rested    map[place]int
	by        map[place]string // the last one who began it
	running   int
	most      int
	order     map[string][]int64 // offsets by key, as they were begun
	worked    map[string]int     // running now, by member, partition and key
	last      time.Time          // completion before this one
	gap       time.Duration      // the longest between two completions
	checked   map[int]int64      // partitions are at rest up to here
	wrongs    []string
	completed int
	first     map[string]map[int64]*first // by key and offset
	now       int                         // counts what happens
}

// first is when an event was begun and at rest for the first time, by whomever.
type first struct{ begun, rested int }

func newJournal() *journal {
	return &journal{
		begun: map[place]int{}, rested: map[place]int{}, by: map[place]string{}, order: map[string][]int64{},
		worked: map[string]int{}, checked: map[int]int64{},
		first: map[string]map[int64]*first{},
	}
}

// handler keeps the journal around do. An event is at rest in it before the
// consumer knows, and in flight after.
func (j *journal) handler(member string, do Handler) Handler {
	return func(ctx context.Context, m kafka.Message) Outcome {
		key := fmt.Sprintf("%s/%d/%s", member, m.Partition, m.Key)
		j.mu.Lock()
		j.begun[placeOf(m)]++
		j.by[placeOf(m)] = member
		j.order[string(m.Key)] = append(j.order[string(m.Key)], m.Offset)
		j.firstOf(m).begun = j.tick(j.firstOf(m).begun)
		j.running++
		j.most = max(j.most, j.running)
		if j.worked[key]++; j.worked[key] > 1 && m.Key != nil {
			j.wrongs = append(j.wrongs, "two events at once of "+key)
		}
		j.mu.Unlock()
		defer func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.running--
			j.worked[key]--
		}()
		outcome := do(ctx, m)
		if outcome.AtRest {
			j.rest(placeOf(m))
			j.mu.Lock()
			j.firstOf(m).rested = j.tick(j.firstOf(m).rested)
			j.mu.Unlock()
		}
		return outcome
	}
}

// firstOf is for tests whose keys are each of one partition.
func (j *journal) firstOf(m kafka.Message) *first {
	key := string(m.Key)
	if j.first[key] == nil {
		j.first[key] = map[int64]*first{}
	}
	if j.first[key][m.Offset] == nil {
		j.first[key][m.Offset] = &first{}
	}
	return j.first[key][m.Offset]
}

// tick is now, for what has not happened before.
func (j *journal) tick(before int) int {
	if before > 0 {
		return before
	}
	j.now++
	return j.now
}

// requireOrder wants each event begun only when the one before it of its key
// had been at rest, whoever worked either.
func (j *journal) requireOrder(tb testing.TB) {
	tb.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for key, events := range j.first {
		before := 0
		for _, offset := range slices.Sorted(maps.Keys(events)) {
			require.Greater(tb, events[offset].begun, before, "offset %d of key %s was begun too early", offset, key)
			before = events[offset].rested
		}
	}
}

func (j *journal) rest(p place) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rested[p]++
	j.completed++
	now := time.Now()
	if !j.last.IsZero() {
		j.gap = max(j.gap, now.Sub(j.last))
	}
	j.last = now
}

// beginGap measures gaps from now on.
func (j *journal) beginGap() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last, j.gap = time.Now(), 0
}

func (j *journal) longestGap() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.gap
}

// watch looks at each commit when it reaches the broker: everything below must
// be at rest by then.
func (j *journal) watch(cluster *kfake.Cluster) *journal {
	cluster.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		for _, t := range r.(*kmsg.OffsetCommitRequest).Topics {
			for _, p := range t.Partitions {
				j.check(int(p.Partition), p.Offset)
			}
		}
		return nil, nil, false
	})
	return j
}

func (j *journal) check(partition int, offset int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for ; j.checked[partition] < offset; j.checked[partition]++ {
		if p := (place{partition, j.checked[partition]}); j.rested[p] == 0 {
			j.wrongs = append(j.wrongs, fmt.Sprintf("committed %d of partition %d before %d was at rest", offset, partition, p.offset))
			return
		}
	}
}

func (j *journal) count(f func() int) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return f()
}

func (j *journal) begunAt(partition int, offset int64) int {
	return j.count(func() int { return j.begun[place{partition, offset}] })
}

func (j *journal) restedEvents() int { return j.count(func() int { return len(j.rested) }) }
func (j *journal) begunEvents() int  { return j.count(func() int { return len(j.begun) }) }
func (j *journal) runningNow() int   { return j.count(func() int { return j.running }) }

func (j *journal) requireRested(tb testing.TB, n int) {
	tb.Helper()
	require.Eventually(tb, func() bool { return j.restedEvents() >= n }, patience, glimpse, "not all of %d events are at rest", n)
}

func (j *journal) requireRight(tb testing.TB) {
	tb.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	require.Empty(tb, j.wrongs)
}

// requireCommitsRight is for groups that change: there an event may be offered
// beside itself.
func (j *journal) requireCommitsRight(tb testing.TB) {
	tb.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, wrong := range j.wrongs {
		require.NotContains(tb, wrong, "committed")
	}
}

// atOnce puts an event at rest.
func atOnce(context.Context, kafka.Message) Outcome { return Outcome{AtRest: true} }

// after puts events at rest after a while, or holds them when told to stop.
func after(d time.Duration) Handler {
	return func(ctx context.Context, _ kafka.Message) Outcome {
		if !sleep(ctx, d) {
			return Outcome{HoldFor: time.Second}
		}
		return Outcome{AtRest: true}
	}
}

// member is a consumer that runs.
type member struct {
	*Consumer
	logs   *observer.ObservedLogs
	cancel context.CancelFunc
	done   chan struct{}
}

// join starts a consumer; what config leaves open gets a value for tests. It is
// stopped with the test at the latest.
func join(tb testing.TB, conn *Connection, config Config) *member {
	tb.Helper()
	if config.Topic == "" {
		config.Topic, config.Group = topic, group
	}
	if config.Concurrency == 0 {
		config.Concurrency = 16
	}
	if config.Window == 0 {
		config.Window = 1000
	}
	if config.SessionTimeout == 0 {
		config.SessionTimeout = 20 * time.Second
	}
	if config.DrainTimeout == 0 {
		config.DrainTimeout = 10 * time.Second
	}
	core, logs := observer.New(zapcore.DebugLevel)
	config.Log = zap.New(core)
	config.Metrics = NewMetrics(prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{Consumer: NewConsumer(conn, config), logs: logs, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		assert.NoError(tb, m.Run(ctx))
	}()
	tb.Cleanup(func() { m.stop(tb) })
	return m
}

// stop waits for the consumer and returns how long it took.
func (m *member) stop(tb testing.TB) time.Duration {
	tb.Helper()
	begun := time.Now()
	m.cancel()
	select {
	case <-m.done:
	case <-time.After(patience):
		require.Fail(tb, "the consumer does not stop")
	}
	return time.Since(begun)
}

func (m *member) requireAssigned(tb testing.TB, partitions int) {
	tb.Helper()
	require.Eventually(tb, func() bool { return int(testutil.ToFloat64(m.Metrics.assigned)) == partitions },
		patience, glimpse, "the member does not hold %d partitions", partitions)
}

func (m *member) rebalancesSeen() int { return int(testutil.ToFloat64(m.Metrics.rebalances)) }
func (m *member) lossesSeen() int     { return int(testutil.ToFloat64(m.Metrics.outOfRange)) }

// shown returns what a metric of the member's holdings shows, by its label
// partition.
func (m *member) shown(tb testing.TB, name string) map[string]float64 {
	tb.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&m.Metrics.holdings)
	families, err := registry.Gather()
	require.NoError(tb, err)
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			partition := ""
			for _, label := range metric.GetLabel() {
				if label.GetName() == "partition" {
					partition = label.GetValue()
				}
			}
			if family.GetName() == name {
				values[partition] = metric.GetGauge().GetValue()
			}
		}
	}
	return values
}

func (m *member) lagShown(tb testing.TB, partition int) int {
	tb.Helper()
	lag, ok := m.shown(tb, "ecreds_consumer_lag")[strconv.Itoa(partition)]
	require.True(tb, ok, "no lag of partition %d is shown", partition)
	return int(lag)
}

// owned lists the partitions of a member.
func (m *member) owned() map[int]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := map[int]bool{}
	for id := range m.partitions {
		ids[id] = true
	}
	return ids
}

// lifeline lets a test cut a connection off, as a killed process is.
type lifeline struct {
	mu    sync.Mutex
	conns []net.Conn
	isCut bool
}

func newLifeline(conn *Connection) *lifeline {
	l := &lifeline{}
	conn.dialer.DialFunc, conn.transport.Dial = l.dial, l.dial
	return l
}

func (l *lifeline) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		return nil, fmt.Errorf("cut off: %w", conn.Close())
	}
	l.conns = append(l.conns, conn)
	return conn, nil
}

// breakOne closes a connection that may be in use: a request is lost, or its
// answer.
func (l *lifeline) breakOne(random *rand.Rand) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) > 0 {
		i := len(l.conns) - 1 - random.IntN(min(len(l.conns), 20)) // of the younger ones, which may live
		l.conns[i].Close()
	}
}

func (l *lifeline) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = true
	for _, conn := range l.conns {
		conn.Close()
	}
}
