// Package sunbirdtest is what the tests of the HTTP edges share: golden files, a
// server that remembers its calls, and answers recorded from the real services.
package sunbirdtest

import (
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecreds/issuer/internal/sunbird"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// Golden compares what is sent with a file under testdata, byte for byte.
func Golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// HTTPClient gives a client whose connections end with the test.
func HTTPClient(t *testing.T) *http.Client {
	t.Helper()
	client := sunbird.NewHTTPClient(64)
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// Reply is an answer of a [Server].
type Reply struct {
	Status      int    `json:"status"` // 0 closes the connection without an answer
	ContentType string `json:"contentType"`
	Body        string `json:"body"`
}

// JSON is a reply with a JSON body.
func JSON(status int, body string) Reply {
	return Reply{Status: status, ContentType: "application/json", Body: body}
}

// Recorded reads an answer of a real service from testdata/recorded.
func Recorded(t *testing.T, name string) Reply {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "recorded", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var reply Reply
	if err := json.Unmarshal(raw, &reply); err != nil {
		t.Fatal(err)
	}
	return reply
}

// Request is a call that a [Server] got.
type Request struct {
	Method string
	URI    string
	Header http.Header
	Body   string
}

// Server answers every call with the same reply, or as Answer says.
type Server struct {
	URL    string
	Answer func(Request) Reply

	mu       sync.Mutex
	requests []Request
}

// Serve starts a server that ends with the test.
func Serve(t *testing.T, reply Reply) *Server {
	t.Helper()
	return ServeFunc(t, func(Request) Reply { return reply })
}

// ServeFunc starts a server that answers as a function says.
func ServeFunc(t *testing.T, answer func(Request) Reply) *Server {
	t.Helper()
	s := &Server{Answer: answer}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	request := Request{Method: r.Method, URI: r.RequestURI, Header: r.Header, Body: string(body)}
	s.mu.Lock()
	s.requests = append(s.requests, request)
	s.mu.Unlock()
	reply := s.Answer(request)
	if reply.Status == 0 {
		panic(http.ErrAbortHandler)
	}
	if reply.ContentType != "" {
		w.Header().Set("Content-Type", reply.ContentType)
	}
	w.WriteHeader(reply.Status)
	_, _ = io.WriteString(w, reply.Body)
}

// Requests are the calls so far, in the order of their arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}
