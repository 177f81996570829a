// Package app wires issuer-api: settings in, a running program out. It is apart
// from main so that the one-machine program and tests start the same wiring.
package app

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/ecreds/issuer/internal/content"
	"github.com/ecreds/issuer/internal/enrolment/elasticsearch"
	"github.com/ecreds/issuer/internal/events"
	"github.com/ecreds/issuer/internal/httpapi"
	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/learner"
	"github.com/ecreds/issuer/internal/ledger"
	"github.com/ecreds/issuer/internal/program"
	"github.com/ecreds/issuer/internal/stream"
	"github.com/ecreds/issuer/internal/sunbird"
)

const (
	// callsAtOnce bounds connections to one service: the API calls on behalf of
	// people and of one fan-out.
	callsAtOnce = 32
)

// App is an assembled issuer-api.
type App struct {
	config     Config
	log        *zap.Logger
	registry   *prometheus.Registry
	listener   net.Listener
	kafka      *stream.Connection
	publisher  *stream.Publisher
	ledger     *ledger.Ledger
	courses    issue.Courses
	enrolments *elasticsearch.Client
	validator  issue.Validator // nil = no learner service is set up
	fanOut     *issue.FanOut
	dispatcher *issue.Dispatcher
	lease      *issue.Lease
	readiness  *program.Readiness
}

// New assembles the program: it opens the ledger and takes its address.
func New(ctx context.Context, config Config, logTo io.Writer) (*App, error) {
	log, err := program.Logger(config.Log, logTo)
	if err != nil {
		return nil, err
	}
	a := &App{config: config, log: log.Named("issuer-api"), registry: program.Registry("issuer-api")}
	if err := a.connect(); err != nil {
		return nil, err
	}
	if a.listener, err = program.Listen(ctx, config.HTTPAddrSetting, config.HTTPAddr); err != nil {
		return nil, err
	}
	a.ledger, err = ledger.Open(ctx, ledger.Config{
		URL: config.DatabaseURL, Installation: config.TopicPrefix, Migrate: config.Migrate, ClaimLapse: config.ClaimLapse,
		Registry: a.registry,
	})
	if err != nil {
		return nil, errors.Join(err, a.listener.Close())
	}
	a.assemble()
	return a, nil
}

// connect prepares the clients; none of them dials yet.
func (a *App) connect() (err error) {
	if a.kafka, err = a.config.Kafka.Connect("issuer-api"); err != nil {
		return err
	}
	client := sunbird.NewHTTPClient(callsAtOnce)
	metrics := sunbird.NewMetrics(a.registry)
	courses, err := content.New(content.Config{
		URL: a.config.ContentServiceURL, HTTP: client, Gate: gate(metrics, sunbird.Content, "content-service"),
	})
	if err != nil {
		return err
	}
	a.courses = content.NewCached(courses, content.CacheFor)
	if a.config.LearnerServiceURL != "" {
		a.validator, err = learner.New(learner.Config{
			URL: a.config.LearnerServiceURL, HTTP: client, Gate: gate(metrics, sunbird.Learner, "learner-service"),
		})
		if err != nil {
			return err
		}
	}
	a.enrolments, err = elasticsearch.New(elasticsearch.Config{
		URL: a.config.ElasticsearchURL, HTTP: client, Gate: gate(metrics, sunbird.Enrolment, "elasticsearch"),
	})
	return err
}

// gate makes the gate before a service. It tries in spite of an open breaker: a
// person's call must not be refused when the service has just come back.
func gate(metrics *sunbird.Metrics, downstream sunbird.Downstream, service string) *sunbird.Gate {
	return sunbird.NewGate(sunbird.GateConfig{
		Downstream: downstream, Service: service, Concurrency: callsAtOnce, Insistent: true, Metrics: metrics,
	})
}

func (a *App) assemble() {
	a.publisher = stream.NewPublisher(a.kafka, a.config.RequestTopic())
	a.dispatcher = issue.NewDispatcher(mortalDispatcher(issue.DispatcherConfig{
		Store: a.ledger, Publisher: eventPublisher{a.publisher},
		Log:    requestLog{a.kafka, a.config.RequestTopic(), a.config.ConsumerGroup()},
		PerJob: a.config.PublishAhead, Metrics: issue.NewDispatchMetrics(a.registry), Logger: a.log,
	}))
	a.fanOut = issue.NewFanOut(mortalFanOut(a.ledger), a.enrolments, a.dispatcher.Wake, a.log)
	a.lease = &issue.Lease{
		Store: a.ledger, Task: "fan out and dispatch", Holder: uuid.NewString(), For: a.config.ClaimLapse / 3, Log: a.log,
	}
	a.readiness = &program.Readiness{Probe: func(ctx context.Context) error {
		return errors.Join(a.ledger.Ping(ctx), a.enrolments.Ping(ctx))
	}}
}

// Addr is the address that the program listens on.
func (a *App) Addr() string { return a.listener.Addr().String() }

// Run serves until ctx ends, then stops in reverse order. It returns nil when
// it was told to stop.
func (a *App) Run(ctx context.Context) error {
	a.log.Info("listening", zap.String("address", a.Addr()), zap.String("version", program.Version()))
	defer context.AfterFunc(ctx, a.readiness.Stop)()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return program.Serve(ctx, httpapi.NewServer(a.handler()), a.listener) })
	topics := make(chan struct{})
	group.Go(func() error {
		err := program.AwaitTopics(ctx, a.kafka, a.config.Kafka, a.log)
		close(topics)
		return err
	})
	group.Go(func() error {
		return a.lease.Run(ctx, func(ctx context.Context) error { return a.issue(ctx, topics) })
	})
	err := errors.Join(group.Wait(), a.close())
	a.log.Info("stopped")
	return err
}

// issue fans jobs out and, once the topics are there, dispatches what is due, in
// one replica at a time.
func (a *App) issue(ctx context.Context, topics <-chan struct{}) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.fanOut.Run(ctx) })
	group.Go(func() error {
		select {
		case <-topics:
			return a.dispatcher.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

// Close releases what New took, for a program that is not run.
func (a *App) Close() error { return errors.Join(a.listener.Close(), a.close()) }

func (a *App) close() error {
	defer a.kafka.Close()
	return errors.Join(a.publisher.Close(), a.ledger.Close())
}

func (a *App) handler() http.Handler {
	return httpapi.New(httpapi.Config{
		Accepter: &issue.Accepter{
			Batches: a.enrolments, Courses: a.courses, Counter: a.enrolments, Jobs: mortalJobs(a.ledger),
			Accepted: a.fanOut.Wake, Now: time.Now,
		},
		Reconciler: &issue.Reconciler{
			Batches: a.enrolments, Courses: a.courses, Enrolments: a.enrolments, Store: a.ledger, Validator: a.validator,
			Queued: a.dispatcher.Wake,
		},
		Jobs: a.ledger,
		Checks: []httpapi.Check{
			{Name: "ledger", Probe: a.ledger.Ping},
			{Name: "elasticsearch", Probe: a.enrolments.Ping},
			{Name: "kafka", Probe: a.kafka.Ping},
		},
		Ready: a.readiness.Ready, MaxBody: a.config.MaxBodyBytes, Log: a.log,
		Metrics: a.registry, Gatherer: a.registry, Version: program.Version(),
	})
}

// requestLog tells which records of the request topic may still come.
type requestLog struct {
	kafka        *stream.Connection
	topic, group string
}

var _ issue.RequestLog = requestLog{}

// Reaches implements [issue.RequestLog].
func (l requestLog) Reaches(ctx context.Context) ([]issue.Reach, error) {
	reaches, err := l.kafka.Reaches(ctx, l.topic, l.group)
	core := make([]issue.Reach, len(reaches))
	for i, r := range reaches {
		core[i] = issue.Reach(r)
	}
	return core, err
}

// eventPublisher writes the core's events as records.
type eventPublisher struct{ publisher *stream.Publisher }

var _ issue.Publisher = eventPublisher{}

// Publish implements [issue.Publisher].
func (p eventPublisher) Publish(ctx context.Context, batch []issue.Event) []issue.Receipt {
	now := time.Now()
	messages := make([]kafka.Message, len(batch))
	for i, event := range batch {
		messages[i] = events.Encode(event, now)
	}
	receipts := make([]issue.Receipt, len(batch))
	for i, r := range p.publisher.Publish(ctx, messages...) {
		receipts[i] = receipt(r)
	}
	return receipts
}

func receipt(r stream.Receipt) issue.Receipt {
	switch {
	case r.Err == nil:
		return issue.Receipt{Outcome: issue.PublishOK, Place: issue.Place{Partition: r.Partition, Offset: r.Offset}}
	case r.Unknown:
		return issue.Receipt{Outcome: issue.PublishUnknown, Err: r.Err}
	default:
		return issue.Receipt{Outcome: issue.PublishFailed, Err: r.Err}
	}
}
