package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	consumer "github.com/ecreds/issuer/cmd/cert-consumer/app"
	api "github.com/ecreds/issuer/cmd/issuer-api/app"
	"github.com/ecreds/issuer/internal/program"
	"github.com/ecreds/issuer/internal/simulator"
)

// patience is how long a test waits for a condition on a busy machine.
const patience = 60 * time.Second

// house is one installation: a folder, a broker, a platform. Programs are
// started in it and stopped, any number of times.
type house struct {
	tb       testing.TB
	folder   string
	broker   *kfake.Cluster  // nil = a real one
	brokers  func() []string // where it is
	search   string          // address of the search engine
	platform *simulator.Platform
	log      *lockedBuffer
}

func newHouse(tb testing.TB, data func(filesURL string) simulator.Dataset) *house {
	tb.Helper()
	h := newHouseWithoutBroker(tb, data)
	h.startBroker()
	tb.Cleanup(func() { h.broker.Close() })
	return h
}

func newHouseWithoutBroker(
	tb testing.TB, data func(filesURL string) simulator.Dataset, change ...func(*simulator.Config),
) *house {
	tb.Helper()
	h := &house{tb: tb, folder: tb.TempDir(), log: &lockedBuffer{}}
	config := simulator.Config{}
	for _, c := range change {
		c(&config)
	}
	platform, err := simulator.Start(config)
	require.NoError(tb, err)
	h.platform = platform
	tb.Cleanup(func() { require.NoError(tb, platform.Close()) })
	require.NoError(tb, platform.Load(data(platform.URLs().Files)))
	h.search = platform.URLs().Elasticsearch
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("log:\n%s", h.log.tail(100))
		}
	})
	return h
}

func (h *house) startBroker(options ...kfake.Opt) {
	h.tb.Helper()
	options = append(options, kfake.NumBrokers(1), kfake.DataDir(filepath.Join(h.folder, "kafka")))
	broker, err := kfake.NewCluster(options...)
	require.NoError(h.tb, err)
	h.broker, h.brokers = broker, broker.ListenAddrs
}

// port is the broker's port, for another broker that takes its place.
func (h *house) port() int {
	h.tb.Helper()
	_, port, err := net.SplitHostPort(h.broker.ListenAddrs()[0])
	require.NoError(h.tb, err)
	n, err := strconv.Atoi(port)
	require.NoError(h.tb, err)
	return n
}

func (h *house) kafka() program.Kafka {
	return program.Kafka{Brokers: h.brokers(), TopicPrefix: "test", TopicsCreate: true, TopicPartitions: 6}
}

func (h *house) ledger() program.Ledger {
	return program.Ledger{
		DatabaseURL: "sqlite:" + filepath.Join(h.folder, "ledger.db"), Migrate: true, ClaimLapse: 2 * time.Second,
	}
}

func (h *house) apiConfig() api.Config {
	return api.Config{
		Kafka: h.kafka(), Ledger: h.ledger(), Log: program.Log{Level: "debug", Format: "json"},
		Enrolments:        program.Enrolments{ElasticsearchURL: h.search},
		Content:           program.Content{ContentServiceURL: h.platform.URLs().ContentService},
		LearnerServiceURL: h.platform.URLs().LearnerService,
		HTTPAddr:          "127.0.0.1:0", PublishAhead: 10_000, MaxBodyBytes: 1 << 20,
	}
}

func (h *house) consumerConfig() consumer.Config {
	urls := h.platform.URLs()
	return consumer.Config{
		Kafka: h.kafka(), Ledger: h.ledger(), Log: program.Log{Level: "debug", Format: "json"},
		Enrolments:          program.Enrolments{ElasticsearchURL: h.search},
		Content:             program.Content{ContentServiceURL: urls.ContentService},
		KafkaSessionTimeout: 6 * time.Second,
		CertServiceURL:      urls.CertService, CertServiceTimeout: 20 * time.Second, LearnerServiceURL: urls.LearnerService,
		HTTPAddr: "127.0.0.1:0", Concurrency: 64, StepAttempts: 3,
		RetryDelays:  []time.Duration{100 * time.Millisecond, 200 * time.Millisecond},
		DrainTimeout: 20 * time.Second, CrashLimit: 3, NotifyInDoubt: "resend", TimeZone: "Asia/Kolkata",
	}
}

// running is a started program.
type running struct {
	url  string
	stop func() // tells it to stop and waits
}

func (h *house) startAPI() *client {
	h.tb.Helper()
	app, err := api.New(h.tb.Context(), h.apiConfig(), h.log)
	require.NoError(h.tb, err)
	c := &client{tb: h.tb, running: h.start(app.Addr(), app.Run)}
	c.awaitReady()
	return c
}

func (h *house) startConsumer(change ...func(*consumer.Config)) *client {
	h.tb.Helper()
	config := h.consumerConfig()
	for _, c := range change {
		c(&config)
	}
	app, err := consumer.New(h.tb.Context(), config, h.log)
	require.NoError(h.tb, err)
	c := &client{tb: h.tb, running: h.start(app.Addr(), app.Run)}
	c.awaitReady()
	return c
}

func (h *house) start(address string, run func(context.Context) error) running {
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.tb.Context()))
	stopped := make(chan error, 1)
	go func() { stopped <- run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-stopped:
				require.NoError(h.tb, err)
			case <-time.After(patience):
				require.Fail(h.tb, "the program did not stop")
			}
		})
	}
	h.tb.Cleanup(stop)
	return running{url: "http://" + address, stop: stop}
}

// client speaks to a running program.
type client struct {
	tb testing.TB
	running
}

func (c *client) awaitReady() {
	c.tb.Helper()
	require.Eventually(c.tb, func() bool {
		status, _ := c.do(http.MethodGet, "/ready", "")
		return status == http.StatusOK
	}, patience, 20*time.Millisecond, "the program did not become ready")
}

func (c *client) do(method, path, body string) (int, []byte) {
	c.tb.Helper()
	status, answer, err := c.try(method, path, body, nil)
	require.NoError(c.tb, err)
	return status, answer
}

// try is do for a program that may die meanwhile.
func (c *client) try(method, path, body string, header http.Header) (int, []byte, error) {
	c.tb.Helper()
	request, err := http.NewRequestWithContext(c.tb.Context(), method, c.url+path, strings.NewReader(body))
	require.NoError(c.tb, err)
	maps.Copy(request.Header, header)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request) //nolint:forbidigo // a test client needs nothing special
	if err != nil {
		return 0, nil, err
	}
	defer func() { require.NoError(c.tb, response.Body.Close()) }()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// issuePath is the call as the platform's handbook gives it.
const issuePath = "/api/course/batch/cert/v1/issue"

func handbookBody(batch, course string) string {
	return fmt.Sprintf(`{"request":{"batchId":%q,"courseId":%q,"certificate":%q,"filters":{"status":"2"}}}`,
		batch, course, simulator.DemoCertificate)
}

// accepted is the answer to an accepted request.
type accepted struct {
	Status   string         `json:"status"`
	JobID    string         `json:"jobId"`
	Eligible int            `json:"eligible"`
	Estimate bool           `json:"estimate"`
	Skipped  map[string]int `json:"skipped"`
}

func (c *client) issue(body string) accepted {
	c.tb.Helper()
	status, answer := c.do(http.MethodPost, issuePath, body)
	require.Equal(c.tb, http.StatusOK, status, "%s", answer)
	return result[issueResult](c.tb, answer).Result
}

// issueResult is the result of /issue.
type issueResult struct {
	Result accepted `json:"result"`
}

// result is the result in an answer's envelope.
func result[T any](tb testing.TB, answer []byte) T {
	tb.Helper()
	read, err := tryResult[T](answer)
	require.NoError(tb, err)
	return read
}

func tryResult[T any](answer []byte) (T, error) {
	var envelope struct {
		Result T `json:"result"`
	}
	err := json.Unmarshal(answer, &envelope)
	return envelope.Result, err
}

// job is a job as the API shows it.
type job struct {
	State     string         `json:"state"`
	Eligible  int            `json:"eligible"`
	Counts    map[string]int `json:"counts"`
	SkippedBy map[string]int `json:"skippedBy"`
	FailedBy  map[string]int `json:"failedBy"`
	Resolved  bool           `json:"resolved"`
	Done      bool           `json:"done"`
	Healthy   bool           `json:"healthy"`
	Reasons   []string       `json:"reasons"`
}

func (c *client) job(id string) job {
	c.tb.Helper()
	status, answer := c.do(http.MethodGet, "/v1/course/batch/cert/jobs/"+id, "")
	require.Equal(c.tb, http.StatusOK, status, "%s", answer)
	return result[jobResult](c.tb, answer).Job
}

// jobResult is the result of a job's route.
type jobResult struct {
	Job job `json:"job"`
}

func (c *client) awaitDone(id string) job {
	c.tb.Helper()
	var last job
	require.Eventually(c.tb, func() bool {
		last = c.job(id)
		return last.Done
	}, 2*patience, 50*time.Millisecond, "the job did not come to its end")
	return last
}

// learner is one learner of a job as the API shows it.
type learner struct {
	UserID        string `json:"userId"`
	State         string `json:"state"`
	Step          string `json:"step"`
	Attempts      int    `json:"attempts"`
	Reason        string `json:"reason"`
	Message       string `json:"message"`
	CertificateID string `json:"certificateId"`
	Revision      int    `json:"revision"`
}

// learners reads all pages.
func (c *client) learners(id string) []learner {
	c.tb.Helper()
	var all []learner
	for cursor := ""; ; {
		status, answer := c.do(http.MethodGet,
			fmt.Sprintf("/v1/course/batch/cert/jobs/%s/learners?limit=500&cursor=%s", id, cursor), "")
		require.Equal(c.tb, http.StatusOK, status, "%s", answer)
		page := result[struct {
			Learners []learner `json:"learners"`
			Next     string    `json:"next"`
		}](c.tb, answer)
		all = append(all, page.Learners...)
		if cursor = page.Next; cursor == "" {
			return all
		}
	}
}

// lockedBuffer collects the log of all programs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) tail(lines int) string {
	all := strings.Split(l.String(), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
