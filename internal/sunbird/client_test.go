package sunbird_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T, url string, timeout time.Duration) *sunbird.Client {
	t.Helper()
	client, err := sunbird.NewClient(sunbird.Config{
		Service: "some-service", URL: url, Timeout: timeout, HTTP: sunbirdtest.HTTPClient(t),
	})
	require.NoError(t, err)
	return client
}

var get = sunbird.Call{Method: http.MethodGet, Path: "/x"}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want, problem string }{
		"plain":             {in: "http://cert-service:9000", want: "http://cert-service:9000"},
		"trailing slashes":  {in: " https://host/learning-service// ", want: "https://host/learning-service"},
		"with a password":   {in: "http://elastic:s3cret@host:9200/", want: "http://elastic:s3cret@host:9200"},
		"empty":             {in: "", problem: "not an absolute"},
		"relative":          {in: "cert-service:9000", problem: "not an absolute"},
		"no host":           {in: "http:///path", problem: "not an absolute"},
		"a port, no host":   {in: "http://:9000", problem: "not an absolute"},
		"another scheme":    {in: "ftp://host", problem: "not an absolute"},
		"a query":           {in: "http://host/?a=b", problem: "query"},
		"a fragment":        {in: "http://host/#a", problem: "fragment"},
		"secret not shown":  {in: "http://elastic:s3cret@host:port", problem: "not a URL"},
		"control character": {in: "http://ho\x7fst", problem: "not a URL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := sunbird.ParseURL(tt.in)
			if tt.problem != "" {
				require.ErrorContains(t, err, tt.problem)
				assert.NotContains(t, err.Error(), "s3cret")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestNewClientNamesTheService(t *testing.T) {
	t.Parallel()
	good := sunbird.Config{Service: "some-service", URL: "http://host", Timeout: time.Second, HTTP: http.DefaultClient} //nolint:forbidigo // never used
	for name, spoil := range map[string]func(*sunbird.Config){
		"URL":     func(c *sunbird.Config) { c.URL = "host" },
		"timeout": func(c *sunbird.Config) { c.Timeout = 0 },
		"client":  func(c *sunbird.Config) { c.HTTP = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := good
			spoil(&config)
			_, err := sunbird.NewClient(config)
			require.ErrorContains(t, err, "some-service")
		})
	}
}

// TestNoAnswer goes through the ways in which a call gets no answer.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	silent := func(t *testing.T) string {
		t.Helper()
		release := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		}))
		t.Cleanup(server.Close)
		t.Cleanup(func() { close(release) })
		return server.URL
	}
	for name, tt := range map[string]struct {
		url     func(t *testing.T) string
		timeout time.Duration
		reason  issue.Reason
		noReply bool
		says    string
	}{
		"refused": {url: func(t *testing.T) string {
			t.Helper()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			require.NoError(t, listener.Close())
			return "http://" + listener.Addr().String()
		}, timeout: time.Minute, reason: issue.ReasonUnavailable, says: "refused"},
		"closed without a word": {url: func(t *testing.T) string {
			t.Helper()
			return sunbirdtest.Serve(t, sunbirdtest.Reply{}).URL
		}, timeout: time.Minute, reason: issue.ReasonUnavailable, noReply: true, says: "EOF"},
		"not HTTP": {url: func(t *testing.T) string {
			t.Helper()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH\r\n")
					_ = conn.Close()
				}
			}()
			t.Cleanup(func() { _ = listener.Close(); <-done })
			return "http://" + listener.Addr().String()
		}, timeout: time.Minute, reason: issue.ReasonUnavailable, noReply: true},
		"silent": {
			url: silent, timeout: 30 * time.Millisecond, reason: issue.ReasonTimeout, noReply: true,
			says: "some-service did not answer within 30ms",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newClient(t, tt.url(t), tt.timeout).Do(t.Context(), get)
			failure := issue.AsFailure(err)
			assert.Equal(t, issue.Outage, failure.Verdict)
			assert.Equal(t, tt.reason, failure.Reason)
			assert.Zero(t, failure.HTTPStatus)
			assert.Contains(t, failure.Message, tt.says)
			assert.Equal(t, tt.noReply, errors.Is(err, sunbird.ErrNoReply), "no reply: %v", err)
		})
	}
}

func TestTheCallersEndIsNoOutage(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 2)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	client := newClient(t, server.URL, time.Minute)
	var failure *issue.Failure

	why := errors.New("the process drains")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-arrived
		cancel(why)
	}()
	_, err := client.Do(ctx, get)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, why)
	assert.NotErrorAs(t, err, &failure)

	ctx, stop := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer stop()
	_, err = client.Do(ctx, get)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.NotErrorAs(t, err, &failure)
}

func TestRequestsCarryTheTrace(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, `{}`))
	client := newClient(t, server.URL+"/base/", time.Minute)
	parent := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	ctx := sunbird.WithTrace(t.Context(), sunbird.Trace{Parent: parent, RequestID: "req-1"})
	_, err := client.Do(ctx, sunbird.Call{Method: http.MethodPost, Path: "/a?b=c", Body: []byte(`{"x":1}`), Repeatable: true})
	require.NoError(t, err)
	bad := sunbird.WithTrace(t.Context(), sunbird.Trace{Parent: "a\r\nX-Evil: 1", RequestID: strings.Repeat("x", 300)})
	_, err = client.Do(bad, get)
	require.NoError(t, err, "an id that no header can carry must not stop a call")

	requests := server.Requests()
	require.Len(t, requests, 2)
	assert.Equal(t, "/base/a?b=c", requests[0].URI)
	assert.Equal(t, `{"x":1}`, requests[0].Body)
	assert.Equal(t, "application/json", requests[0].Header.Get("Content-Type"))
	assert.Equal(t, parent, requests[0].Header.Get("Traceparent"))
	assert.Equal(t, "req-1", requests[0].Header.Get("X-Request-ID"))
	assert.Equal(t, "req-1", requests[0].Header.Get("X-Msgid"))
	assert.NotContains(t, requests[0].Header, "Idempotency-Key")
	for _, name := range []string{"Traceparent", "X-Request-Id", "X-Msgid", "X-Evil", "Content-Type"} {
		assert.NotContains(t, requests[1].Header, name)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	page := "<!DOCTYPE html><html><head><title>Not &amp; Found</title></head><body>" + strings.Repeat("x", 200<<10) + "</body></html>"
	for name, tt := range map[string]struct {
		answer  func(w http.ResponseWriter)
		verdict issue.Verdict
		reason  issue.Reason
		message string
		after   time.Duration
	}{
		"params.errmsg": {
			answer:  reply(400, `{"params":{"err":"X","errmsg":"No Asha here."},"result":{}}`),
			verdict: issue.Permanent, reason: issue.ReasonBadRequest, message: "No … here.",
		},
		"result.message": {
			answer:  reply(500, `{"params":null,"result":{"message":"Process failed"}}`),
			verdict: issue.Transient, reason: issue.ReasonOther, message: "Process failed",
		},
		"code alone": {
			answer:  reply(404, `{"params":{"err":"USER_NOT_FOUND","errmsg":null}}`),
			verdict: issue.Permanent, reason: issue.ReasonRejected, message: "USER_NOT_FOUND",
		},
		"nothing said": {
			answer:  reply(503, ""),
			verdict: issue.Outage, reason: issue.ReasonUnavailable, message: "some-service said nothing",
		},
		"a page": {
			answer:  reply(404, page),
			verdict: issue.Permanent, reason: issue.ReasonRejected, message: "HTML page: Not & Found",
		},
		"plain text": {
			answer:  reply(502, "no healthy upstream\n"),
			verdict: issue.Outage, reason: issue.ReasonUnavailable, message: "no healthy upstream",
		},
		"asked to wait": {
			answer:  func(w http.ResponseWriter) { w.Header().Set("Retry-After", "7"); reply(429, "slow down")(w) },
			verdict: issue.Transient, reason: issue.ReasonRateLimited, message: "slow down", after: 7 * time.Second,
		},
		"a redirect": {
			answer:  func(w http.ResponseWriter) { w.Header().Set("Location", "/login"); reply(302, "")(w) },
			verdict: issue.Transient, reason: issue.ReasonBadAnswer, message: "some-service said nothing",
		},
		"empty success": {
			answer:  reply(200, " "),
			verdict: issue.Transient, reason: issue.ReasonBadAnswer, message: "some-service gave an empty answer",
		},
		"page of success": {
			answer:  reply(200, "<html>log in, Asha</html>"),
			verdict: issue.Transient, reason: issue.ReasonBadAnswer, message: "some-service gave an HTML page",
		},
		"broken off": {
			answer:  func(w http.ResponseWriter) { w.Header().Set("Content-Length", "100"); reply(200, `{"result":`)(w) },
			verdict: issue.Transient, reason: issue.ReasonBadAnswer, message: "some-service gave an answer that broke off",
		},
		"too long": {
			answer:  reply(200, strings.Repeat(" ", 16<<20)+"{}"),
			verdict: issue.Transient, reason: issue.ReasonBadAnswer, message: "some-service gave an answer that broke off",
		},
		"not an envelope": {
			answer:  reply(200, `[]`),
			verdict: issue.Transient, reason: issue.ReasonBadAnswer, message: "some-service gave an answer that cannot be read",
		},
		"without SUCCESS": {
			answer:  reply(200, `{"result":{"response":"FAILED"}}`),
			verdict: issue.Transient, reason: issue.ReasonBadAnswer, message: "some-service gave an answer without SUCCESS",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tt.answer(w) }))
			t.Cleanup(server.Close)
			call := get
			call.Sent = func() []string { return []string{"Asha"} }
			answer, err := newClient(t, server.URL, time.Minute).Do(t.Context(), call)
			require.NoError(t, err)
			failure := answer.Failure()
			if answer.Success() {
				failure = issue.AsFailure(answer.Accepted())
			}
			assert.Equal(t, tt.verdict, failure.Verdict)
			assert.Equal(t, tt.reason, failure.Reason)
			assert.Equal(t, answer.Status, failure.HTTPStatus)
			assert.Equal(t, tt.message, failure.Message)
			assert.Equal(t, tt.after, failure.RetryAfter)
		})
	}
}

func reply(status int, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, `{"id":null,"ts":1,"params":{"status":"SUCCESS"},"responseCode":"OK","result":{"response":"Success"}}`))
	answer, err := newClient(t, server.URL, time.Minute).Do(t.Context(), get)
	require.NoError(t, err)
	require.NoError(t, answer.Accepted())
	envelope, err := answer.Envelope()
	require.NoError(t, err)
	assert.Equal(t, sunbird.Text("1"), envelope.TS)
	assert.Equal(t, sunbird.Text("OK"), envelope.ResponseCode)
}

// TestTransport holds the figures that make the difference under load.
func TestTransport(t *testing.T) {
	t.Parallel()
	transport := sunbird.NewTransport(256)
	assert.Equal(t, 256, transport.MaxIdleConnsPerHost)
	assert.Equal(t, 256, transport.MaxConnsPerHost)
	assert.Nil(t, transport.Proxy)
	assert.Less(t, transport.IdleConnTimeout, 5*time.Second)
	assert.Equal(t, 1, sunbird.NewTransport(0).MaxConnsPerHost)
}

// TestConnectionsAreReused: errors and answers alike leave the connection fit
// for the next call.
func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	connections := make(chan struct{}, 100)
	calls := 0
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		reply([]int{200, 400, 500}[calls%3], strings.Repeat("x", 100<<10))(w)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections <- struct{}{}
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	client := newClient(t, server.URL, time.Minute)
	for range 12 {
		_, err := client.Do(t.Context(), get)
		require.NoError(t, err)
	}
	assert.Len(t, connections, 1)
}
