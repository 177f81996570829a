package stream

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

// An event makes three calls of 50 ms each; timers stand for the calls, so that
// what is measured is this package and the client library.
const (
	benchCalls       = 3
	benchCall        = 50 * time.Millisecond
	benchConcurrency = 256
	benchPartitions  = 6
)

// BenchmarkConsumer compares the consumer with a plain loop over a group's
// reader. Run with -benchtime=10000x for the ramp at both ends not to count.
func BenchmarkConsumer(b *testing.B) {
	b.Run("stream", benchmarkStream)
	b.Run("plain", benchmarkPlain)
}

func benchmarkStream(b *testing.B) {
	cluster := newBroker(b, benchPartitions)
	conn := connect(b, cluster)
	for p := range benchPartitions {
		n := b.N / benchPartitions
		if p < b.N%benchPartitions {
			n++
		}
		fill(b, conn, p, n, ownKey)
	}
	begun, rested := make(chan struct{}, b.N), make(chan struct{}, b.N)
	m := join(b, conn, Config{Concurrency: benchConcurrency, Handle: func(ctx context.Context, _ kafka.Message) Outcome {
		begun <- struct{}{}
		for range benchCalls {
			sleep(ctx, benchCall)
		}
		rested <- struct{}{}
		return Outcome{AtRest: true}
	}})
	<-begun
	measure(b, benchConcurrency, func() {
		for range b.N {
			<-rested
		}
	})
	m.stop(b)
}

func benchmarkPlain(b *testing.B) {
	cluster := newBroker(b, benchPartitions)
	conn := connect(b, cluster)
	fill(b, conn, 0, b.N, ownKey)
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: conn.brokers, Topic: topic, GroupID: group, MaxWait: time.Second})
	defer reader.Close()
	message, err := reader.FetchMessage(b.Context())
	require.NoError(b, err)
	measure(b, 1, func() {
		for i := range b.N {
			for range benchCalls {
				sleep(b.Context(), benchCall)
			}
			require.NoError(b, reader.CommitMessages(b.Context(), message))
			if i < b.N-1 {
				message, err = reader.FetchMessage(b.Context())
				require.NoError(b, err)
			}
		}
	})
}

// measure reports the rate, its share of what the concurrency allows, and the
// processor's time.
func measure(b *testing.B, concurrency int, work func()) {
	b.Helper()
	var before, after syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	b.ResetTimer()
	begun := time.Now()
	work()
	took := time.Since(begun)
	b.StopTimer()
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	rate := float64(b.N) / took.Seconds()
	bound := float64(concurrency) / (benchCalls * benchCall).Seconds()
	b.ReportMetric(rate, "events/s")
	b.ReportMetric(100*rate/bound, "%bound")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs/event")
}
