package stream

import (
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

func TestReachesTellWhatMayStillCome(t *testing.T) {
	t.Parallel()
	cluster := newBroker(t, 4)
	conn := connect(t, cluster)
	want := []Reach{{0, 0, 10}, {1, 0, 10}, {2, 0, 10}, {3, 0, 10}}
	for p := range want {
		fill(t, conn, p, 10, nil)
	}
	requireReaches(t, conn, want) // the group has never been there
	commitFor(t, conn, kafka.OffsetCommit{Partition: 1, Offset: 7}, kafka.OffsetCommit{Partition: 2, Offset: 2})
	require.NoError(t, cluster.DeleteRecords(topic, 2, 5))
	require.NoError(t, cluster.DeleteRecords(topic, 3, -1))
	requireReaches(t, conn, []Reach{{0, 0, 10}, {1, 7, 10}, {2, 5, 10}, {3, 10, 10}})

	_, err := conn.Reaches(t.Context(), "no such topic", group)
	require.Error(t, err, "nothing is known, which is not the same as nothing may come")
	cluster.Close()
	_, err = conn.Reaches(t.Context(), topic, group)
	require.Error(t, err)
}

func requireReaches(tb testing.TB, conn *Connection, want []Reach) {
	tb.Helper()
	reaches, err := conn.Reaches(tb.Context(), topic, group)
	require.NoError(tb, err)
	require.ElementsMatch(tb, want, reaches)
}
