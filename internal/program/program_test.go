package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ecreds/issuer/internal/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type settings struct {
	Kafka  `group:"Kafka:"`
	Ledger `group:"Ledger:"`
	Log    `group:"Log:"`
}

func TestSettingsComeFromFlagsThenEnvironmentThenDefaults(t *testing.T) {
	t.Setenv("kafka_urls", "old:9092")
	t.Setenv("TOPIC_PREFIX", "sunbirddev")
	var s settings
	require.NoError(t, Parse("test", "", &s, []string{"--kafka-brokers=new:9092,other:9092"}, io.Discard, io.Discard))
	require.Equal(t, []string{"new:9092", "other:9092"}, s.Brokers)
	require.Equal(t, "sunbirddev.coursebatch.certificate.request", s.RequestTopic())
	require.Equal(t, "sunbirddev.coursebatch.certificate.failed", s.DeadLetterTopic())
	require.Equal(t, "sqlite:ecreds.db", s.DatabaseURL)

	s = settings{}
	require.NoError(t, Parse("test", "", &s, nil, io.Discard, io.Discard))
	require.Equal(t, []string{"old:9092"}, s.Brokers, "the platform's own name serves too")
}

func TestASecretMayStandInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	require.NoError(t, os.WriteFile(file, []byte("sqlite:/from/file.db\n"), 0o600))
	t.Setenv("DATABASE_URL_FILE", file)
	var s settings
	require.NoError(t, Parse("test", "", &s, []string{"--kafka-brokers=a:1"}, io.Discard, io.Discard))
	require.Equal(t, "sqlite:/from/file.db", s.DatabaseURL)

	t.Setenv("DATABASE_URL_FILE", file+"-missing")
	require.ErrorContains(t, Parse("test", "", &s, []string{"--kafka-brokers=a:1"}, io.Discard, io.Discard), "DATABASE_URL_FILE")
}

func TestSettingsWithoutSenseAreRefusedByName(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no brokers":         {nil, "kafka-brokers"},
		"broker sans port":   {[]string{"--kafka-brokers=kafka"}, "KAFKA_BROKERS"},
		"topic prefix":       {[]string{"--kafka-brokers=a:1", "--topic-prefix=a b"}, "TOPIC_PREFIX"},
		"no partitions":      {[]string{"--kafka-brokers=a:1", "--topic-partitions=0"}, "TOPIC_PARTITIONS"},
		"not a ledger":       {[]string{"--kafka-brokers=a:1", "--database-url=mysql://user:secret@host/db"}, "DATABASE_URL"},
		"claim lapse":        {[]string{"--kafka-brokers=a:1", "--claim-lapse=1ms"}, "CLAIM_LAPSE"},
		"log level":          {[]string{"--kafka-brokers=a:1", "--log-level=loud"}, "log-level"},
		"not a number":       {[]string{"--kafka-brokers=a:1", "--topic-partitions=many"}, "topic-partitions"},
		"unknown flag":       {[]string{"--kafka-brokers=a:1", "--nonsense"}, "nonsense"},
		"stray argument":     {[]string{"--kafka-brokers=a:1", "run"}, "run"},
		"claim lapse absent": {[]string{"--kafka-brokers=a:1", "--claim-lapse="}, "claim-lapse"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Parse("test", "", new(settings), c.args, io.Discard, io.Discard)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "\n", "one line")
		})
	}
}

func TestHelpIsShownAndNothingIsStarted(t *testing.T) {
	var out bytes.Buffer
	require.ErrorIs(t, Parse("test", "Does this.", new(settings), []string{"--help"}, &out, io.Discard), ErrHelp)
	for _, words := range []string{"Does this.", "KAFKA_BROKERS", "CLAIM_LAPSE", "15s"} {
		require.Contains(t, out.String(), words)
	}
}

func TestATakenAddressIsOneLine(t *testing.T) {
	listener, err := Listen(t.Context(), "API_PORT", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	_, err = Listen(t.Context(), "API_PORT", listener.Addr().String())
	require.ErrorContains(t, err, "API_PORT (--api-port)")
	require.ErrorContains(t, err, listener.Addr().String()+" is taken")
}

// TestServeFinishesRequestsInHand stops a server while a request is being
// answered.
func TestServeFinishesRequestsInHand(t *testing.T) {
	listener, err := Listen(t.Context(), "HTTP_ADDR", "127.0.0.1:0")
	require.NoError(t, err)
	arrived, release := make(chan struct{}), make(chan struct{})
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	})}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, server, listener) }()
	answered := make(chan int, 1)
	client := &http.Client{Timeout: time.Minute}
	go func() {
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+listener.Addr().String(), nil)
		response, err := client.Do(request)
		if err != nil {
			answered <- 0
			return
		}
		_ = response.Body.Close()
		answered <- response.StatusCode
	}()
	<-arrived
	stop()
	close(release)
	require.Equal(t, http.StatusOK, <-answered)
	require.NoError(t, <-served)
	client.CloseIdleConnections()
}

func TestReadiness(t *testing.T) {
	r := &Readiness{Probe: func(context.Context) error { return nil }}
	require.NoError(t, r.Ready(t.Context()))
	r.Stop()
	require.ErrorContains(t, r.Ready(t.Context()), "stopping")
}

func TestOnLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:9000": true, "localhost:9000": true, "[::1]:9000": true, ":9000": false, "0.0.0.0:9000": false,
		"10.0.0.1:9000": false, "nonsense": false,
	} {
		require.Equal(t, want, OnLoopback(address), address)
	}
}

// topics is a Kafka that is away for a while.
type topics struct {
	away    int
	cause   error // of being away
	missing error
	mended  bool // missing is told once
	ensured []string
	created bool
}

func (f *topics) Ping(context.Context) error {
	f.away--
	if f.away >= 0 && f.cause != nil {
		return f.cause
	}
	if f.away >= 0 {
		return errors.New("connection refused")
	}
	return nil
}

func (f *topics) EnsureTopics(_ context.Context, names []string, _ int, create bool) error {
	f.ensured, f.created = names, create
	err := f.missing
	if f.mended {
		f.missing = nil
	}
	return err
}

func TestAwaitTopics(t *testing.T) {
	k := Kafka{TopicPrefix: "p", TopicsCreate: true, TopicPartitions: 6}
	waits := &topics{away: 1}
	require.NoError(t, AwaitTopics(t.Context(), waits, k, zap.NewNop()))
	require.Equal(t, []string{"p.coursebatch.certificate.request", "p.coursebatch.certificate.failed"}, waits.ensured)
	require.True(t, waits.created)

	missing := &stream.MissingTopicError{Topics: []string{"p.x"}}
	require.ErrorIs(t, AwaitTopics(t.Context(), &topics{missing: missing}, k, zap.NewNop()), missing)

	ctx, stop := context.WithCancel(t.Context())
	stop()
	require.NoError(t, AwaitTopics(ctx, &topics{away: 1000}, k, zap.NewNop()), "told to stop while waiting")
}

// TestRefusedCredentialsAreAnOutage: they are logged as what they are, and
// tried again, whichever call meets them.
func TestRefusedCredentialsAreAnOutage(t *testing.T) {
	refused := fmt.Errorf("kafka at a:1: %w: check KAFKA_USERNAME and KAFKA_PASSWORD", stream.ErrRefused)
	for name, kafka := range map[string]*topics{
		"ping":   {away: 1, cause: refused},
		"topics": {missing: refused, mended: true},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zapcore.InfoLevel)
			require.NoError(t, AwaitTopics(t.Context(), kafka, Kafka{TopicPrefix: "p"}, zap.New(core)))
			require.Len(t, logs.All(), 1)
			require.Equal(t, "kafka refuses our credentials; trying again", logs.All()[0].Message)
			require.Equal(t, zapcore.ErrorLevel, logs.All()[0].Level)
			require.Equal(t, refused.Error(), logs.All()[0].ContextMap()["error"])
		})
	}
}

func TestTheLogIsSampledUnderLoad(t *testing.T) {
	var out bytes.Buffer
	log, err := Logger(Log{Level: "info", Format: "json"}, &out)
	require.NoError(t, err)
	for range 10 * sampleAfter {
		log.Warn("an event is on hold")
	}
	log.Info("another message")
	lines := bytes.Count(out.Bytes(), []byte("\n"))
	require.Greater(t, lines, sampleAfter)
	require.Less(t, lines, 3*sampleAfter)
	require.Contains(t, out.String(), "another message")
}
