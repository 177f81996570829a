package sunbird

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TimeToLimit keeps callers busy with calls that are answered after a latency,
// and tells when the limit of their gate lets nearly all of them through.
func TimeToLimit(tb testing.TB, callers int, latency time.Duration) time.Duration {
	tb.Helper()
	gate := NewGate(GateConfig{Service: "some-service", Concurrency: callers})
	ctx, cancel := context.WithCancel(tb.Context())
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				p, err := gate.take(ctx)
				if err != nil {
					continue
				}
				p.alike = true
				<-time.After(latency)
				_ = p.settle(Call{}, Answer{Status: 200}, nil)
			}
		})
	}
	begun := time.Now()
	for gate.limiter.Limit() < callers*95/100 {
		<-time.After(10 * time.Millisecond)
	}
	took := time.Since(begun)
	cancel()
	wg.Wait()
	return took
}
