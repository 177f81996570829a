package sunbird

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func newTestGate(concurrency int) *Gate {
	return NewGate(GateConfig{Service: "some-service", Concurrency: concurrency})
}

// placed takes a place that must be had at once.
func placed(t *testing.T, g *Gate) *place {
	t.Helper()
	p, err := g.take(t.Context())
	require.NoError(t, err)
	return p
}

var outage = &issue.Failure{Verdict: issue.Outage, Reason: issue.ReasonUnavailable, Message: "connection refused", Unsent: true}

func (p *place) fails() { _ = p.settle(Call{}, Answer{}, outage) }

func (p *place) succeeds() { _ = p.settle(Call{}, Answer{Status: 200}, nil) }

// down opens the gate's breaker.
func down(t *testing.T, g *Gate) {
	t.Helper()
	for range breakerFailures {
		placed(t, g).fails()
	}
	require.True(t, g.breaker.circuit.IsOpen())
}

func TestPlacesAreGivenInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newTestGate(1)
		first := placed(t, g)
		var order []int
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				p := placed(t, g)
				order = append(order, i)
				p.succeeds()
			})
			synctest.Wait()
		}
		first.succeeds()
		wg.Wait()
		require.Equal(t, []int{0, 1, 2}, order)
	})
}

func TestNobodyWaitsForAPlaceForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newTestGate(1)
		held := placed(t, g)
		begun := time.Now()
		_, _, err := g.Take(t.Context())
		var none *issue.NoPlaceError
		require.ErrorAs(t, err, &none)
		require.Equal(t, placePatience, time.Since(begun))
		require.Zero(t, none.RetryAfter)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err = g.Take(ctx)
		require.ErrorIs(t, err, context.Canceled)
		held.succeeds()
		placed(t, g).succeeds()
	})
}

// A place in a context serves one call to its own gate, and returns by itself
// when none was made.
func TestThePlaceOfAContext(t *testing.T) {
	t.Parallel()
	g, other := newTestGate(2), newTestGate(2)
	ctx, done, err := g.Take(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, g.limiter.Inflight())
	elsewhere, err := other.placeFor(ctx)
	require.NoError(t, err)
	elsewhere.succeeds()
	p, err := g.placeFor(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, g.limiter.Inflight(), "the place at hand")
	second, err := g.placeFor(ctx)
	require.NoError(t, err)
	require.Equal(t, 2, g.limiter.Inflight(), "another call, another place")
	p.succeeds()
	second.succeeds()
	done()
	require.Zero(t, g.limiter.Inflight())

	_, done, err = g.Take(t.Context())
	require.NoError(t, err)
	done()
	done()
	require.Zero(t, g.limiter.Inflight(), "what was not used is given back, once")
}

func TestAFewProbesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newTestGate(64)
		down(t, g)
		time.Sleep(breakerDelay - time.Millisecond) //nolint:forbidigo // fake clock
		_, err := g.take(t.Context())
		require.Equal(t, issue.Outage, issue.AsFailure(err).Verdict)
		time.Sleep(time.Millisecond) //nolint:forbidigo // fake clock
		probes := []*place{placed(t, g), placed(t, g), placed(t, g)}
		_, err = g.take(t.Context())
		require.Contains(t, issue.AsFailure(err).Message, "connection refused")
		for _, p := range probes {
			p.fails()
		}
		_, err = g.take(t.Context())
		require.Equal(t, issue.Outage, issue.AsFailure(err).Verdict)
		time.Sleep(breakerDelay) //nolint:forbidigo // fake clock
		p, waiting := placed(t, g), placed(t, g)
		p.succeeds()
		for range 10 {
			placed(t, g).succeeds()
		}
		waiting.succeeds()
	})
}

// Probes that nobody answers, or that were not made after all, do not keep the
// service away.
func TestProbesThatTellNothing(t *testing.T) {
	t.Parallel()
	for name, probe := range map[string]func(*place){
		"silent":    func(*place) {},
		"not made":  func(p *place) { p.use(); p.drop() },
		"cancelled": func(p *place) { _ = p.settle(Call{}, Answer{}, context.Canceled) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newTestGate(64)
				down(t, g)
				time.Sleep(breakerDelay) //nolint:forbidigo // fake clock
				for range breakerProbes {
					if p, err := g.take(t.Context()); err == nil {
						probe(p)
					}
				}
				begun := time.Now()
				for {
					p, err := g.take(t.Context())
					if err == nil {
						p.succeeds()
						break
					}
					time.Sleep(100 * time.Millisecond) //nolint:forbidigo // fake clock
				}
				require.Less(t, time.Since(begun), 5*time.Second)
				require.True(t, g.breaker.circuit.IsClosed())
			})
		})
	}
}

// What was under way when the service went away tells nothing about its return.
func TestResultsFromBeforeTheOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newTestGate(64)
		var before []*place
		for range 10 {
			before = append(before, placed(t, g))
		}
		down(t, g)
		before[0].succeeds()
		require.True(t, g.breaker.circuit.IsOpen())
		time.Sleep(breakerDelay) //nolint:forbidigo // fake clock
		p := placed(t, g)
		for _, old := range before[1:5] {
			old.fails()
		}
		require.True(t, g.breaker.circuit.IsHalfOpen())
		p.succeeds()
		for _, old := range before[5:] {
			old.fails()
		}
		require.True(t, g.breaker.circuit.IsClosed())
	})
}

func TestAfterAnOutageTheLimitStartsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newTestGate(256)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 256 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if p, err := g.take(ctx); err == nil {
						p.alike = true
						time.Sleep(50 * time.Millisecond) //nolint:forbidigo // fake clock
						p.succeeds()
					}
				}
			})
		}
		time.Sleep(20 * time.Second) //nolint:forbidigo // fake clock
		require.Equal(t, 256, g.limiter.Limit(), "it has risen to all")
		cancel()
		wg.Wait()
		down(t, g)
		time.Sleep(breakerDelay) //nolint:forbidigo // fake clock
		placed(t, g).succeeds()
		require.Equal(t, initialLimit, g.limiter.Limit())
	})
}

func TestTheLimitOfASmallProgram(t *testing.T) {
	t.Parallel()
	for _, concurrency := range []int{0, 1, 3, 10, 40} {
		require.Equal(t, min(max(concurrency, 1), initialLimit), newTestGate(concurrency).limiter.Limit(), fmt.Sprint(concurrency))
	}
}

// BenchmarkPlace is what a gate costs a call.
func BenchmarkPlace(b *testing.B) {
	g := newTestGate(256)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ctx, done, err := g.Take(b.Context())
			if err != nil {
				continue
			}
			p, _ := g.placeFor(ctx)
			p.succeeds()
			done()
		}
	})
}
