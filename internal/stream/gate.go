package stream

import "sync/atomic"

// gate is open or shut, and both can be waited for. It is looked at for each
// event, by all lanes at once, hence without a lock; who sets it holds one.
type gate struct{ state atomic.Pointer[gateState] }

type gateState struct {
	open   bool
	opened chan struct{} // closed while the gate is open
	shut   chan struct{} // closed while it is shut
}

// newGate returns a gate that is shut.
func newGate() *gate {
	state := &gateState{opened: make(chan struct{}), shut: make(chan struct{})}
	close(state.shut)
	g := &gate{}
	g.state.Store(state)
	return g
}

func (g *gate) set(open bool) {
	was := g.state.Load()
	switch {
	case open && !was.open:
		g.state.Store(&gateState{open: true, opened: was.opened, shut: make(chan struct{})})
		close(was.opened)
	case !open && was.open:
		g.state.Store(&gateState{open: false, opened: make(chan struct{}), shut: was.shut})
		close(was.shut)
	}
}

func (g *gate) isOpen() bool              { return g.state.Load().open }
func (g *gate) whenOpen() <-chan struct{} { return g.state.Load().opened }
func (g *gate) whenShut() <-chan struct{} { return g.state.Load().shut }
