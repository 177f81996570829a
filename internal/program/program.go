package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/ecreds/issuer/internal/stream"
)

// Main runs a program until it ends by itself or is told to stop, and turns its
// error into an exit code and one line. A second signal ends it at once.
func Main(
	ctx context.Context, name string, run func(ctx context.Context, args []string, stdout, stderr io.Writer) error,
) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on a signal has its ordinary effect
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err == nil || errors.Is(err, ErrHelp) {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	return 1
}

// sampleAfter is how many lines of one message are logged within a second; of
// those beyond it, every sampleAfter-th. During an outage each event in flight
// says every two seconds that it waits.
const sampleAfter = 100

// Logger makes the program's logger.
func Logger(settings Log, out io.Writer) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(settings.Level)
	if err != nil {
		return nil, Refuse("LOG_LEVEL", "%v", err)
	}
	config := zap.NewProductionEncoderConfig()
	config.TimeKey, config.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
	encoder := zapcore.NewJSONEncoder(config)
	if settings.Format == "console" {
		encoder = zapcore.NewConsoleEncoder(config)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(out)), level)
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Second, sampleAfter, sampleAfter)), nil
}

// Registry makes a registry with what every program tells about itself.
func Registry(name string) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ecreds_build_info", Help: "Always 1; says what is running.",
		ConstLabels: prometheus.Labels{"program": name, "version": Version()},
	})
	build.Set(1)
	registry.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// Version is the module's version, or the commit it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return info.Main.Version
}

// Listen takes an address, so that a taken port is an error at start that names
// the setting which chose it.
func Listen(ctx context.Context, setting, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, Refuse(setting, "%s is taken by another program; choose another", address)
	}
	if err != nil {
		return nil, Refuse(setting, "%v", err)
	}
	return listener, nil
}

// serverStop bounds waiting for requests in hand when a program stops.
const serverStop = 10 * time.Second

// Serve serves until ctx ends, then finishes the requests in hand.
func Serve(ctx context.Context, server *http.Server, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), serverStop)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		return errors.Join(fmt.Errorf("finish the requests in hand: %w", err), server.Close())
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Readiness is what /ready asks: a program that stops is not ready, whatever
// its parts say.
type Readiness struct {
	stopping atomic.Bool
	Probe    func(ctx context.Context) error
}

// Stop turns readiness off.
func (r *Readiness) Stop() { r.stopping.Store(true) }

// Ready says why the program is not ready; nil = it is.
func (r *Readiness) Ready(ctx context.Context) error {
	if r.stopping.Load() {
		return errors.New("the program is stopping")
	}
	return r.Probe(ctx)
}

// OnLoopback says whether an address can be reached from this machine alone.
func OnLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// topicPause is how often topics are looked for while Kafka is away.
const topicPause = 2 * time.Second

// Topics is what AwaitTopics needs of a Kafka connection.
type Topics interface {
	Ping(ctx context.Context) error
	EnsureTopics(ctx context.Context, topics []string, partitions int, create bool) error
}

// AwaitTopics waits for Kafka and makes sure of the topics. A missing topic
// that may not be created is an error; anything else (Kafka away, credentials
// refused) passes or is put right, so it is logged and tried again.
func AwaitTopics(ctx context.Context, kafka Topics, settings Kafka, log *zap.Logger) error {
	topics := []string{settings.RequestTopic(), settings.DeadLetterTopic()}
	for ctx.Err() == nil {
		err := kafka.Ping(ctx)
		if err == nil {
			err = kafka.EnsureTopics(ctx, topics, settings.TopicPartitions, settings.TopicsCreate)
		}
		var missing *stream.MissingTopicError
		switch {
		case err == nil, errors.As(err, &missing):
			return err
		case ctx.Err() != nil: // it says no more than that we are to stop
		case errors.Is(err, stream.ErrRefused):
			log.Error("kafka refuses our credentials; trying again", zap.Error(err))
		default:
			log.Warn("kafka is away; trying again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(topicPause):
		}
	}
	return nil
}
