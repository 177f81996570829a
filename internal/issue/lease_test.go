package issue

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// leases is a store of one lease.
type leases struct {
	mu     sync.Mutex
	holder string
	until  time.Time
	away   bool
}

func (l *leases) Lease(_ context.Context, _, holder string, d time.Duration) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return false, ErrUnavailable
	}
	if l.holder != holder && time.Now().Before(l.until) {
		return false, nil
	}
	l.holder, l.until = holder, time.Now().Add(d)
	return true, nil
}

func (l *leases) EndLease(_ context.Context, _, holder string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder == holder {
		l.until = time.Time{}
	}
	return nil
}

func (l *leases) with(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// replica runs a task under a lease and knows whether it is being done.
type replica struct {
	mu    sync.Mutex
	doing bool
	stop  context.CancelFunc
	ended chan error
}

func (r *replica) does() bool {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.doing
}

func (r *replica) set(doing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doing = doing
}

const leaseFor = 6 * time.Second

func startReplica(t *testing.T, store LeaseStore, holder string) *replica {
	t.Helper()
	r := &replica{ended: make(chan error, 1)}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	lease := &Lease{Store: store, Task: "dispatch", Holder: holder, For: leaseFor, Log: nopLog()}
	go func() {
		r.ended <- lease.Run(ctx, func(ctx context.Context) error {
			r.set(true)
			defer r.set(false)
			<-ctx.Done()
			return nil
		})
	}()
	synctest.Wait()
	return r
}

func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // fake clock

func TestALeaseIsHeldByOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &leases{}
		a, b := startReplica(t, store, "a"), startReplica(t, store, "b")
		defer b.stop()
		for range 30 {
			require.True(t, a.does())
			require.False(t, b.does())
			pass(time.Second)
		}
		a.stop()
		require.NoError(t, <-a.ended)
		pass(leaseFor / 2)
		require.True(t, b.does(), "it was given back")
	})
}

func TestALeaseIsTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &leases{holder: "killed", until: time.Now().Add(leaseFor)}
		a := startReplica(t, store, "a")
		defer a.stop()
		require.False(t, a.does())
		pass(leaseFor + leaseFor/2)
		require.True(t, a.does())
		store.with(func() { store.holder, store.until = "b", time.Now().Add(time.Hour) }) // a was stopped, and comes back
		pass(leaseFor / 3)
		require.False(t, a.does())
	})
}

func TestAHolderThatCannotRenewStopsBeforeItsTimeIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &leases{}
		a := startReplica(t, store, "a")
		defer a.stop()
		store.with(func() { store.away = true })
		pass(leaseFor / 2)
		require.True(t, a.does(), "one failure is no reason")
		pass(leaseFor / 2)
		require.False(t, a.does())
		store.with(func() { store.away = false })
		pass(leaseFor)
		require.True(t, a.does())
	})
}

func TestATaskThatFailsEndsTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, failed := &leases{}, errors.New("failed")
		lease := &Lease{Store: store, Task: "dispatch", Holder: "a", For: leaseFor, Log: nopLog()}
		require.ErrorIs(t, lease.Run(t.Context(), func(context.Context) error { return failed }), failed)
		require.True(t, store.until.IsZero(), "somebody else may try")
	})
}
