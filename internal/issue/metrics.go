package issue

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The outcomes of events, a closed list.
const (
	outcomeIssued       = "issued"
	outcomeRetried      = "retried"
	outcomeDeadLettered = "dead_lettered"
	outcomeStopped      = "stopped"
	outcomeStale        = "stale"
	outcomeAdopted      = "adopted"
)

// DispatchMetrics counts what the dispatcher published.
type DispatchMetrics struct{ publishedTotal *prometheus.CounterVec }

// NewDispatchMetrics registers the dispatcher's metrics, every label at zero.
func NewDispatchMetrics(registry prometheus.Registerer) *DispatchMetrics {
	m := &DispatchMetrics{publishedTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ecreds_published_total", Help: "Events given to Kafka, by what became of them.",
	}, []string{"outcome"})}
	for _, outcome := range PublishOutcomes() {
		m.publishedTotal.WithLabelValues(string(outcome))
	}
	registry.MustRegister(m.publishedTotal)
	return m
}

func (m *DispatchMetrics) published(outcome PublishOutcome) {
	m.publishedTotal.WithLabelValues(string(outcome)).Inc()
}

// WorkMetrics counts what the worker did.
type WorkMetrics struct {
	events       *prometheus.CounterVec
	stepDuration *prometheus.HistogramVec
	attempts     *prometheus.CounterVec
	deadLetters  *prometheus.CounterVec
}

// stepBuckets reach from a fast local call to cert-service's slowest answers,
// in seconds.
var stepBuckets = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 80}

// NewWorkMetrics registers the worker's metrics, every label at zero.
func NewWorkMetrics(registry prometheus.Registerer) *WorkMetrics {
	m := &WorkMetrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecreds_events_total", Help: "Events that came to rest, by outcome.",
		}, []string{"outcome"}),
		stepDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ecreds_step_duration_seconds", Help: "Duration of one outward call of a step.",
			Buckets: stepBuckets, NativeHistogramBucketFactor: 1.1,
		}, []string{"step"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecreds_step_attempts_total", Help: "Tries of a step, by verdict and reason (reason is empty when done).",
		}, []string{"step", "verdict", "reason"}),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecreds_dead_letters_total", Help: "Events written to the dead-letter topic.",
		}, []string{"step", "reason"}),
	}
	m.startAtZero()
	registry.MustRegister(m.events, m.stepDuration, m.attempts, m.deadLetters)
	return m
}

// startAtZero creates every label set, so that a rate over the first event is
// not lost.
func (m *WorkMetrics) startAtZero() {
	for _, outcome := range []string{
		outcomeIssued, outcomeRetried, outcomeDeadLettered, outcomeStopped, outcomeStale, outcomeAdopted,
	} {
		m.events.WithLabelValues(outcome)
	}
	for _, step := range Steps() {
		m.stepDuration.WithLabelValues(string(step))
		m.attempts.WithLabelValues(string(step), string(Done), "")
		for _, reason := range Reasons() {
			m.deadLetters.WithLabelValues(string(step), string(reason))
			for _, verdict := range []Verdict{Transient, Permanent, Outage} {
				m.attempts.WithLabelValues(string(step), string(verdict), string(reason))
			}
		}
	}
}

func (m *WorkMetrics) event(outcome string) { m.events.WithLabelValues(outcome).Inc() }

// attempt counts one try; took is 0 when it ended before its call.
func (m *WorkMetrics) attempt(step Step, verdict Verdict, reason Reason, took time.Duration) {
	m.attempts.WithLabelValues(string(step), string(verdict), string(reason)).Inc()
	if took > 0 {
		m.stepDuration.WithLabelValues(string(step)).Observe(took.Seconds())
	}
}

func (m *WorkMetrics) deadLetter(step Step, reason Reason) {
	m.deadLetters.WithLabelValues(string(step), string(reason)).Inc()
}
