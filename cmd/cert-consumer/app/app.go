// Package app wires cert-consumer: settings in, a running program out. It is
// apart from main so that the one-machine program and tests start the same
// wiring.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/ecreds/issuer/internal/certsvc"
	"github.com/ecreds/issuer/internal/content"
	"github.com/ecreds/issuer/internal/enrolment/elasticsearch"
	"github.com/ecreds/issuer/internal/httpapi"
	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/learner"
	"github.com/ecreds/issuer/internal/ledger"
	"github.com/ecreds/issuer/internal/notify"
	"github.com/ecreds/issuer/internal/program"
	"github.com/ecreds/issuer/internal/stream"
	"github.com/ecreds/issuer/internal/sunbird"
)

const (
	// callTimeout bounds a call of the learner service and the notifier, which
	// give up by themselves after 30 s.
	callTimeout = 35 * time.Second
	// lookupsAtOnce are connections beside those of the steps.
	lookupsAtOnce = 16
	// minWindow lets a partition go on behind a slow event even when few events
	// are worked at once.
	minWindow = 1000
)

// App is an assembled cert-consumer.
type App struct {
	config      Config
	log         *zap.Logger
	registry    *prometheus.Registry
	listener    net.Listener
	kafka       *stream.Connection
	deadLetters *stream.Publisher
	ledger      *ledger.Ledger
	recipients  *learner.Recipients
	presence    *issue.Presence
	consumer    *stream.Consumer
	readiness   *program.Readiness
}

// New assembles the program: it opens the ledger and takes its address.
func New(ctx context.Context, config Config, logTo io.Writer) (*App, error) {
	config = config.withDefaults()
	log, err := program.Logger(config.Log, logTo)
	if err != nil {
		return nil, err
	}
	a := &App{config: config, log: log.Named("cert-consumer"), registry: program.Registry("cert-consumer")}
	if a.kafka, err = config.Kafka.Connect("cert-consumer"); err != nil {
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
	if err := a.assemble(); err != nil {
		return nil, errors.Join(err, a.ledger.Close(), a.listener.Close())
	}
	return a, nil
}

func (a *App) assemble() error {
	process := issue.Process{ID: uuid.NewString(), Name: processName(), Capacity: a.config.Concurrency}
	gates := a.gates()
	worker, err := a.worker(process.ID, gates, a.ledger)
	if err != nil {
		return err
	}
	a.presence = &issue.Presence{
		Store: a.ledger, Process: process, Every: a.config.ClaimLapse / 3, Allowed: gates.allowed,
		Rested: worker.Rested, Log: a.log,
	}
	a.consumeBy(worker)
	a.readiness = &program.Readiness{Probe: func(ctx context.Context) error {
		return errors.Join(a.ledger.Ping(ctx), a.kafka.Ping(ctx))
	}}
	return nil
}

// consumeBy prepares the consumer, whose events a worker works.
func (a *App) consumeBy(worker *issue.Worker) {
	a.deadLetters = stream.NewPublisher(a.kafka, a.config.DeadLetterTopic())
	a.consumer = stream.NewConsumer(a.kafka, stream.Config{
		Topic: a.config.RequestTopic(), Group: a.config.ConsumerGroup(), Concurrency: a.config.Concurrency,
		Window:         max(minWindow, 2*a.config.Concurrency),
		SessionTimeout: a.config.KafkaSessionTimeout, DrainTimeout: a.config.DrainTimeout,
		Handle:  handler{worker: worker, deadLetters: a.deadLetters}.handle,
		Metrics: stream.NewMetrics(a.registry), Log: a.log,
	})
}

// worker connects the core with the services that it calls.
func (a *App) worker(process string, gates gates, store issue.WorkStore) (*issue.Worker, error) {
	client := sunbird.NewHTTPClient(a.config.Concurrency + lookupsAtOnce)
	courses, err := content.New(content.Config{URL: a.config.ContentServiceURL, HTTP: client, Gate: gates.content})
	if err != nil {
		return nil, err
	}
	enrolments, err := elasticsearch.New(elasticsearch.Config{URL: a.config.ElasticsearchURL, HTTP: client, Gate: gates.enrolment})
	if err != nil {
		return nil, err
	}
	certificates, err := certsvc.New(certsvc.Config{
		URL: a.config.CertServiceURL, Timeout: a.config.CertServiceTimeout, HTTP: client, Gate: gates.cert,
		BasePath: a.config.CertBasePath,
	})
	if err != nil {
		return nil, err
	}
	learners, err := learner.New(learner.Config{
		URL: a.config.LearnerServiceURL, Timeout: callTimeout, HTTP: client, Gate: gates.learner,
	})
	if err != nil {
		return nil, err
	}
	notifier, err := notify.New(notify.Config{
		URL: a.config.NotifierURL, Timeout: callTimeout, HTTP: client, Gate: gates.notify, SMSText: a.config.SMSText,
	})
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(a.config.TimeZone)
	if err != nil {
		return nil, err
	}
	a.recipients = learner.NewRecipients(learners)
	return issue.NewWorker(mortalWorker(issue.WorkerConfig{
		Store: store, Courses: content.NewCached(courses, content.CacheFor), Recipients: a.recipients,
		Generator: certificates, Registrar: learners, Notifier: notifier, Enrolments: enrolments,
		Places:  gates,
		Process: process, StepAttempts: a.config.StepAttempts, RetryDelays: a.config.RetryDelays,
		CallTimeout: map[issue.Step]time.Duration{
			issue.StepGenerate: a.config.CertServiceTimeout, issue.StepRegister: callTimeout, issue.StepNotify: callTimeout,
		},
		CrashLimit: a.config.CrashLimit, ResendInDoubt: a.config.NotifyInDoubt == "resend", Zone: zone,
		Metrics: issue.NewWorkMetrics(a.registry), Log: a.log,
	})), nil
}

func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

// Addr is the address that the program listens on.
func (a *App) Addr() string { return a.listener.Addr().String() }

// Run works until ctx ends, then drains and stops in reverse order. Health and
// metrics answer until work has drained, and the process counts as alive until
// then. It returns nil when it was told to stop.
func (a *App) Run(ctx context.Context) error {
	a.log.Info("listening", zap.String("address", a.Addr()), zap.String("version", program.Version()))
	defer context.AfterFunc(ctx, a.readiness.Stop)()
	group, ctx := errgroup.WithContext(ctx)
	drained, finish := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return program.Serve(drained, httpapi.NewServer(a.admin()), a.listener) })
	group.Go(func() error { return a.presence.Run(drained) })
	group.Go(func() error {
		defer finish()
		return a.consume(ctx)
	})
	err := errors.Join(group.Wait(), a.close())
	a.log.Info("stopped")
	return err
}

func (a *App) close() error {
	defer a.kafka.Close()
	a.recipients.Close()
	return errors.Join(a.deadLetters.Close(), a.ledger.Close())
}

func (a *App) consume(ctx context.Context) error {
	if err := a.presence.Announce(ctx); err != nil {
		return fmt.Errorf("tell the ledger that this process lives: %w", err)
	}
	if err := program.AwaitTopics(ctx, a.kafka, a.config.Kafka, a.log); err != nil || ctx.Err() != nil {
		return err
	}
	return a.consumer.Run(ctx)
}

func (a *App) admin() http.Handler {
	return httpapi.NewAdmin(httpapi.Config{
		Checks: []httpapi.Check{{Name: "ledger", Probe: a.ledger.Ping}, {Name: "kafka", Probe: a.kafka.Ping}},
		Ready:  a.readiness.Ready, Log: a.log, Metrics: a.registry, Gatherer: a.registry, Version: program.Version(),
	})
}
