//go:build realparts

package stream

import (
	"fmt"
	"sync/atomic"
	"testing"

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
