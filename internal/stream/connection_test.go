package stream

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestNewConnectionRefusesWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		brokers []string
		says    string
	}{
		"none":    {nil, "no broker is given"},
		"no port": {[]string{"localhost:9092", "kafka"}, `"kafka" is not a broker address: it must be host:port`},
	} {
		_, err := NewConnection(ConnectionConfig{Brokers: test.brokers, ClientID: "test"})
		require.EqualError(t, err, test.says, name)
	}
}

func TestEnsureTopicsNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	conn := connect(t, newBroker(t, 1))
	require.NoError(t, conn.EnsureTopics(t.Context(), []string{topic}, 6, false))
	err := conn.EnsureTopics(t.Context(), []string{"failed", topic, "other"}, 6, false)
	require.EqualError(t, err, "topic failed, other does not exist; create it, or set TOPICS_CREATE=true")
}

func TestEnsureTopicsCreates(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1, kfake.NumBrokers(4))
	conn := connect(t, cluster)
	require.NoError(t, conn.EnsureTopics(t.Context(), []string{topic, "failed"}, 5, true))
	require.Len(t, cluster.PartitionInfos("failed"), 5)
	require.Len(t, cluster.PartitionInfos(topic), 1, "what exists stays as it is")
	require.Equal(t, 3, cluster.TopicInfo("failed").NumReplicas)
	publisher := NewPublisher(conn, "failed")
	defer publisher.Close()
	require.NoError(t, publisher.Publish(t.Context(), kafka.Message{Key: []byte("k")})[0].Err, "it can be written to at once")
	require.NoError(t, conn.EnsureTopics(t.Context(), []string{topic, "failed"}, 5, true))
}

func TestEnsureTopicsConcurrently(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	var programs sync.WaitGroup
	for range 4 {
		conn := connect(t, cluster)
		programs.Go(func() {
			assert.NoError(t, conn.EnsureTopics(t.Context(), []string{"one", "two"}, 6, true))
		})
	}
	programs.Wait()
	require.Len(t, cluster.PartitionInfos("one"), 6)
}

func TestEnsureTopicsTellsWhatElseIsWrong(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.PolicyViolation, Count: -1})
	err := conn.EnsureTopics(t.Context(), []string{"failed"}, 6, true)
	require.ErrorIs(t, err, kafka.PolicyViolation)
	require.ErrorContains(t, err, "create topic failed: ")
	require.Error(t, conn.EnsureTopics(t.Context(), []string{"failed"}, 6, false), "it is still missing")
}

func TestMissingTopics(t *testing.T) {
	t.Parallel()
	missing, err := missingTopics(&kafka.MetadataResponse{Topics: []kafka.Topic{
		{Name: "there"}, {Name: "electing", Error: kafka.LeaderNotAvailable}, {Name: "missing", Error: kafka.UnknownTopicOrPartition},
	}})
	require.NoError(t, err)
	require.Equal(t, []string{"missing"}, missing)
	_, err = missingTopics(&kafka.MetadataResponse{Topics: []kafka.Topic{{Name: "secret", Error: kafka.TopicAuthorizationFailed}}})
	require.EqualError(t, err, "look for topic secret: "+kafka.TopicAuthorizationFailed.Error())
}

func TestUnreachableBrokerIsNamed(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	conn, err := NewConnection(ConnectionConfig{Brokers: []string{address}, ClientID: "test"})
	require.NoError(t, err)
	defer conn.Close()
	require.ErrorContains(t, conn.Ping(t.Context()), "kafka at "+address)
	require.ErrorContains(t, conn.Ping(t.Context()), "refused")
	require.ErrorContains(t, conn.EnsureTopics(t.Context(), []string{topic}, 6, true), "kafka at "+address)
}

func TestPingNoticesABrokerThatWentAwayAndCameBack(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	require.NoError(t, conn.Ping(t.Context()))
	asked := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ApiVersions}, Observe: true, Count: -1})
	require.NoError(t, conn.Ping(t.Context()))
	require.Positive(t, asked.Hits(), "the broker itself is asked")
	stall := make(chan struct{})
	cluster.ControlKey(int16(kmsg.ApiVersions), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.SleepControl(func() { <-stall })
		return nil, nil, false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, conn.Ping(ctx), "kafka at "+cluster.ListenAddrs()[0])
	close(stall)
	require.Eventually(t, func() bool { return conn.Ping(t.Context()) == nil }, patience, glimpse)
}

func TestConnectionsThatWereKeptOverARestartCostOneRequest(t *testing.T) {
	t.Parallel()
	options := []kfake.Opt{kfake.Ports(freePorts(t, 1)...)}
	cluster := newBroker(t, 12, options...)
	conn := connect(t, cluster)
	all := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	_, err := conn.ends(t.Context(), topic, all) // a request, so a connection, for each
	require.NoError(t, err)
	cluster.Close()
	newBroker(t, 12, options...)
	request := &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}}
	if _, err = conn.client.OffsetFetch(t.Context(), request); err != nil {
		_, err = conn.client.OffsetFetch(t.Context(), request)
	}
	require.NoError(t, err)
}
