package stream

import (
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// tracker knows which delivered offsets of a partition are at rest, and up to
// where all of them are. Offsets rise but may have holes (compaction,
// transaction markers), so it counts what was delivered and never adds one to
// an offset to find the next.
type tracker struct {
	mu        sync.Mutex
	pending   []delivery // delivered and not yet passed, by offset
	watermark int64      // the offset to commit: everything below is at rest
	committed int64      // the last offset that the broker took
	position  int64      // the offset to fetch next
	end       int64      // where the log ended, as far as is known
}

type delivery struct {
	offset int64
	atRest bool
	time   time.Time // of the record
}

// uncommitted stands for an offset that the broker does not have, or not any
// more: then even the starting point is worth a commit.
const uncommitted = -1

// newTracker returns a tracker that has nothing to commit until it begins.
func newTracker() *tracker { return &tracker{watermark: uncommitted, committed: uncommitted} }

// begin sets the starting point, and what the broker has. An offset beyond the
// start is of a log that is gone.
func (t *tracker) begin(start, committed int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if committed > start {
		committed = uncommitted
	}
	t.watermark, t.committed, t.position = start, committed, start
}

// deliver takes note of an event; offsets come in rising order.
func (t *tracker) deliver(message kafka.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = append(t.pending, delivery{offset: message.Offset, time: message.Time})
	t.position = message.Offset + 1
	t.end = max(t.end, message.HighWaterMark, t.position)
}

// reach takes note of where the log ends.
func (t *tracker) reach(end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = max(t.end, end)
}

// frontier returns the offset to fetch next, and where the log ends.
func (t *tracker) frontier() (position, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.position, t.end
}

// lag returns how many records of the log are not at rest; ok = false before
// the tracker begins.
func (t *tracker) lag() (records int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end - t.watermark, t.watermark != uncommitted
}

// oldest returns the time of the oldest event that is not at rest; zero = there
// is none. Times may be the producers', which need not rise with the offsets.
func (t *tracker) oldest() (oldest time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.pending {
		if !d.atRest && (oldest.IsZero() || d.time.Before(oldest)) {
			oldest = d.time
		}
	}
	return oldest
}

// rest marks an event at rest and returns by how many events the watermark
// moved.
func (t *tracker) rest(offset int64) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, found := slices.BinarySearchFunc(t.pending, offset, func(d delivery, offset int64) int {
		return int(d.offset - offset)
	})
	if !found {
		return 0
	}
	t.pending[i].atRest = true
	passed := 0
	for passed < len(t.pending) && t.pending[passed].atRest {
		t.watermark = t.pending[passed].offset + 1
		passed++
	}
	t.pending = t.pending[passed:]
	return passed
}

// toCommit returns the offset to commit, if it is news to the broker.
func (t *tracker) toCommit() (offset int64, news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.watermark, t.watermark > t.committed
}

// commit takes note of an offset that the broker took.
func (t *tracker) commit(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.committed = max(t.committed, offset)
}
