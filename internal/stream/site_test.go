package stream

import (
	"context"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// addressed is a broker, real or not.
type addressed interface{ ListenAddrs() []string }

// site is a broker with a topic and a group that belong to one test. What a
// test asks of a site, every broker can do.
type site struct {
	addressed
	topic, group string
	partitions   int
	fake         *kfake.Cluster // nil = a real broker
}

// onEachBroker runs a test on the broker in process and, among the tests on
// real parts, on Apache Kafka.
func onEachBroker(t *testing.T, partitions int, test func(t *testing.T, s *site)) {
	t.Helper()
	t.Parallel()
	for name, newSite := range map[string]func(testing.TB, int) *site{"kfake": newFakeSite, "kafka": newRealSite} {
		if newSite == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newSite(t, partitions))
		})
	}
}

func newFakeSite(tb testing.TB, partitions int) *site {
	tb.Helper()
	fake := newBroker(tb, int32(partitions))
	return &site{addressed: fake, topic: topic, group: group, partitions: partitions, fake: fake}
}

func (s *site) connect(tb testing.TB) *Connection {
	tb.Helper()
	return connect(tb, s)
}

func (s *site) fill(tb testing.TB, conn *Connection, partition, n int, key func(i int) string) {
	tb.Helper()
	fillTopic(tb, conn, s.topic, partition, n, key)
}

func (s *site) join(tb testing.TB, conn *Connection, config Config) *member {
	tb.Helper()
	config.Topic, config.Group = s.topic, s.group
	return join(tb, conn, config)
}

func (s *site) committed(tb testing.TB, conn *Connection, partitions ...int) map[int]int64 {
	tb.Helper()
	var offsets map[int]int64
	require.EventuallyWithT(tb, func(c *assert.CollectT) { // a broker that has just become the coordinator may not answer yet
		var err error
		offsets, err = s.askCommitted(tb.Context(), conn, partitions...)
		require.NoError(c, err)
	}, patience, glimpse)
	return offsets
}

func (s *site) askCommitted(ctx context.Context, conn *Connection, partitions ...int) (map[int]int64, error) {
	return askCommitted(ctx, conn, s.topic, s.group, partitions...)
}

// committedNow is for waiting: no answer yet, as from a broker that has just
// become the group's coordinator, is as good as no offset.
func (s *site) committedNow(tb testing.TB, conn *Connection, partition int) int64 {
	tb.Helper()
	offsets, err := s.askCommitted(tb.Context(), conn, partition)
	if err != nil {
		return -1
	}
	return offsets[partition]
}

func (s *site) requireCommitted(tb testing.TB, conn *Connection, partition int, offset int64) {
	tb.Helper()
	require.Eventually(tb, func() bool { return s.committedNow(tb, conn, partition) == offset },
		patience, 50*time.Millisecond, "partition %d is not committed at %d", partition, offset)
}

// commitFor commits as an operator would, outside of any membership.
func (s *site) commitFor(tb testing.TB, conn *Connection, offsets ...kafka.OffsetCommit) {
	tb.Helper()
	require.EventuallyWithT(tb, func(c *assert.CollectT) { // the same
		response, err := conn.client.OffsetCommit(tb.Context(), &kafka.OffsetCommitRequest{
			GroupID: s.group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{s.topic: offsets},
		})
		require.NoError(c, err)
		for _, p := range response.Topics[s.topic] {
			require.NoError(c, p.Error)
		}
	}, patience, glimpse)
}

// members lists the group's members as the broker knows them.
func (s *site) members(tb testing.TB, conn *Connection) []string {
	tb.Helper()
	response, err := conn.client.DescribeGroups(tb.Context(), &kafka.DescribeGroupsRequest{GroupIDs: []string{s.group}})
	require.NoError(tb, err)
	require.Len(tb, response.Groups, 1)
	var ids []string
	for _, m := range response.Groups[0].Members {
		ids = append(ids, m.MemberID)
	}
	return ids
}

// deleteRecords deletes a partition's records before an offset; -1 = all.
func (s *site) deleteRecords(tb testing.TB, partition int32, before int64) {
	tb.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.ListenAddrs()...)) // kafka-go has no such call
	require.NoError(tb, err)
	defer client.Close()
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.Topics = []kmsg.DeleteRecordsRequestTopic{{
		Topic: s.topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: partition, Offset: before}},
	}}
	response, err := request.RequestWith(tb.Context(), client)
	require.NoError(tb, err)
	require.Zero(tb, response.Topics[0].Partitions[0].ErrorCode)
}

// watch looks at commits: everything below must be at rest by then. The broker
// in process shows each commit as it arrives; a real one is asked all the time.
func (s *site) watch(tb testing.TB, j *journal) *journal {
	tb.Helper()
	if s.fake != nil {
		return j.watch(s.fake)
	}
	conn := s.connect(tb)
	ctx, cancel := context.WithCancel(tb.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for sleep(ctx, 4*glimpse) {
			offsets, err := s.askCommitted(ctx, conn) // of all partitions
			for partition, offset := range offsets {
				if err == nil && offset >= 0 {
					j.check(partition, offset)
				}
			}
		}
	}()
	tb.Cleanup(func() { cancel(); <-watched })
	return j
}
