package stream

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

func TestTrackerWatermark(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		start     int64
		delivered []int64
		rested    []int64
		passed    []int // for each of rested
		want      int64
	}{
		"nothing delivered":        {start: 7, want: 7},
		"nothing at rest":          {start: 7, delivered: []int64{7, 8}, want: 7},
		"in order":                 {delivered: []int64{0, 1, 2}, rested: []int64{0, 1}, passed: []int{1, 1}, want: 2},
		"head last":                {delivered: []int64{0, 1, 2}, rested: []int64{2, 1, 0}, passed: []int{0, 0, 3}, want: 3},
		"a slow one in the middle": {delivered: []int64{0, 1, 2}, rested: []int64{0, 2}, passed: []int{1, 0}, want: 1},
		"T20 holes":                {start: 5, delivered: []int64{9, 20, 21}, rested: []int64{20, 9}, passed: []int{0, 2}, want: 21},
		"twice at rest":            {delivered: []int64{0, 1, 2}, rested: []int64{1, 1, 0, 0}, passed: []int{0, 0, 2, 0}, want: 2},
		"never delivered":          {delivered: []int64{0, 4}, rested: []int64{3, 9}, passed: []int{0, 0}, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tracker := newTracker()
			tracker.begin(test.start, test.start)
			for _, offset := range test.delivered {
				tracker.deliver(kafka.Message{Offset: offset})
			}
			for i, offset := range test.rested {
				require.Equal(t, test.passed[i], tracker.rest(offset), "passed by offset %d", offset)
			}
			offset, news := tracker.toCommit()
			require.Equal(t, test.want, offset)
			require.Equal(t, test.want > test.start, news)
		})
	}
}

func TestTrackerCommit(t *testing.T) {
	t.Parallel()
	tracker := newTracker()
	_, news := tracker.toCommit()
	require.False(t, news, "nothing is known yet")

	tracker.begin(0, kafkaFirstOffset)
	offset, news := tracker.toCommit()
	require.True(t, news, "T15: even the start is news when there is no offset")
	require.Zero(t, offset)
	tracker.commit(0)
	_, news = tracker.toCommit()
	require.False(t, news)

	for offset := range int64(4) {
		tracker.deliver(kafka.Message{Offset: offset})
		tracker.rest(offset)
	}
	tracker.commit(4)
	tracker.commit(2) // an answer that comes late
	offset, news = tracker.toCommit()
	require.Equal(t, int64(4), offset)
	require.False(t, news)
}

func TestT19TrackerForgetsAnOffsetBeyondTheLog(t *testing.T) {
	t.Parallel()
	tracker := newTracker()
	tracker.begin(3, 100)
	offset, news := tracker.toCommit()
	require.True(t, news, "the broker's 100 is of a log that is gone")
	require.Equal(t, int64(3), offset)
}

// kafkaFirstOffset is how the library says that nothing is committed.
const kafkaFirstOffset = -2

// naive is a tracker that anybody believes.
type naive struct {
	delivered []int64
	rested    map[int64]bool
	start     int64
}

func (n *naive) watermark() int64 {
	watermark := n.start
	for _, offset := range n.delivered {
		if !n.rested[offset] {
			break
		}
		watermark = offset + 1
	}
	return watermark
}

func FuzzTracker(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		model := &naive{rested: map[int64]bool{}, start: random.Int64N(1000)}
		tracker := newTracker()
		tracker.begin(model.start, model.start)
		next, passed, broker := model.start, 0, model.start
		for range 300 {
			switch random.IntN(5) {
			case 0, 1:
				next += random.Int64N(3) // now and then a hole
				tracker.deliver(kafka.Message{Offset: next})
				model.delivered = append(model.delivered, next)
				next++
			case 2, 3:
				if len(model.delivered) == 0 {
					continue
				}
				offset := model.delivered[random.IntN(len(model.delivered))]
				model.rested[offset] = true
				before := model.watermark()
				passed += tracker.rest(offset)
				require.GreaterOrEqual(t, model.watermark(), before)
			case 4:
				offset, news := tracker.toCommit()
				require.Equal(t, model.watermark(), offset)
				require.Equal(t, offset > broker, news, "news exactly when the broker does not have it")
				require.GreaterOrEqual(t, offset, broker, "never backwards")
				if news && random.IntN(3) > 0 { // now and then a commit fails
					tracker.commit(offset)
					broker = offset
				}
			}
		}
		contiguous := 0
		for contiguous < len(model.delivered) && model.rested[model.delivered[contiguous]] {
			contiguous++
		}
		require.Equal(t, contiguous, passed, "each event gives its place back once")
	})
}

// TestHoldsOfOneEventGrow: thousands of held events that ask again every two
// seconds would be the load of an outage.
func TestHoldsOfOneEventGrow(t *testing.T) {
	t.Parallel()
	for holds, seconds := range []int{2, 4, 8, 15, 15, 15} {
		most := time.Duration(seconds) * time.Second
		for range 100 {
			wait := holdFor(2*time.Second, holds)
			require.LessOrEqual(t, wait, most, "hold %d", holds)
			require.GreaterOrEqual(t, wait, max(most/2, 2*time.Second), "hold %d", holds)
		}
	}
	require.Equal(t, time.Minute, holdFor(time.Minute, 9), "what the handler asks for is kept to")
}
