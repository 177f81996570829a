package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ecreds/issuer/internal/issue"
)

// Prefix is where the gateway forwards to.
const Prefix = "/v1/course/batch/cert"

// issuePatterns are all paths of the one operation that the platform calls.
var issuePatterns = []string{
	Prefix + "/issue", "/course/batch/cert/v1/issue", "/api/course/batch/cert/v1/issue", "/issue",
}

type (
	// Accepter turns a request into a job, or refuses it.
	Accepter interface {
		Accept(ctx context.Context, r issue.Request) (issue.Acceptance, error)
	}

	// Reconciler compares a batch with the ledger, or refuses to.
	Reconciler interface {
		Reconcile(ctx context.Context, r issue.ReconcileRequest) (issue.Reconciliation, error)
	}

	// Jobs reads what is known about accepted jobs. A job that does not exist
	// is false; a ledger that does not answer is an error wrapping
	// [issue.ErrUnavailable].
	Jobs interface {
		Job(ctx context.Context, id issue.JobID) (issue.JobProgress, bool, error)
		Learners(ctx context.Context, q issue.LearnerQuery) (issue.LearnerPage, error)
	}
)

// Config is what the handlers need. [NewAdmin] and [Admin] read neither
// Accepter nor Reconciler nor Jobs.
type Config struct {
	Accepter   Accepter
	Reconciler Reconciler
	Jobs       Jobs
	Checks     []Check // shown by /health, in this order
	// Ready says whether this process can do its work; nil = always. Its error
	// is shown by /ready, so it names the part that is missing.
	Ready    func(ctx context.Context) error
	MaxBody  int64 // bytes of a request body; 0 = 1 MiB, what the gateway lets through
	Log      *zap.Logger
	Metrics  prometheus.Registerer
	Gatherer prometheus.Gatherer // served by /metrics
	Version  string              // shown by /live
	Now      func() time.Time    // nil = time.Now
}

// api holds what its handlers share.
type api struct {
	Config
	router   chi.Router
	duration *prometheus.HistogramVec
}

// New serves the whole API.
func New(cfg Config) http.Handler {
	a := newAPI(cfg)
	a.routes()
	a.startAtZero()
	return a.router
}

// NewAdmin serves health and metrics alone, for a program without an API.
func NewAdmin(cfg Config) http.Handler {
	a := newAPI(cfg)
	Admin(a.Config)(a.router)
	a.startAtZero()
	return a.router
}

// routes is the one place where the paths of the API stand.
func (a *api) routes() {
	r := a.router
	for _, pattern := range issuePatterns {
		r.Post(pattern, a.serve(a.issue, issueNeeds))
	}
	r.Post(Prefix+"/reconcile", a.serve(a.reconcile, issueNeeds))
	r.Get(Prefix+"/jobs/{id}", a.serve(a.job, jobsNeed))
	r.Get(Prefix+"/jobs/{id}/learners", a.serve(a.learners, jobsNeed))
	Admin(a.Config)(r)
}

func newAPI(cfg Config) *api {
	a := &api{Config: withDefaults(cfg), router: chi.NewRouter()}
	a.duration = newDuration(a.Metrics)
	// The request's own line comes first, so that it sees what the others did;
	// a panic becomes an answer before it is counted.
	a.router.Use(a.identify, a.observe, a.recover, preflight, middleware.StripSlashes, middleware.GetHead, a.limitBody)
	a.router.NotFound(a.serve(a.notFound, ""))
	a.router.MethodNotAllowed(a.serve(a.methodNotAllowed, ""))
	return a
}

func withDefaults(cfg Config) Config {
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = 1 << 20
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Metrics == nil || cfg.Gatherer == nil {
		registry := prometheus.NewRegistry()
		cfg.Metrics, cfg.Gatherer = registry, registry
	}
	return cfg
}

// NewServer is a server whose limits suit these handlers: a body of a mebibyte
// arrives within ReadTimeout over any line that is of use, and WriteTimeout,
// which starts with it, leaves a minute to count a large batch. A long CSV
// moves its own deadline.
func NewServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      90 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

func (a *api) notFound(http.ResponseWriter, *http.Request) error {
	return notFoundError("Requested resource not found.")
}

func (a *api) methodNotAllowed(w http.ResponseWriter, r *http.Request) error {
	allowed := a.allowedMethods(r)
	if len(allowed) == 0 { // the router asks no further for a method it has never heard of
		return a.notFound(w, r)
	}
	for _, method := range allowed {
		w.Header().Add("Allow", method)
	}
	return refusal{
		status: http.StatusMethodNotAllowed, code: codeMethod, text: "Method is not allowed for this resource.",
	}
}

// allowedMethods lists the methods that the request's path is served for.
func (a *api) allowedMethods(r *http.Request) []string {
	var allowed []string
	if a.patternFor(r, http.MethodGet) != "" {
		allowed = append(allowed, http.MethodGet, http.MethodHead)
	}
	if a.patternFor(r, http.MethodPost) != "" {
		allowed = append(allowed, http.MethodPost)
	}
	if len(allowed) > 0 {
		allowed = append(allowed, http.MethodOptions)
	}
	return allowed
}

// pattern is the route of a request, also when it came with a method that the
// route does not have; empty = no route has this path.
func (a *api) pattern(r *http.Request) string {
	if pattern := chi.RouteContext(r.Context()).RoutePattern(); pattern != "" {
		return pattern
	}
	if pattern := a.patternFor(r, http.MethodGet); pattern != "" {
		return pattern
	}
	return a.patternFor(r, http.MethodPost)
}

func (a *api) patternFor(r *http.Request, method string) string {
	path := chi.RouteContext(r.Context()).RoutePath // without its trailing slash
	if path == "" {
		path = r.URL.Path
	}
	return a.router.Find(chi.NewRouteContext(), method, path)
}
