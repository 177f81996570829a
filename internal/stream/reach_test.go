package stream

import (
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReachesTellWhatMayStillCome(t *testing.T) { onEachBroker(t, 4, reachesTellWhatMayStillCome) }

func reachesTellWhatMayStillCome(t *testing.T, s *site) {
	conn := s.connect(t)
	want := []Reach{{0, 0, 10}, {1, 0, 10}, {2, 0, 10}, {3, 0, 10}}
	for p := range want {
		s.fill(t, conn, p, 10, nil)
	}
	s.requireReaches(t, conn, want) // the group has never been there
	s.commitFor(t, conn, kafka.OffsetCommit{Partition: 1, Offset: 7}, kafka.OffsetCommit{Partition: 2, Offset: 2})
	s.deleteRecords(t, 2, 5)
	s.deleteRecords(t, 3, -1)
	s.requireReaches(t, conn, []Reach{{0, 0, 10}, {1, 7, 10}, {2, 5, 10}, {3, 10, 10}})

	_, err := conn.Reaches(t.Context(), "no-such-topic", s.group)
	require.Error(t, err, "nothing is known, which is not the same as nothing may come")
}

func (s *site) requireReaches(tb testing.TB, conn *Connection, want []Reach) {
	tb.Helper()
	require.EventuallyWithT(tb, func(c *assert.CollectT) {
		reaches, err := conn.Reaches(tb.Context(), s.topic, s.group) // a new coordinator may not answer yet
		require.NoError(c, err)
		require.ElementsMatch(c, want, reaches)
	}, patience, glimpse)
}

func TestNoBrokerIsNoReach(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 1)
	conn := connect(t, cluster)
	cluster.Close()
	_, err := conn.Reaches(t.Context(), topic, group)
	require.Error(t, err)
}
