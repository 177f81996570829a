package sunbird

import "github.com/prometheus/client_golang/prometheus"

// Metrics shows the gates of a process. A nil one shows nothing.
type Metrics struct {
	limit *prometheus.GaugeVec
	open  *prometheus.GaugeVec
}

// NewMetrics registers the metrics of all gates, every label at zero.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		limit: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ecreds_limit", Help: "Calls at once that a service is found to bear; 0 = this program does not call it.",
		}, []string{"downstream"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ecreds_breaker_open", Help: "1 while a service is away or refuses our credentials.",
		}, []string{"downstream"}),
	}
	for _, downstream := range Downstreams() {
		m.limit.WithLabelValues(string(downstream))
		m.open.WithLabelValues(string(downstream))
	}
	registry.MustRegister(m.limit, m.open)
	return m
}

func (m *Metrics) setLimit(downstream Downstream, limit int) {
	if m != nil {
		m.limit.WithLabelValues(string(downstream)).Set(float64(limit))
	}
}

func (m *Metrics) setOpen(downstream Downstream, open bool) {
	if m == nil {
		return
	}
	value := 0.0
	if open {
		value = 1
	}
	m.open.WithLabelValues(string(downstream)).Set(value)
}
