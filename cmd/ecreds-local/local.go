package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sync/errgroup"

	consumer "github.com/ecreds/issuer/cmd/cert-consumer/app"
	api "github.com/ecreds/issuer/cmd/issuer-api/app"
	"github.com/ecreds/issuer/internal/program"
	"github.com/ecreds/issuer/internal/simulator"
)

// local is everything on one machine.
type local struct {
	config   config
	folder   *dataFolder
	logFile  *os.File
	broker   *kfake.Cluster
	platform *simulator.Platform
	api      *api.App
	consumer *consumer.App
	http     *http.Client
}

// start brings all parts up. What was started is stopped again when a later
// part fails.
func start(ctx context.Context, c config) (l *local, err error) {
	l = &local{config: c, http: &http.Client{Timeout: 30 * time.Second}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.folder, err = openDataFolder(c.DataDir); err != nil {
		return l, err
	}
	if l.logFile, err = os.OpenFile(l.folder.file("ecreds.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return l, program.Refuse("DATA_DIR", "cannot write the log: %v", err)
	}
	if err := l.startPlatform(); err != nil {
		return l, err
	}
	if l.broker, err = startBroker(c.KafkaPort, l.folder); err != nil {
		return l, err
	}
	if l.api, err = api.New(ctx, l.apiConfig(), l.logFile); err != nil {
		return l, fmt.Errorf("issuer-api: %w", err)
	}
	if l.consumer, err = consumer.New(ctx, l.consumerConfig(), l.logFile); err != nil {
		return l, errors.Join(fmt.Errorf("cert-consumer: %w", err), l.api.Close())
	}
	return l, nil
}

func (l *local) startPlatform() (err error) {
	log, err := program.Logger(program.Log{Level: "warn", Format: "json"}, l.logFile)
	if err != nil {
		return err
	}
	l.platform, err = simulator.Start(simulator.Config{
		Era: simulator.Era(l.config.Era), Ports: l.config.platformPorts(), DataDir: l.folder.file("platform"), Log: log,
	})
	if err != nil {
		return program.Refuse("PLATFORM_PORTS", "%v; choose another first of five ports", err)
	}
	if err := l.platform.Load(simulator.DemoDataset(l.platform.URLs().Files)); err != nil {
		return fmt.Errorf("simulated platform: load the seed data: %w", err)
	}
	if l.config.Latency > 0 {
		for _, operation := range []string{"generate", "certs_add", "email", "sms"} {
			l.platform.SetFault(simulator.Fault{Operation: operation, Latency: l.config.Latency})
		}
	}
	return nil
}

func (l *local) kafkaSettings() program.Kafka {
	return program.Kafka{Brokers: l.broker.ListenAddrs(), TopicPrefix: "local", TopicsCreate: true, TopicPartitions: 6}
}

func (l *local) ledgerSettings() program.Ledger {
	return program.Ledger{DatabaseURL: "sqlite:" + l.folder.file("ledger.db"), Migrate: true, ClaimLapse: 5 * time.Second}
}

func (l *local) enrolmentSettings() program.Enrolments {
	return program.Enrolments{EnrolmentSource: "elasticsearch", ElasticsearchURL: l.platform.URLs().Elasticsearch}
}

func (l *local) apiConfig() api.Config {
	return api.Config{
		Kafka: l.kafkaSettings(), Ledger: l.ledgerSettings(), Enrolments: l.enrolmentSettings(),
		Content:           program.Content{ContentServiceURL: l.platform.URLs().ContentService},
		LearnerServiceURL: l.platform.URLs().LearnerService,
		Log:               program.Log{Level: "info", Format: "json"},
		HTTPAddr:          loopback(l.config.APIPort), HTTPAddrSetting: "API_PORT", PublishAhead: 10_000, MaxBodyBytes: 1 << 20,
	}
}

func (l *local) consumerConfig() consumer.Config {
	urls := l.platform.URLs()
	return consumer.Config{
		Kafka: l.kafkaSettings(), Ledger: l.ledgerSettings(), Enrolments: l.enrolmentSettings(),
		Content:             program.Content{ContentServiceURL: urls.ContentService},
		Log:                 program.Log{Level: "info", Format: "json"},
		KafkaSessionTimeout: 6 * time.Second,
		CertServiceURL:      urls.CertService, CertServiceTimeout: 80 * time.Second, LearnerServiceURL: urls.LearnerService,
		HTTPAddr: loopback(l.config.ConsumerPort), HTTPAddrSetting: "CONSUMER_PORT", Concurrency: l.config.Concurrency, StepAttempts: 3,
		// Somebody is watching: failures should be final within seconds.
		RetryDelays:  []time.Duration{time.Second, 3 * time.Second},
		DrainTimeout: 15 * time.Second, CrashLimit: 3, NotifyInDoubt: "resend", TimeZone: "Asia/Kolkata",
	}
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// run lets both programs work until ctx ends or one fails, while show talks to
// the person at the terminal.
func (l *local) run(ctx context.Context, show func(ctx context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.api.Run(ctx) })
	group.Go(func() error { return l.consumer.Run(ctx) })
	group.Go(func() error {
		defer stop()
		return show(ctx)
	})
	return group.Wait()
}

// close stops what run does not: broker, platform, files.
func (l *local) close() error {
	var errs []error
	if l.platform != nil {
		errs = append(errs, l.platform.Close())
	}
	if l.broker != nil {
		l.broker.Close()
	}
	if l.logFile != nil {
		errs = append(errs, l.logFile.Close())
	}
	if l.folder != nil {
		errs = append(errs, l.folder.close())
	}
	return errors.Join(errs...)
}

// addresses lists where everything listens.
func (l *local) addresses(out io.Writer) {
	urls := l.platform.URLs()
	for _, line := range [][2]string{
		{"issuer-api", "http://" + l.api.Addr()},
		{"cert-consumer", "http://" + l.consumer.Addr() + "/metrics"},
		{"Kafka broker", l.broker.ListenAddrs()[0]},
		{"cert-service", urls.CertService},
		{"learner service", urls.LearnerService},
		{"content service", urls.ContentService},
		{"Elasticsearch", urls.Elasticsearch},
		{"files, faults, calls", urls.Files},
		{"data and log", l.folder.path},
	} {
		fmt.Fprintf(out, "  %-22s%s\n", line[0], line[1])
	}
	fmt.Fprintln(out)
}
