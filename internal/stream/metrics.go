package stream

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
)

// Metrics shows what a consumer holds and how far behind it is.
type Metrics struct {
	inFlight   prometheus.Gauge
	assigned   prometheus.Gauge
	rebalances prometheus.Counter
	outOfRange prometheus.Counter
	lag        *prometheus.GaugeVec
	duration   prometheus.Histogram
}

// eventBuckets reach from an idle system to a batch of hours, in seconds.
var eventBuckets = []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400}

// NewMetrics registers the metrics of a consumer.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ecreds_in_flight", Help: "Events being worked in this process.",
		}),
		assigned: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ecreds_partitions_assigned", Help: "Partitions of the request topic assigned to this process.",
		}),
		rebalances: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ecreds_rebalances_total", Help: "Generations of the consumer group that this process entered.",
		}),
		outOfRange: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ecreds_offset_out_of_range_total", Help: "Times that the log did not have the next offset any more.",
		}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ecreds_consumer_lag", Help: "Records of a partition that are not fetched yet, as of the last fetch.",
		}, []string{"topic", "partition"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ecreds_event_duration_seconds", Help: "Time from an event's publication until it came to rest.",
			Buckets: eventBuckets, NativeHistogramBucketFactor: 1.1,
		}),
	}
	registry.MustRegister(m.inFlight, m.assigned, m.rebalances, m.outOfRange, m.lag, m.duration)
	return m
}

func (m *Metrics) behind(topic string, partition int, records int64) {
	m.lag.WithLabelValues(topic, strconv.Itoa(partition)).Set(float64(records))
}

func (m *Metrics) unassigned(topic string, partition int) {
	m.lag.DeleteLabelValues(topic, strconv.Itoa(partition))
}

func (m *Metrics) rested(message kafka.Message) {
	m.duration.Observe(time.Since(message.Time).Seconds())
}
