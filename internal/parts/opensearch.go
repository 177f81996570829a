package parts

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
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

// openSearchIndex is the platform's mapping of user-courses: not dynamic, text
// analysed as n-grams, each with a lower-cased whole value beside it.
//
//go:embed opensearch/index.json
var openSearchIndex []byte

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
	return e.send(ctx, http.MethodGet, "/_cluster/health?wait_for_status=yellow&timeout=1s", nil)
}

// CreateIndex makes an index that is mapped as the platform maps its own.
func (e *SearchEngine) CreateIndex(tb testing.TB, name string) {
	tb.Helper()
	if err := e.send(tb.Context(), http.MethodPut, "/"+name, openSearchIndex); err != nil {
		tb.Fatal(err)
	}
}

// Put stores documents by their ids; they are found at once.
func (e *SearchEngine) Put(tb testing.TB, index string, documents map[string]json.RawMessage) {
	tb.Helper()
	var bulk bytes.Buffer
	for id, document := range documents {
		fmt.Fprintf(&bulk, "{\"index\":{\"_id\":%q}}\n%s\n", id, document)
	}
	if err := e.send(tb.Context(), http.MethodPost, "/"+index+"/_bulk?refresh=true", bulk.Bytes()); err != nil {
		tb.Fatal(err)
	}
}

func (e *SearchEngine) send(ctx context.Context, method, path string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, method, e.URL()+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	// A bulk request succeeds even when it refuses documents.
	if response.StatusCode != http.StatusOK || bytes.Contains(answer, []byte(`"errors":true`)) {
		return fmt.Errorf("%s %s is answered with %s: %.1000s", method, path, response.Status, answer)
	}
	return err
}
