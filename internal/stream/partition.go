package stream

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
)

// partition works one partition while it is assigned to this process: it
// fetches in order, queues events by key in lanes, and tracks what is at rest.
// The window bounds all of it: how long a lane gets, too, so that a key with
// very many events keeps at most its own partition waiting.
type partition struct {
	c       *Consumer
	id      int
	tracker *tracker
	window  chan struct{} // one place for each event between watermark and newest

	fetch     context.Context // ends when the partition goes away or the program stops; then nothing is begun
	stopFetch context.CancelFunc

	committed time.Time   // when we last committed its offset; guarded by the consumer's commits
	awaiting  atomic.Bool // a record is being fetched, as long as none comes

	mu    sync.Mutex
	lanes map[lane][]kafka.Message // a lane is here while it runs
	renew context.CancelFunc       // has another reader go on
}

// lane names what is worked in order: the events of one key, or an event
// without a key alone.
type lane struct {
	key   string
	alone int64 // offset of an event without a key, and one
}

func laneOf(message kafka.Message) lane {
	if message.Key == nil {
		return lane{alone: message.Offset + 1}
	}
	return lane{key: string(message.Key)}
}

func (c *Consumer) newPartition(id int) *partition {
	p := &partition{
		c: c, id: id, tracker: newTracker(), window: make(chan struct{}, c.Window), lanes: map[lane][]kafka.Message{},
		renew: func() {},
	}
	p.fetch, p.stopFetch = context.WithCancel(c.fetching)
	return p
}

// drop gives up what has not begun. Events in flight are finished; their
// results are not committed by us when the partition went away.
func (p *partition) drop() { p.stopFetch() }

// enqueue puts an event behind those of its key.
func (p *partition) enqueue(message kafka.Message) {
	l := laneOf(message)
	p.mu.Lock()
	defer p.mu.Unlock()
	queue, running := p.lanes[l]
	p.lanes[l] = append(queue, message)
	if !running {
		p.c.work.Add(1)
		go p.runLane(l)
	}
}

// runLane works the events of a lane, one after another, and ends when none is
// left.
func (p *partition) runLane(l lane) {
	defer p.c.work.Done()
	for {
		message, ok := p.head(l)
		if !ok {
			return
		}
		if p.work(message) {
			for range p.tracker.rest(message.Offset) {
				<-p.window
			}
		}
	}
}

// head takes the next event of a lane, or ends it.
func (p *partition) head(l lane) (kafka.Message, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	queue := p.lanes[l]
	if len(queue) == 0 || p.fetch.Err() != nil {
		delete(p.lanes, l)
		return kafka.Message{}, false
	}
	p.lanes[l] = queue[1:]
	return queue[0], true
}

// work offers an event to the handler until it is at rest; false = it was
// given up, for the partition went away or the program stops. A held event has
// given up its place: waiting costs nobody anything.
func (p *partition) work(message kafka.Message) bool {
	pause := p.c.pause
	turn, holds := pause.fresh, 0
	for {
		probe, ok := p.c.begin(p, turn)
		if !ok {
			return false
		}
		outcome := p.c.handle(message)
		p.c.end(probe)
		if outcome.AtRest {
			p.c.Metrics.rested(message)
			return true
		}
		turn = pause.held
		select {
		case <-time.After(holdFor(outcome.HoldFor, holds)):
			holds++
		case <-pause.running.whenShut(): // then it waits for a turn, or for the end of the pause
			holds = 0
		case <-p.fetch.Done():
			return false
		}
	}
}

// maxHold is the longest wait that repeated holds of one event grow to: events
// keep being fetched while others are held, and thousands that ask again every
// two seconds would themselves be the load of an outage.
const maxHold = 15 * time.Second

// holdFor is the wait before an event is offered again that was held so many
// times before: never less than the handler asked for (which may be what a
// service asked for), doubling up to maxHold, and spread so that events held
// together do not come back together.
func holdFor(asked time.Duration, holds int) time.Duration {
	wait := max(asked, min(asked<<min(holds, 4), maxHold))
	return max(asked, wait/2+rand.N(wait/2+1))
}
