package parts

import (
	"context"
	"os"
	"sync"
	"testing"
)

// sharing is what the tests of this binary share.
var sharing struct {
	mu     sync.Mutex
	inUse  bool // TestMain stops what is shared
	toStop []func()
}

// TestingM is what runs the tests of a package: *testing.M.
type TestingM interface{ Run() int }

// StopAfter wraps what runs a package's tests, so that the parts they share are
// stopped when all are done:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(parts.StopAfter(m)) }
func StopAfter(m TestingM) TestingM { return stopper{m} }

type stopper struct{ TestingM }

// Run runs the tests, then stops what they shared.
func (s stopper) Run() int {
	sharing.mu.Lock()
	sharing.inUse = true
	sharing.mu.Unlock()
	defer stopShared()
	return s.TestingM.Run()
}

func stopShared() {
	sharing.mu.Lock()
	defer sharing.mu.Unlock()
	for _, stop := range sharing.toStop {
		stop()
	}
	sharing.toStop, sharing.inUse = nil, false
}

// killer is what every part is.
type killer interface{ kill() }

// shared starts a part once, for all tests of this binary.
type shared[P killer] struct {
	once sync.Once
	part P
	err  error
}

func (s *shared[P]) get(tb testing.TB, start func(ctx context.Context, folder string) (P, error)) P {
	tb.Helper()
	s.once.Do(func() { s.start(tb.Context(), start) })
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return s.part
}

func (s *shared[P]) start(ctx context.Context, start func(ctx context.Context, folder string) (P, error)) {
	sharing.mu.Lock()
	defer sharing.mu.Unlock()
	if !sharing.inUse {
		s.err = errNotStopped
		return
	}
	folder, err := os.MkdirTemp("", "ecreds-parts-")
	if err != nil {
		s.err = err
		return
	}
	remove := func() { _ = os.RemoveAll(folder) } // in the system's temporary folder
	if s.part, s.err = start(ctx, folder); s.err != nil {
		remove()
		return
	}
	sharing.toStop = append(sharing.toStop, func() { s.part.kill(); remove() })
}

// own starts a part for one test, which it ends with.
func own[P killer](tb testing.TB, folder string, start func(ctx context.Context, folder string) (P, error)) P {
	tb.Helper()
	part, err := start(tb.Context(), folder)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(part.kill)
	return part
}
