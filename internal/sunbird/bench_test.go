package sunbird_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/sunbird"
)

// collapsing answers up to capacity calls at once after latency; with n beyond
// it each takes (n/capacity)² as long, so that more callers get less done.
func collapsing(tb testing.TB, capacity int, latency time.Duration) (url string) {
	tb.Helper()
	var inFlight atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := inFlight.Add(1)
		defer inFlight.Add(-1)
		wait := latency
		if over := float64(n) / float64(capacity); over > 1 {
			wait = time.Duration(float64(wait) * over * over)
		}
		<-time.After(wait)
		w.WriteHeader(http.StatusOK)
	}))
	tb.Cleanup(server.Close)
	return server.URL
}

// load keeps so many callers busy until stop and counts what they get done.
func load(tb testing.TB, client *sunbird.Client, gate *sunbird.Gate, callers int) (done *atomic.Int64, stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	done = new(atomic.Int64)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if step(ctx, client, gate) {
					done.Add(1)
				}
			}
		})
	}
	return done, func() { cancel(); wg.Wait() }
}

// step makes a call as a step does, with a place where there is a gate.
func step(ctx context.Context, client *sunbird.Client, gate *sunbird.Gate) bool {
	if gate != nil {
		placed, done, err := gate.Take(ctx)
		if err != nil {
			return false
		}
		defer done()
		ctx = placed
	}
	answer, err := client.Do(ctx, get)
	return err == nil && answer.Success()
}

// goodput is what is done in a second, after a time to settle.
func goodput(done *atomic.Int64, settle, measure time.Duration) float64 {
	<-time.After(settle)
	from := done.Load()
	<-time.After(measure)
	return float64(done.Load()-from) / measure.Seconds()
}

func benchClient(tb testing.TB, url string, connections int, gate *sunbird.Gate) *sunbird.Client {
	tb.Helper()
	httpClient := sunbird.NewHTTPClient(connections)
	tb.Cleanup(httpClient.CloseIdleConnections)
	client, err := sunbird.NewClient(sunbird.Config{
		Service: "some-service", URL: url, Timeout: time.Minute, HTTP: httpClient, Gate: gate,
	})
	require.NoError(tb, err)
	return client
}

// BenchmarkCollapse compares the goodput behind a gate with that of the best
// fixed number of callers, against a service that collapses beyond 40 calls.
func BenchmarkCollapse(b *testing.B) {
	const capacity, latency = 40, 50 * time.Millisecond
	for b.Loop() {
		best, bestAt := 0.0, 0
		for _, callers := range []int{30, 36, 40, 44, 50} {
			done, stop := load(b, benchClient(b, collapsing(b, capacity, latency), callers, nil), nil, callers)
			if rate := goodput(done, time.Second, 3*time.Second); rate > best {
				best, bestAt = rate, callers
			}
			stop()
		}
		for _, callers := range []int{256, 1000} {
			gate := sunbird.NewGate(sunbird.GateConfig{Service: "some-service", Concurrency: callers})
			done, stop := load(b, benchClient(b, collapsing(b, capacity, latency), callers, gate), gate, callers)
			b.ReportMetric(100*goodput(done, 3*time.Second, 15*time.Second)/best, fmt.Sprintf("%%_of_best_at_%d", callers))
			stop()
		}
		b.ReportMetric(float64(bestAt), "best_callers")
	}
}

// BenchmarkLimitRises measures how long the limit takes to let all callers
// through to a service that bears them all and answers after 50 ms. (Calls are
// timers: as many over HTTP would measure this machine.)
func BenchmarkLimitRises(b *testing.B) {
	for _, callers := range []int{256, 1000, 1500} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(sunbird.TimeToLimit(b, callers, 50*time.Millisecond).Seconds(), "s_to_all")
			}
		})
	}
}
