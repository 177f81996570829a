package app

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/ecreds/issuer/internal/events"
	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/ledger"
	"github.com/ecreds/issuer/internal/program"
	"github.com/ecreds/issuer/internal/stream"
	"github.com/ecreds/issuer/internal/sunbird"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

// surroundings are the broker and the services of a benchmark. They run in a
// process of their own, so that what this one uses is cert-consumer's.
type surroundings struct {
	Brokers []string
	URL     string
}

const (
	surroundingsOf = "BENCH_SURROUNDINGS" // partitions and milliseconds of latency, for the other process
	benchTopics    = "bench"
)

func TestMain(m *testing.M) {
	if of := os.Getenv(surroundingsOf); of != "" {
		var (
			partitions   int32
			milliseconds int
		)
		if _, err := fmt.Sscan(of, &partitions, &milliseconds); err != nil {
			panic(err)
		}
		surround(partitions, time.Duration(milliseconds)*time.Millisecond)
		return
	}
	os.Exit(m.Run())
}

// surround serves until its standard input ends.
func surround(partitions int32, latency time.Duration) {
	topics := program.Kafka{TopicPrefix: benchTopics}
	broker, err := kfake.NewCluster(kfake.NumBrokers(1),
		kfake.SeedTopics(partitions, topics.RequestTopic(), topics.DeadLetterTopic()))
	if err != nil {
		panic(err)
	}
	defer broker.Close()
	server := httptest.NewServer(&sunbirdtest.Platform{Latency: latency})
	defer server.Close()
	if err := json.NewEncoder(os.Stdout).Encode(surroundings{Brokers: broker.ListenAddrs(), URL: server.URL}); err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the benchmark
}

func startSurroundings(b *testing.B, partitions int, latency time.Duration) surroundings {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("%s=%d %d", surroundingsOf, partitions, latency.Milliseconds()))
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = stdin.Close() // then it ends
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	require.NoError(b, err)
	var s surroundings
	require.NoError(b, json.Unmarshal(line, &s))
	return s
}

// issuing is what a benchmark issues: events of three calls each, with real
// HTTP, the limiters and the metrics of the program.
type issuing struct {
	partitions, concurrency, events int
	latency                         time.Duration
	onDisk                          bool // the ledger is a SQLite file; otherwise it is in memory
}

// BenchmarkIssuing compares what cert-consumer reaches with what its concurrency
// allows, concurrency / (3 × latency), and with a plain loop over a group's
// reader that makes the same calls. One round is enough; each takes 10 s or so.
func BenchmarkIssuing(b *testing.B) {
	const fast, slow = 50 * time.Millisecond, 100 * time.Millisecond
	for _, i := range []issuing{
		{partitions: 1, concurrency: 256, events: 15_000, latency: fast},
		{partitions: 12, concurrency: 256, events: 15_000, latency: fast},
		{partitions: 1, concurrency: 1000, events: 60_000, latency: slow},
		{partitions: 12, concurrency: 1000, events: 60_000, latency: slow},
		{partitions: 12, concurrency: 256, events: 15_000, latency: fast, onDisk: true},
	} {
		store := "memory"
		if i.onDisk {
			store = "SQLite"
		}
		b.Run(fmt.Sprintf("%d×3×%v/partitions=%d/%s", i.concurrency, i.latency, i.partitions, store), i.run)
	}
	b.Run("plain/3×50ms", issuing{partitions: 1, events: 40, latency: fast}.plain)
}

func (i issuing) config(s surroundings, folder string) Config {
	return Config{
		Kafka: program.Kafka{Brokers: s.Brokers, TopicPrefix: benchTopics},
		Ledger: program.Ledger{
			DatabaseURL: "sqlite:" + filepath.Join(folder, "ledger.db"), Migrate: true, ClaimLapse: 15 * time.Second,
		},
		Enrolments:          program.Enrolments{ElasticsearchURL: s.URL},
		Content:             program.Content{ContentServiceURL: s.URL},
		KafkaSessionTimeout: 15 * time.Second, CertServiceURL: s.URL, CertServiceTimeout: 80 * time.Second,
		LearnerServiceURL: s.URL, NotifierURL: s.URL, Concurrency: i.concurrency, StepAttempts: 3,
		RetryDelays: []time.Duration{time.Minute}, DrainTimeout: 10 * time.Second, CrashLimit: 3, NotifyInDoubt: "resend",
		TimeZone: "Asia/Kolkata",
	}
}

func (i issuing) run(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as main has it
	s := startSurroundings(b, i.partitions, i.latency)
	config := i.config(s, b.TempDir())
	a := &App{config: config, log: zap.NewNop(), registry: prometheus.NewRegistry()}
	var err error
	a.kafka, err = config.Connect("bench")
	require.NoError(b, err)
	defer a.kafka.Close()
	store := i.store(b, a)
	publish(b, a, store.dispatch(b, i.events))

	gates := a.gates()
	worker, err := a.worker(benchProcess, gates, store)
	require.NoError(b, err)
	defer a.recipients.Close()
	a.consumeBy(worker)
	defer a.deadLetters.Close()
	ctx, stop := context.WithCancel(b.Context())
	stopped := make(chan error)
	go func() { stopped <- a.consumer.Run(ctx) }()
	i.measure(b, worker)
	stop()
	require.NoError(b, <-stopped)
	issued := fmt.Sprintf("# HELP ecreds_events_total Events that came to rest, by outcome.\n"+
		"# TYPE ecreds_events_total counter\n"+`ecreds_events_total{outcome="adopted"} 0
ecreds_events_total{outcome="dead_lettered"} 0
ecreds_events_total{outcome="issued"} %v
ecreds_events_total{outcome="retried"} 0
ecreds_events_total{outcome="stale"} 0
ecreds_events_total{outcome="stopped"} 0
`, float64(i.events))
	require.NoError(b, testutil.GatherAndCompare(a.registry, strings.NewReader(issued), "ecreds_events_total"))
}

// measure reports what is reached between a fifth and nine tenths of the
// events, where all places are taken and the limiters have found that nothing is
// to be limited.
func (i issuing) measure(b *testing.B, worker *issue.Worker) {
	b.Helper()
	reach := func(n int) (time.Time, time.Duration) {
		for worker.Rested() < int64(n) {
			<-time.After(5 * time.Millisecond)
		}
		return time.Now(), cpuTime(b)
	}
	from, to := i.events/2, i.events*9/10
	begun, before := reach(from)
	ended, after := reach(to)
	reach(i.events)
	rate := float64(to-from) / ended.Sub(begun).Seconds()
	bound := float64(i.concurrency) / (3 * i.latency.Seconds())
	b.ReportMetric(rate, "events/s")
	b.ReportMetric(100*rate/bound, "%bound")
	b.ReportMetric(float64((after-before).Microseconds())/float64(to-from), "cpu-µs/event")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// publish writes the events as the dispatcher would.
func publish(b *testing.B, a *App, batch []issue.Event) {
	b.Helper()
	publisher := stream.NewPublisher(a.kafka, a.config.RequestTopic())
	defer publisher.Close()
	const chunk = 1000
	for ; len(batch) > 0; batch = batch[min(chunk, len(batch)):] {
		var messages []kafka.Message
		for _, event := range batch[:min(chunk, len(batch))] {
			messages = append(messages, events.Encode(event, time.Now()))
		}
		for _, receipt := range publisher.Publish(b.Context(), messages...) {
			require.NoError(b, receipt.Err)
		}
	}
}

// plain works events as a first attempt would: one after another.
func (i issuing) plain(b *testing.B) {
	s := startSurroundings(b, i.partitions, i.latency)
	a := &App{config: i.config(s, b.TempDir()), log: zap.NewNop()}
	var err error
	a.kafka, err = a.config.Connect("bench")
	require.NoError(b, err)
	defer a.kafka.Close()
	publish(b, a, (&inMemory{}).dispatch(b, i.events))
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: s.Brokers, Topic: a.config.RequestTopic(), GroupID: a.config.ConsumerGroup(), MaxWait: time.Second,
	})
	defer reader.Close()
	client := sunbird.NewHTTPClient(1)
	defer client.CloseIdleConnections()
	var begun time.Time
	var before time.Duration
	for n := range i.events {
		message, err := reader.FetchMessage(b.Context())
		require.NoError(b, err)
		if n == 0 {
			begun, before = time.Now(), cpuTime(b)
		}
		for _, path := range []string{"/v1/certs/generate", "/private/user/v1/certs/add", "/v1/notification/email"} {
			post(b, client, s.URL+path)
		}
		require.NoError(b, reader.CommitMessages(b.Context(), message))
	}
	rate := float64(i.events) / time.Since(begun).Seconds()
	b.ReportMetric(rate, "events/s")
	b.ReportMetric(100*rate*3*i.latency.Seconds(), "%bound")
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(i.events), "cpu-µs/event")
}

func post(b *testing.B, client *http.Client, url string) {
	b.Helper()
	request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, strings.NewReader(`{"request":{}}`))
	require.NoError(b, err)
	response, err := client.Do(request)
	require.NoError(b, err)
	_, err = io.Copy(io.Discard, response.Body)
	require.NoError(b, err)
	require.NoError(b, response.Body.Close())
}

// benchStore is a ledger that has so many events dispatched.
type benchStore interface {
	issue.WorkStore
	dispatch(b *testing.B, n int) []issue.Event
}

const (
	benchProcess = "bench"
	benchBatch   = issue.BatchID("0131000000000000001")
	benchCourse  = issue.CourseID("do_2131000000000000001")
	benchName    = "Figures"
)

func (i issuing) store(b *testing.B, a *App) benchStore {
	b.Helper()
	if !i.onDisk {
		return &inMemory{held: map[issue.IssuanceID]*issue.Issuance{}}
	}
	l, err := ledger.Open(b.Context(), ledger.Config{
		URL: a.config.DatabaseURL, Migrate: true, ClaimLapse: a.config.ClaimLapse, Registry: a.registry,
	})
	require.NoError(b, err)
	b.Cleanup(func() { _ = l.Close() })
	require.NoError(b, l.Alive(b.Context(), issue.Process{ID: benchProcess, Capacity: i.concurrency}))
	return onDisk{l}
}

func benchLearner(n int) issue.LearnerID {
	return issue.LearnerID(fmt.Sprintf("%08x-0000-4000-8000", n))
}

// onDisk is the ledger itself.
type onDisk struct{ *ledger.Ledger }

func (l onDisk) dispatch(b *testing.B, n int) []issue.Event {
	b.Helper()
	job := issue.Job{
		ID: "job", Batch: benchBatch, Course: benchCourse, Certificates: []string{benchName}, State: issue.JobRunning,
		CreatedAt: time.Now(),
	}
	_, err := l.CreateJob(b.Context(), job, "", "")
	require.NoError(b, err)
	page := issue.FannedOut{Cause: "job", Last: true}
	for i := range n {
		page.Wanted = append(page.Wanted, issue.Wanted{
			ID: issue.NewIssuanceID(benchBatch, benchLearner(i), benchName), Learner: benchLearner(i), Certificate: benchName,
			CompletedOn: time.Now(),
		})
	}
	require.NoError(b, l.AddPage(b.Context(), job, page))
	dispatched, err := l.TakeDue(b.Context(), issue.Ahead{}, n)
	require.NoError(b, err)
	require.Len(b, dispatched, n)
	for i := range dispatched {
		dispatched[i].MID = issue.NewMID(time.Now())
	}
	return dispatched
}

// inMemory is a ledger that keeps nothing but what a run must get back.
type inMemory struct {
	issue.WorkStore // what else is asked of it, it does not have

	mu   sync.Mutex
	held map[issue.IssuanceID]*issue.Issuance
}

func (*inMemory) dispatch(_ *testing.B, n int) []issue.Event {
	dispatched := make([]issue.Event, n)
	for i := range dispatched {
		dispatched[i] = issue.Event{
			MID: issue.NewMID(time.Now()), Issuance: issue.NewIssuanceID(benchBatch, benchLearner(i), benchName),
			Learner: benchLearner(i), Batch: benchBatch, Course: benchCourse, Certificate: benchName, Job: "job",
			CompletedOn: time.Now(), Number: 1, Revision: 1,
		}
	}
	return dispatched
}

// Claim implements [issue.WorkStore].
func (m *inMemory) Claim(_ context.Context, c issue.Claim) (issue.Issuance, issue.ClaimResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[c.Issuance] != nil {
		return issue.Issuance{}, issue.ClaimVoid, nil
	}
	is := &issue.Issuance{
		ID: c.Issuance, Batch: benchBatch, Learner: "learner", Course: benchCourse, Certificate: benchName, Job: "job",
		Revision: 1, Number: 1, State: issue.Queued, CompletedOn: time.Now(), Email: issue.ChannelPending, SMS: issue.ChannelPending,
	}
	m.held[c.Issuance] = is
	return *is, issue.Claimed, nil
}

// Checkpoint implements [issue.WorkStore].
func (m *inMemory) Checkpoint(_ context.Context, c issue.Checkpoint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[c.Claim.Issuance].State = c.State
	return nil
}
