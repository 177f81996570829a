package httpapi

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// otherRoute stands for every path that has no route, so that a scanner does
// not grow the series.
const otherRoute = "other"

func newDuration(registerer prometheus.Registerer) *prometheus.HistogramVec {
	return promauto.With(registerer).NewHistogramVec(prometheus.HistogramOpts{
		Name:    "ecreds_http_request_duration_seconds",
		Help:    "Time to answer an HTTP request, by route pattern, method and status code.",
		Buckets: append(prometheus.DefBuckets, 30, 90), // counting a large batch takes longer than most answers
		// Native histograms are an extra for servers that read them.
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"route", "method", "code"})
}

// startAtZero creates the series of everything that is served, so that the
// first error is a step from zero and not a series out of nothing.
func (a *api) startAtZero() {
	create := func(route, method string, codes ...int) {
		for _, code := range codes {
			a.duration.WithLabelValues(route, method, strconv.Itoa(code))
		}
	}
	// The function below returns no error, so neither does Walk.
	_ = chi.Walk(a.router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		create(route, method, codesOf(route, method)...)
		return nil
	})
	create(otherRoute, http.MethodOptions, http.StatusOK)
	create(otherRoute, http.MethodGet, http.StatusNotFound, http.StatusMethodNotAllowed)
	create(otherRoute, http.MethodPost, http.StatusNotFound, http.StatusMethodNotAllowed)
}

// codesOf lists what a route can answer.
func codesOf(route, method string) []int {
	codes := []int{http.StatusOK, http.StatusInternalServerError}
	switch {
	case isAdmin(route):
		return append(codes, http.StatusServiceUnavailable)
	case method == http.MethodPost:
		codes = append(codes, http.StatusConflict, http.StatusRequestEntityTooLarge)
	default:
		codes = append(codes, http.StatusNotFound)
	}
	return append(codes, http.StatusBadRequest, http.StatusServiceUnavailable, statusGone)
}

// count measures one request, with its trace as an exemplar where it has one.
func (a *api) count(route, method string, status int, took time.Duration, traceParent string) {
	observer := a.duration.WithLabelValues(route, closedMethod(method), strconv.Itoa(status))
	if exemplar, ok := observer.(prometheus.ExemplarObserver); ok && traceParent != "" {
		exemplar.ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": traceOf(traceParent)})
		return
	}
	observer.Observe(took.Seconds())
}

// route is the label of a request: the pattern it was served by.
func (a *api) route(r *http.Request) string {
	return firstOf(chi.RouteContext(r.Context()).RoutePattern(), otherRoute)
}

// closedMethod keeps invented methods out of labels.
func closedMethod(method string) string {
	known := []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions,
	}
	if slices.Contains(known, method) {
		return method
	}
	return "other"
}
