package stream

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// probeInterval is how often a paused consumer begins an event, to see
	// whether the cause has gone. A cause may stay unnoticed for twice as long,
	// when there is nothing here to probe with.
	probeInterval = time.Second
	// maxProbes bounds them where each takes longer than that.
	maxProbes = 3
)

// pause keeps events from beginning while there is a cause for it, but for
// probes. Each turn is handed to whoever has waited for it longest, of whichever
// partition, so that an event which cannot tell does not probe for ever.
type pause struct {
	running *gate         // shut while there is a cause
	turns   int           // given
	held    chan struct{} // turns of events that were held
	fresh   chan struct{} // turns of events that have not begun
	fetch   chan struct{} // turns of fetching a record
	probing chan struct{} // places of maxProbes

	mu     sync.Mutex
	causes map[string]bool
}

func newPause() *pause {
	p := &pause{
		running: newGate(), held: make(chan struct{}), fresh: make(chan struct{}), fetch: make(chan struct{}),
		probing: make(chan struct{}, maxProbes), causes: map[string]bool{},
	}
	p.running.set(true)
	return p
}

// set adds or removes a cause, and says whether that paused or resumed.
func (p *pause) set(cause string, present bool) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.causes) == 0
	if present {
		p.causes[cause] = true
	} else {
		delete(p.causes, cause)
	}
	running := len(p.causes) == 0
	p.running.set(running)
	return running != before
}

// admit waits until an event may begin: at once, at the end of the pause, or as
// a probe in its turn. A probe gives its place back with [pause.probed].
func (p *pause) admit(ctx context.Context, turn <-chan struct{}) (probe, ok bool) {
	select {
	case <-p.running.whenOpen():
		return false, true
	default:
	}
	select {
	case <-p.running.whenOpen():
		return false, true
	case <-turn:
		return true, true
	case <-ctx.Done():
		return false, false
	}
}

func (p *pause) probed() { <-p.probing }

// probe gives one turn: to a held event before a fresh one, but the other way
// round each third time, since what holds an event may be something else that
// goes on for longer. When no event is waiting at all, each of so many partitions
// fetches one record, for which of them has one is not known. Without that, a
// process whose held events went to another member would stay paused.
func (p *pause) probe(partitions int) {
	select {
	case p.probing <- struct{}{}:
	default:
		return
	}
	first, second := p.held, p.fresh
	if p.turns++; p.turns%3 == 0 {
		first, second = second, first
	}
	if offer(first) || offer(second) {
		return
	}
	<-p.probing
	for range partitions {
		offer(p.fetch)
	}
}

// offer gives a turn if somebody is waiting for it.
func offer(turn chan<- struct{}) bool {
	select {
	case turn <- struct{}{}:
		return true
	default:
		return false
	}
}

// Pause stops fetching, and beginning events, until the cause is resumed; there
// may be several causes at once. Work in flight goes on, and about one event a
// second, three at once at most, is offered to the handler as a probe.
func (c *Consumer) Pause(cause string) {
	if c.pause.set(cause, true) {
		c.Log.Warn("paused", zap.String("cause", cause))
	}
}

// Resume takes a cause back. With the last one fetching goes on, and what is
// held is offered again at once.
func (c *Consumer) Resume(cause string) {
	if c.pause.set(cause, false) {
		c.Log.Info("resumed", zap.String("cause", cause))
	}
}

// probeLoop gives turns while the consumer is paused.
func (c *Consumer) probeLoop(ctx context.Context) {
	for await(ctx, c.pause.running.whenShut()) {
		if !sleep(ctx, probeInterval) {
			return
		}
		if !c.pause.running.isOpen() {
			c.pause.probe(len(c.holding()))
		}
	}
}
