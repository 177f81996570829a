package parts

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

//go:embed opensearch/pom.xml
var openSearchPom []byte

//go:embed opensearch/Run.java
var openSearchRun []byte

// SearchEngine is an OpenSearch node, which speaks the API of Elasticsearch 7.
type SearchEngine struct {
	Server

	port int
}

// URL is the engine's address.
func (e *SearchEngine) URL() string { return "http://" + loopback(e.port) }

// OpenSearch starts an engine for one test.
func OpenSearch(tb testing.TB) *SearchEngine {
	tb.Helper()
	return own(tb, tb.TempDir(), startOpenSearch)
}

var sharedOpenSearch shared[*SearchEngine]

// SharedOpenSearch is the engine that all tests of this binary share, each with
// indexes of its own.
func SharedOpenSearch(tb testing.TB) *SearchEngine {
	tb.Helper()
	return sharedOpenSearch.get(tb, startOpenSearch)
}

func startOpenSearch(ctx context.Context, folder string) (*SearchEngine, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	transport, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	source := filepath.Join(folder, "Run.java")
	if err := os.WriteFile(source, openSearchRun, 0o600); err != nil {
		return nil, err
	}
	run, err := java(ctx, "opensearch", openSearchPom, source, filepath.Join(folder, "node"),
		strconv.Itoa(port), strconv.Itoa(transport))
	if err != nil {
		return nil, err
	}
	e := &SearchEngine{port: port}
	e.command = command{name: "OpenSearch", args: run, log: filepath.Join(folder, "log"), stop: syscall.SIGTERM}
	e.answers = e.healthy
	if err := e.start(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// healthy asks whether the engine holds all its data.
func (e *SearchEngine) healthy(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		e.URL()+"/_cluster/health?wait_for_status=yellow&timeout=1s", http.NoBody)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("its health is answered with %s", response.Status)
	}
	return nil
}
