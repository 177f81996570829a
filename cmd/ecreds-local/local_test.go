package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// anyPorts lets several of these run beside whatever else the machine does.
var anyPorts = []string{"--api-port=0", "--consumer-port=0", "--kafka-port=0", "--platform-ports=0", "--latency=0s"}

func runOnce(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), append(append([]string{}, anyPorts...), args...), &out, io.Discard)
	return out.String(), err
}

func TestOnceIssuesTheSeededBatch(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "data")
	out, err := runOnce(t, "--once", "--data-dir", folder)
	require.NoError(t, err, "%s", out)
	require.Regexp(t, `issued +474 of 474 eligible in`, out)
	require.Contains(t, out, "skipped        126 (status 90, inactive 24, no_completion_date 10, already_issued 2)")
	require.Contains(t, out, "dead-lettered  nobody")
	require.Regexp(t, `a certificate  http://127\.0\.0\.1:\d+/certs/.+\.pdf`, out)

	// Data survives a restart: nobody is issued twice.
	out, err = runOnce(t, "--once", "--data-dir", folder)
	require.NoError(t, err, "%s", out)
	require.Contains(t, out, "was issued before (476 learners)")
}

func TestOnceFailsWhenSomebodyEligibleIsNotIssued(t *testing.T) {
	const roughBatch, roughCourse = "0129251102447697920", "do_2129251102447697921333"
	out, err := runOnce(t, "--once", "--data-dir", t.TempDir(), "--batch", roughBatch, "--course", roughCourse)
	require.ErrorContains(t, err, "eligible learners were not issued")
	require.Contains(t, out, "unknown_user")
	require.Contains(t, out, "bad_request 3")
}

// TestStaysUpAndServesTheCertificate downloads the certificate that the summary
// names while the program stays up, then stops it.
func TestStaysUpAndServesTheCertificate(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	out := &screen{}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, append([]string{"--data-dir", t.TempDir()}, anyPorts...), out, io.Discard) }()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "issue the next batch") },
		time.Minute, 20*time.Millisecond)

	address := regexp.MustCompile(`a certificate  (\S+)`).FindStringSubmatch(out.String())[1]
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	require.NoError(t, err)
	client := &http.Client{Timeout: time.Minute}
	response, err := client.Do(request)
	require.NoError(t, err)
	pdf, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	client.CloseIdleConnections()
	require.Equal(t, "%PDF", string(pdf[:4]))

	stop()
	require.NoError(t, <-ended)
	require.Contains(t, out.String(), "stopping")
}

// screen is a terminal that a test can read meanwhile.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestRefusals(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)

	locked := t.TempDir()
	folder, err := openDataFolder(locked)
	require.NoError(t, err)
	defer func() { require.NoError(t, folder.close()) }()

	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"folder in use":       {[]string{"--data-dir", locked}, []string{"DATA_DIR", locked, "in use"}},
		"API port taken":      {[]string{"--api-port", port}, []string{"API_PORT", "127.0.0.1:" + port, "taken"}},
		"consumer port taken": {[]string{"--consumer-port", port}, []string{"CONSUMER_PORT", "127.0.0.1:" + port, "taken"}},
		"broker port taken":   {[]string{"--kafka-port", port}, []string{"KAFKA_PORT", port, "taken"}},
		"platform port taken": {[]string{"--platform-ports", strconv.Itoa(number)}, []string{"PLATFORM_PORTS", port}},
		"no concurrency":      {[]string{"--concurrency", "0"}, []string{"CONCURRENCY"}},
		"unknown era":         {[]string{"--era", "4"}, []string{"era"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := runOnce(t, append([]string{"--once", "--data-dir", t.TempDir()}, c.args...)...)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "\n", "one line")
			for _, words := range c.says {
				require.ErrorContains(t, err, words)
			}
		})
	}
}
