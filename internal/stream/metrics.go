package stream

import (
	"strconv"
	"sync/atomic"
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
	rebuilds   *prometheus.CounterVec
	duration   prometheus.Histogram
	holdings
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
		rebuilds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecreds_rebuilds_total", Help: "Readers and memberships that no longer worked and were made anew.",
		}, []string{"what"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ecreds_event_duration_seconds", Help: "Time from an event's publication until it came to rest.",
			Buckets: eventBuckets, NativeHistogramBucketFactor: 1.1,
		}),
	}
	for _, what := range []string{rebuiltReader, rebuiltMembership} {
		m.rebuilds.WithLabelValues(what)
	}
	registry.MustRegister(m.inFlight, m.assigned, m.rebalances, m.outOfRange, m.rebuilds, m.duration, &m.holdings)
	return m
}

func (m *Metrics) rested(message kafka.Message) {
	m.duration.Observe(time.Since(message.Time).Seconds())
}

// holdings shows what a consumer holds, as it is when somebody looks.
type holdings struct{ consumer atomic.Pointer[Consumer] }

var (
	lagDesc = prometheus.NewDesc("ecreds_consumer_lag",
		"Records of a partition that are not at rest, fetched or not.", []string{"topic", "partition"}, nil)
	ageDesc = prometheus.NewDesc("ecreds_oldest_event_age_seconds",
		"Age of the oldest event that this process has fetched and that is not at rest; 0 = there is none.", nil, nil)
)

// show has the holdings be those of a consumer.
func (h *holdings) show(c *Consumer) { h.consumer.Store(c) }

// Describe is for the registry.
func (h *holdings) Describe(descs chan<- *prometheus.Desc) {
	descs <- lagDesc
	descs <- ageDesc
}

// Collect is for the registry.
func (h *holdings) Collect(metrics chan<- prometheus.Metric) {
	age := time.Duration(0)
	if c := h.consumer.Load(); c != nil {
		for _, p := range c.holding() {
			if lag, ok := p.tracker.lag(); ok {
				metrics <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, float64(lag), c.Topic, strconv.Itoa(p.id))
			}
			if oldest := p.tracker.oldest(); !oldest.IsZero() {
				age = max(age, time.Since(oldest))
			}
		}
	}
	metrics <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, age.Seconds())
}
