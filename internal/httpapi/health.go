package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// probeTimeout ends a probe before the 5 s after which the platform's
// Kubernetes probes give up on /health.
const probeTimeout = 3 * time.Second

// Check is one thing that /health tells the truth about. Probe has to end with
// its context.
type Check struct {
	Name  string
	Probe func(ctx context.Context) error
}

// adminPatterns are the routes of [Admin], for those who treat them apart.
var adminPatterns = []string{"/health", "/service/health", "/live", "/ready", "/metrics"}

// Admin mounts health and metrics on a router.
func Admin(cfg Config) func(chi.Router) {
	a := &api{Config: withDefaults(cfg)}
	return func(r chi.Router) {
		a.router = r
		r.Get("/health", a.serve(a.health, ""))
		r.Get("/service/health", a.serve(a.serviceHealth, ""))
		r.Get("/live", a.serve(a.live, ""))
		r.Get("/ready", a.serve(a.ready, ""))
		// OpenMetrics is the form that carries exemplars.
		metrics := promhttp.HandlerFor(a.Gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true})
		r.Method(http.MethodGet, "/metrics", metrics)
	}
}

func isAdmin(route string) bool { return slices.Contains(adminPatterns, route) }

// checked is one check in the platform's shape.
type checked struct {
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"`
	Err     string `json:"err"`
	ErrMsg  string `json:"errmsg"`
}

type healthReport struct {
	Response healthResponse `json:"response"`
}

type healthResponse struct {
	Checks  []checked `json:"checks"`
	Name    string    `json:"name"`
	Healthy bool      `json:"healthy"`
}

// health is 200 whatever it says, so that a probe which the platform points
// here does not restart us for an outage elsewhere.
func (a *api) health(w http.ResponseWriter, r *http.Request) error {
	checks := a.probe(r)
	healthy := !slices.ContainsFunc(checks, func(c checked) bool { return !c.Healthy })
	answer := success(r, healthReport{healthResponse{Checks: checks, Name: "Complete health check api", Healthy: healthy}})
	answer.ID, answer.Ver = "api.all.health", "health"
	return a.send(w, r, http.StatusOK, answer)
}

// probe runs all checks at once and waits for them.
func (a *api) probe(r *http.Request) []checked {
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	var (
		results = make([]checked, len(a.Checks))
		errs    = make([]error, len(a.Checks))
		running sync.WaitGroup
	)
	for i, check := range a.Checks {
		running.Go(func() { results[i], errs[i] = run(ctx, check) })
	}
	running.Wait()
	for i, err := range errs {
		if err != nil {
			note(r, zap.NamedError("check_"+a.Checks[i].Name, err))
		}
	}
	return results
}

// run turns a probe into its line. The cause goes to the log, not to whoever
// asks: it names hosts.
func run(ctx context.Context, check Check) (result checked, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("probe panicked: %v", cause)
		}
		result = checked{Name: check.Name, Healthy: err == nil}
		if err != nil {
			result.Err, result.ErrMsg = "CONNECTION_ERROR", "Connection error"
		}
	}()
	return checked{}, check.Probe(ctx)
}

// serviceHealth is the platform's check of the process alone. Its ts has
// always been the message id, and its params null.
func (a *api) serviceHealth(w http.ResponseWriter, r *http.Request) error {
	const name = "Learner service"
	return write(w, http.StatusOK, envelope{
		ID: "learner.service.health.api", Ver: "service", TS: entryOf(r).requestID, ResponseCode: "OK",
		Result: healthReport{healthResponse{
			Checks: []checked{{Name: name, Healthy: true}}, Name: name + " health", Healthy: true,
		}},
	})
}

// live says that the process runs; it asks nobody, or an outage of Kafka would
// restart everything.
func (a *api) live(w http.ResponseWriter, r *http.Request) error {
	return a.send(w, r, http.StatusOK, success(r, struct {
		Live    bool   `json:"live"`
		Version string `json:"version,omitempty"`
	}{true, a.Version}))
}

// ready says whether calls should come here.
func (a *api) ready(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	if a.Ready != nil {
		if err := a.Ready(ctx); err != nil {
			note(r, zap.Error(err))
			return a.notReady(w, r, err)
		}
	}
	return a.send(w, r, http.StatusOK, success(r, json.RawMessage(`{"ready":true}`)))
}

func (a *api) notReady(w http.ResponseWriter, r *http.Request, cause error) error {
	why := refusal{
		status: http.StatusServiceUnavailable, code: codeUnavailable, codeless: true, text: "Not ready: " + cause.Error(),
	}
	answer := failure(r, why)
	answer.Result = json.RawMessage(`{"ready":false}`)
	return a.send(w, r, why.status, answer)
}
