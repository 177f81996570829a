package stream

import "sync"

// gate is open or shut, and both can be waited for.
type gate struct {
	mu     sync.Mutex
	open   bool
	opened chan struct{} // closed while the gate is open
	shut   chan struct{} // closed while it is shut
}

// newGate returns a gate that is shut.
func newGate() *gate {
	g := &gate{opened: make(chan struct{}), shut: make(chan struct{})}
	close(g.shut)
	return g
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case open && !g.open:
		close(g.opened)
		g.shut = make(chan struct{})
	case !open && g.open:
		close(g.shut)
		g.opened = make(chan struct{})
	}
	g.open = open
}

func (g *gate) isOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

func (g *gate) whenOpen() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened
}

func (g *gate) whenShut() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}
