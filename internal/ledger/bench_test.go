package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

// cpu is the processor time that the process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func eachKind(b *testing.B, run func(*testing.B, kind)) {
	b.Helper()
	for _, name := range slices.Sorted(maps.Keys(kinds())) {
		b.Run(name, func(b *testing.B) { run(b, kinds()[name]) })
	}
}

// BenchmarkCheckpoints is what the ledger does for one certificate (claim, three
// checkpoints, rest) with as many at once as one consumer works.
func BenchmarkCheckpoints(b *testing.B) {
	eachKind(b, benchCheckpoints)
}

func benchCheckpoints(b *testing.B, store kind) {
	b.Helper()
	h := house{Ledger: openURL(b, store.place(b)), t: b}
	require.NoError(b, h.Alive(context.Background(), issue.Process{ID: livingOne}))
	h.resolved(aJob("job-1"), many("learner", b.N)...)
	events := make(chan issue.Event, b.N)
	for len(events) < b.N {
		for _, event := range h.take() {
			events <- event
		}
	}
	close(events)
	before := cpu(b)
	var failed, issued atomic.Int64
	var wait sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range 256 {
		wait.Go(func() {
			if err := workOff(h.Ledger, events, 0, &issued); err != nil {
				failed.Add(1)
			}
		})
	}
	wait.Wait()
	b.StopTimer()
	require.Zero(b, failed.Load())
	require.EqualValues(b, b.N, issued.Load())
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "CPU-µs/event")
}

// BenchmarkFanOut writes pages as the fan-out does; one operation is one
// learner.
func BenchmarkFanOut(b *testing.B) {
	eachKind(b, benchFanOut)
}

func benchFanOut(b *testing.B, store kind) {
	b.Helper()
	const size = 500
	h := house{Ledger: openURL(b, store.place(b)), t: b}
	job := aJob("job-1")
	_, err := h.CreateJob(context.Background(), job, "", "")
	require.NoError(b, err)
	learners := many("learner", b.N)
	before := cpu(b)
	b.ReportAllocs()
	b.ResetTimer()
	for from := 0; from < b.N; from += size {
		page := pageOf(job, learners[from:min(from+size, b.N)]...)
		page.Next, page.Last = fmt.Sprint(from), false
		require.NoError(b, h.AddPage(context.Background(), job, page))
		job.Cursor = page.Next
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "learners/s")
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "CPU-µs/learner")
}

// BenchmarkVoidClaims skips events that are finished, as after a restart; one
// operation is one claim.
func BenchmarkVoidClaims(b *testing.B) { eachKind(b, benchVoidClaims) }

func benchVoidClaims(b *testing.B, store kind) {
	b.Helper()
	h := house{Ledger: openURL(b, store.place(b)), t: b}
	h.resolved(aJob("job-1"), many("learner", 1000)...)
	events := h.take()
	h.change(`UPDATE issuances SET is_out = 0, state = 'notified'`)
	var next atomic.Int64
	b.ResetTimer()
	atOnce(256, func(int) {
		for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
			_, result, err := h.Ledger.Claim(context.Background(), claimOf(events[n%1000], livingOne))
			if err != nil || result != issue.ClaimVoid {
				b.Error(result, err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
}
