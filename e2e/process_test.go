package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ecreds/issuer/internal/parts"
)

// Both programs are built once for all tests as their users would: without the
// race detector, which makes the ledger many times slower.
var built = buildOnce("")

func buildOnce(tags string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		folder, err := os.MkdirTemp("", "ecreds-programs-")
		if err != nil {
			return "", err
		}
		builtIn.mu.Lock()
		builtIn.folders = append(builtIn.folders, folder)
		builtIn.mu.Unlock()
		output, err := exec.CommandContext(context.Background(), "go", "build", "-tags="+tags, "-o", folder,
			"../cmd/issuer-api", "../cmd/cert-consumer").CombinedOutput()
		if err != nil {
			return folder, fmt.Errorf("build the programs: %w: %s", err, output)
		}
		return folder, nil
	})
}

// builtIn are the folders to remove in the end.
var builtIn struct {
	mu      sync.Mutex
	folders []string
}

// builtProgram is the path of a program.
func builtProgram(tb testing.TB, name string) string {
	tb.Helper()
	folder, err := built()
	require.NoError(tb, err)
	return filepath.Join(folder, name)
}

func TestMain(m *testing.M) {
	code := parts.StopAfter(m).Run()
	for _, folder := range builtIn.folders {
		_ = os.RemoveAll(folder) // in the system's temporary folder
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// process is a program in a process of its own, which can be killed.
type process struct {
	client
	cmd   *exec.Cmd
	ended chan struct{} // it has ended, and what it logged was read
}

// startProcess starts a program with settings in its environment and waits
// until it is ready.
func (h *house) startProcess(binary string, settings ...string) *process {
	h.tb.Helper()
	p, err := h.launch(binary, settings...)
	require.NoError(h.tb, err)
	p.awaitReady()
	return p
}

// launch starts a program and waits until it listens.
func (h *house) launch(binary string, settings ...string) (*process, error) {
	h.tb.Helper()
	cmd := exec.CommandContext(h.tb.Context(), binary)
	cmd.Env = append(cmd.Environ(), settings...)
	stderr, err := cmd.StderrPipe()
	require.NoError(h.tb, err)
	require.NoError(h.tb, cmd.Start())
	lines := bufio.NewScanner(stderr)
	address := ""
	for address == "" && lines.Scan() {
		address = listening(lines.Text())
		_, _ = h.log.Write(append(lines.Bytes(), '\n'))
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		for lines.Scan() {
			_, _ = h.log.Write(append(lines.Bytes(), '\n'))
		}
		_ = cmd.Wait() // how it ended is in its state
	}()
	p.client = client{tb: h.tb, running: running{url: "http://" + address, stop: func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		<-p.ended
	}}}
	h.tb.Cleanup(p.stop)
	if address == "" {
		p.stop()
		return nil, fmt.Errorf("%s did not start: %s", filepath.Base(binary), h.log.tail(3))
	}
	return p, nil
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	p.tb.Helper()
	require.NoError(p.tb, p.cmd.Process.Kill())
	p.stop()
}

// listening reads the address from the program's first line of log.
func listening(line string) string {
	var entry struct {
		Msg     string `json:"msg"`
		Address string `json:"address"`
	}
	if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "listening" {
		return ""
	}
	return entry.Address
}

// settings are those of both programs in this house.
func (h *house) settings() []string {
	urls := h.platform.URLs()
	return []string{
		"KAFKA_BROKERS=" + strings.Join(h.brokers(), ","),
		"TOPIC_PREFIX=test", "TOPICS_CREATE=true",
		"DATABASE_URL=sqlite:" + filepath.Join(h.folder, "ledger.db"), "MIGRATE=true", "CLAIM_LAPSE=2s",
		"HTTP_ADDR=127.0.0.1:0", "ELASTICSEARCH_URL=" + h.search, "CONTENT_SERVICE_URL=" + urls.ContentService,
		"CERT_SERVICE_URL=" + urls.CertService, "LEARNER_SERVICE_URL=" + urls.LearnerService,
		"KAFKA_SESSION_TIMEOUT=6s", "RETRY_DELAYS=100ms,200ms", "CONCURRENCY=64",
	}
}
