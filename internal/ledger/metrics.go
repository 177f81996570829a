package ledger

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The operations that are measured, a closed list.
const (
	opAccept     = "accept"
	opFanOut     = "fan_out"
	opDispatch   = "dispatch"
	opClaim      = "claim"
	opCheckpoint = "checkpoint"
	opAdopt      = "adopt"
	opAlive      = "alive"
	opRead       = "read"
)

type metrics struct{ duration *prometheus.HistogramVec }

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "ecreds_ledger_duration_seconds", Help: "Duration of a ledger operation, its wait for a group included.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}, NativeHistogramBucketFactor: 1.1,
	}, []string{"op"})}
	for _, op := range []string{opAccept, opFanOut, opDispatch, opClaim, opCheckpoint, opAdopt, opAlive, opRead} {
		m.duration.WithLabelValues(op)
	}
	registry.MustRegister(m.duration)
	return m
}

// observe measures from begun until now.
func (m *metrics) observe(op string, begun time.Time) {
	m.duration.WithLabelValues(op).Observe(time.Since(begun).Seconds())
}
