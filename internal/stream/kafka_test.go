//go:build realparts

package stream

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/parts"
)

// newRealSite gives a test a topic and a group of its own on the Apache Kafka
// that all of them share.
func newRealSite(tb testing.TB, partitions int) *site {
	tb.Helper()
	return siteOn(tb, parts.SharedKafka(tb), kafka.TopicConfig{NumPartitions: partitions, ReplicationFactor: 1})
}

var sites atomic.Int64

// siteOn makes a topic, and waits until its partitions have leaders.
func siteOn(tb testing.TB, broker addressed, config kafka.TopicConfig) *site {
	tb.Helper()
	n := sites.Add(1)
	s := &site{
		addressed: broker, topic: fmt.Sprintf("%s-%d", topic, n), group: fmt.Sprintf("%s-%d", group, n),
		partitions: config.NumPartitions,
	}
	s.createTopic(tb, config)
	return s
}

func (s *site) createTopic(tb testing.TB, config kafka.TopicConfig) {
	tb.Helper()
	config.Topic = s.topic
	conn := s.connect(tb)
	response, err := conn.client.CreateTopics(tb.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}})
	require.NoError(tb, err)
	require.NoError(tb, response.Errors[s.topic])
	require.Eventually(tb, func() bool {
		for partition := range config.NumPartitions {
			if _, _, err := conn.bounds(tb.Context(), s.topic, partition); err != nil {
				return false
			}
		}
		return true
	}, patience, glimpse, "not every partition of %s has a leader", s.topic)
}

// load publishes to a site until it is stopped, whatever befalls the brokers.
type load struct {
	cancel  context.CancelFunc
	written chan []place // what was acknowledged, when it has stopped
}

func (s *site) load(tb testing.TB) *load {
	tb.Helper()
	publisher := s.publisher(tb, s.connect(tb))
	ctx, cancel := context.WithCancel(tb.Context())
	l := &load{cancel: cancel, written: make(chan []place, 1)}
	go func() {
		var written []place
		for n := 0; sleep(ctx, glimpse); n++ {
			messages := make([]kafka.Message, 5)
			for i := range messages {
				messages[i] = kafka.Message{Key: []byte(ownKey(n*len(messages) + i)), Value: []byte("v")}
			}
			for _, r := range publisher.Publish(ctx, messages...) {
				if r.Err == nil {
					written = append(written, place{r.Partition, r.Offset})
				}
			}
		}
		l.written <- written
	}()
	tb.Cleanup(cancel)
	return l
}

// stop returns where the acknowledged records stand.
func (l *load) stop(tb testing.TB) []place {
	tb.Helper()
	l.cancel()
	select {
	case written := <-l.written:
		return written
	case <-time.After(patience):
		require.Fail(tb, "publishing does not stop")
		return nil
	}
}

// requireAllWorked wants everything that was acknowledged at rest, and all
// partitions committed to their end. (The end may still move: a record that
// nobody waits for any more is written all the same, T28.)
func (s *site) requireAllWorked(tb testing.TB, conn *Connection, j *journal, written []place) {
	tb.Helper()
	for partition := range s.partitions {
		require.Eventually(tb, func() bool {
			_, end, err := conn.bounds(tb.Context(), s.topic, partition)
			return err == nil && end == s.committedNow(tb, conn, partition)
		}, patience, 10*glimpse, "partition %d is not committed to its end", partition)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, at := range written {
		require.Positive(tb, j.rested[at], "acknowledged at %v, and never worked", at)
	}
}

// requireProgress returns how long the next completion took, and wants many
// more to follow.
func (j *journal) requireProgress(tb testing.TB) time.Duration {
	tb.Helper()
	begun, seen := time.Now(), j.restedEvents()
	j.requireRested(tb, seen+1)
	took := time.Since(begun)
	j.requireRested(tb, seen+200)
	return took
}

// TestBrokerKilled kills a broker with -9, which starts fresh: its first group
// is joined at once.
func TestBrokerKilled(t *testing.T) {
	t.Parallel()
	broker := parts.Kafka(t, parts.Set("auto.create.topics.enable", "true"))
	brokerKilledUnderLoad(t, broker, siteOn(t, broker, kafka.TopicConfig{NumPartitions: 2, ReplicationFactor: 1}))
	unfinishedWorkOutlivesBrokerAndMember(t, broker, siteOn(t, broker, kafka.TopicConfig{NumPartitions: 1, ReplicationFactor: 1}))
	realTopicIsNotCreatedByWriting(t, connect(t, broker))
}

// realTopicIsNotCreatedByWriting has a broker that would create it (T32).
func realTopicIsNotCreatedByWriting(tb testing.TB, conn *Connection) {
	tb.Helper()
	receipt := newPublisherOf(tb, conn, "mistyped").Publish(tb.Context(), kafka.Message{Value: []byte("v")})[0]
	require.ErrorIs(tb, receipt.Err, kafka.UnknownTopicOrPartition)
	require.False(tb, receipt.Unknown)
	var missing *MissingTopicError
	require.ErrorAs(tb, conn.EnsureTopics(tb.Context(), []string{"mistyped"}, 1, false), &missing)
}

// brokerKilledUnderLoad has the broker written to and read from. It forgets the
// member's connection, not its session: without care, half a minute would pass
// before the member may join again (T14).
func brokerKilledUnderLoad(t *testing.T, broker *parts.Broker, s *site) {
	conn := s.connect(t)
	j := s.watch(t, newJournal())
	begun := time.Now()
	m := s.join(t, conn, Config{SessionTimeout: patience, Handle: j.handler("m", after(2*time.Millisecond))})
	m.requireAssigned(t, 2)
	t.Logf("T38: assigned %v after the first join of a fresh broker, which refused: %q", time.Since(begun), m.refusals())
	load := s.load(t)
	j.requireProgress(t)

	broker.Kill(t)
	require.ErrorContains(t, conn.Ping(t.Context()), broker.ListenAddrs()[0])
	broker.Restart(t)
	standstill := j.requireProgress(t)
	t.Logf("T14: %v from the broker's return to the next completion; refusals: %q", standstill, m.refusals())
	require.Less(t, standstill, patience/3, "it waits for nobody's session")
	require.Len(t, s.members(t, conn), 1, "no phantom")
	m.requireAssigned(t, 2)
	s.requireAllWorked(t, conn, j, load.stop(t))
	j.requireCommitsRight(t)
	require.Zero(t, m.lossesSeen())
}

// refusals are the reasons why the member could not join.
func (m *member) refusals() []string {
	var reasons []string
	for _, entry := range m.logs.FilterMessageSnippet("cannot join").All() {
		reasons = append(reasons, fmt.Sprint(entry.ContextMap()["error"]))
	}
	return reasons
}

// unfinishedWorkOutlivesBrokerAndMember has the broker away while events are
// held, and stops the member that holds them.
func unfinishedWorkOutlivesBrokerAndMember(t *testing.T, broker *parts.Broker, s *site) {
	const n = 200
	conn := s.connect(t)
	s.fill(t, conn, 0, n, ownKey)
	j := s.watch(t, newJournal())
	// Nobody is there to be told that it leaves, so its session must end.
	m := s.join(t, conn, Config{SessionTimeout: 2 * time.Second, Handle: j.handler("m", func(_ context.Context, m kafka.Message) Outcome {
		return Outcome{AtRest: m.Offset < n/2, HoldFor: time.Hour}
	})})
	s.requireCommitted(t, conn, 0, n/2)
	broker.Kill(t)
	m.stop(t)
	broker.Restart(t)
	next := newJournal()
	s.join(t, conn, Config{Handle: next.handler("next", atOnce)})
	s.requireCommitted(t, conn, 0, n)
	require.Equal(t, n/2, next.restedEvents(), "what is committed is not repeated, and all else is worked")
}

func TestThreeBrokers(t *testing.T) {
	t.Parallel()
	cluster := parts.KafkaCluster(t)
	s := siteOn(t, cluster, kafka.TopicConfig{NumPartitions: 3, ReplicationFactor: 3})
	topicsAreCreatedWithReplicas(t, s)
	leaderAndCoordinatorMove(t, cluster, s)
}

// leaderAndCoordinatorMove kills the leader of a partition and the group's
// coordinator, under load.
func leaderAndCoordinatorMove(t *testing.T, cluster *parts.Cluster, s *site) {
	conn := s.connect(t)
	j := s.watch(t, newJournal())
	m := s.join(t, conn, Config{SessionTimeout: patience, Handle: j.handler("m", after(2*time.Millisecond))})
	m.requireAssigned(t, 3)
	load := s.load(t)
	j.requireProgress(t)
	for what, find := range map[string]func(testing.TB) int{"leader": s.leader, "coordinator": s.coordinator} {
		old := find(t)
		require.NotZero(t, old)
		victim := cluster.Broker(t, old)
		victim.Kill(t)
		killed := time.Now()
		require.Eventually(t, func() bool { now := find(t); return now != 0 && now != old }, patience, 10*glimpse, "the %s does not move", what)
		t.Logf("the %s moved within %v; then %v to the next completion", what, time.Since(killed), j.requireProgress(t))
		victim.Restart(t)
		j.requireProgress(t)
	}
	t.Logf("joins were refused: %q; longest gap between two completions %v", m.refusals(), j.longestGap())
	s.requireAllWorked(t, conn, j, load.stop(t))
	require.Len(t, s.members(t, conn), 1, "no phantom")
	m.requireAssigned(t, 3)
	j.requireCommitsRight(t)
	require.Zero(t, m.lossesSeen())
}

// leader asks who leads partition 0; 0 = nobody, or nobody says so.
func (s *site) leader(tb testing.TB) int {
	tb.Helper()
	conn := s.connect(tb) // a new one knows nothing from before
	defer conn.Close()
	response, err := conn.client.Metadata(tb.Context(), &kafka.MetadataRequest{Topics: []string{s.topic}})
	if err != nil {
		return 0
	}
	for _, p := range response.Topics[0].Partitions {
		if p.ID == 0 {
			return p.Leader.ID
		}
	}
	return 0
}

// coordinator asks who coordinates the group; 0 = nobody, or nobody says so.
func (s *site) coordinator(tb testing.TB) int {
	tb.Helper()
	conn := s.connect(tb)
	defer conn.Close()
	response, err := conn.client.FindCoordinator(tb.Context(), &kafka.FindCoordinatorRequest{
		Key: s.group, KeyType: kafka.CoordinatorKeyTypeConsumer,
	})
	if err != nil || response.Error != nil || response.Coordinator == nil {
		return 0
	}
	return response.Coordinator.NodeID
}

func topicsAreCreatedWithReplicas(t *testing.T, s *site) {
	conn := s.connect(t)
	topics := []string{"one", "two"}
	require.EqualError(t, conn.EnsureTopics(t.Context(), topics, 5, false),
		"topic one, two does not exist; create it, or set TOPICS_CREATE=true")
	require.NoError(t, conn.EnsureTopics(t.Context(), topics, 5, true))
	require.NoError(t, conn.EnsureTopics(t.Context(), topics, 6, true), "what exists stays as it is")
	receipt := newPublisherOf(t, conn, "one").Publish(t.Context(), kafka.Message{Key: []byte("k")})[0]
	require.NoError(t, receipt.Err, "it can be written to at once")
	metadata, err := s.connect(t).client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: topics})
	require.NoError(t, err)
	for _, topic := range metadata.Topics {
		require.Len(t, topic.Partitions, 5)
		require.Len(t, topic.Partitions[0].Replicas, 3)
	}
}

// TestT37ErrorsOfTheGroupAreHidden meets what leaveError is for on the broker
// that it was found on. The library's Heartbeat does the same.
func TestT37ErrorsOfTheGroupAreHidden(t *testing.T) {
	t.Parallel()
	s := newRealSite(t, 1)
	conn := s.connect(t)
	s.join(t, conn, Config{Handle: atOnce}).requireAssigned(t, 1)
	left, err := conn.client.LeaveGroup(t.Context(), &kafka.LeaveGroupRequest{
		GroupID: s.group, Members: []kafka.LeaveGroupRequestMember{{ID: "nobody"}},
	})
	require.NoError(t, err)
	require.ErrorIs(t, leaveError(left), kafka.UnknownMemberId)
	beat, err := conn.client.Heartbeat(t.Context(), &kafka.HeartbeatRequest{GroupID: s.group, GenerationID: 1, MemberID: "nobody"})
	require.NoError(t, err)
	require.NoError(t, beat.Error, "the library has been mended")
	require.Equal(t, time.Duration(kafka.UnknownMemberId)*time.Millisecond, beat.Throttle)
}

// TestT30TopicMeasuresBatches sends records that fit alone, and not together.
func TestT30TopicMeasuresBatches(t *testing.T) {
	t.Parallel()
	s := siteOn(t, parts.SharedKafka(t), kafka.TopicConfig{
		NumPartitions: 1, ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: "20000"}},
	})
	messages := make([]kafka.Message, 8)
	for i := range messages {
		messages[i].Value = []byte(strings.Repeat("x", 6000))
	}
	messages[5].Value = []byte(strings.Repeat("x", 30000))
	for i, r := range s.publisher(t, s.connect(t)).Publish(t.Context(), messages...) {
		require.False(t, r.Unknown)
		if i == 5 {
			require.ErrorIs(t, r.Err, kafka.MessageSizeTooLarge)
		} else {
			require.NoError(t, r.Err, "record %d fits alone", i)
		}
	}
}

// TestT20HolesOfARealLogAreNoLoss works a compacted log from its beginning.
func TestT20HolesOfARealLogAreNoLoss(t *testing.T) {
	t.Parallel()
	const n, keys = 30, 7
	s := siteOn(t, parts.SharedKafka(t), kafka.TopicConfig{NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{
		{ConfigName: "cleanup.policy", ConfigValue: "compact"},
		{ConfigName: "segment.ms", ConfigValue: "50"}, // what is being written to is not compacted
		{ConfigName: "min.cleanable.dirty.ratio", ConfigValue: "0.001"},
	}})
	conn := s.connect(t)
	publisher := s.publisher(t, conn)
	for i := range n {
		require.NoError(t, publisher.Publish(t.Context(), kafka.Message{Key: []byte(ownKey(i % keys)), Value: []byte("v")})[0].Err)
	}
	require.Eventually(t, func() bool { return firstRecord(t, conn, s.topic) > 0 }, patience, 10*glimpse, "the log is not compacted")
	j := newJournal()
	m := s.join(t, conn, Config{Handle: j.handler("m", atOnce)})
	s.requireCommitted(t, conn, 0, n)
	require.Less(t, j.begunEvents(), n, "there are holes")
	require.Zero(t, m.lossesSeen())
}

// firstRecord is the offset of the first record that is left of a log.
func firstRecord(tb testing.TB, conn *Connection, topic string) int64 {
	tb.Helper()
	response, err := conn.client.Fetch(tb.Context(), &kafka.FetchRequest{Topic: topic, MaxBytes: 1 << 20, MaxWait: time.Second})
	if err != nil || response.Error != nil {
		return 0
	}
	record, err := response.Records.ReadRecord()
	if err != nil {
		return 0
	}
	return record.Offset
}
