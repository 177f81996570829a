package httpapi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/ecreds/issuer/internal/issue"
)

func TestUnknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		method, path string
		status       int
		id, allow    string
	}{
		"unknown path":            {"GET", "/nowhere", 404, "api.nowhere", ""},
		"unknown, like ours":      {"GET", "/v1/course/batch/cert/jobs", 404, "api.course.batch.cert.jobs", ""},
		"root":                    {"GET", "/", 404, "api", ""},
		"two slashes":             {"POST", "/issue//", 404, "api.issue", ""},
		"method of issue":         {"GET", "/issue", 405, "api.course.batch.cert.issue", "POST, OPTIONS"},
		"method, trailing slash":  {"DELETE", Prefix + "/issue/", 405, "api.course.batch.cert.issue", "POST, OPTIONS"},
		"method of job":           {"PUT", jobPath, 405, "api.course.batch.cert.jobs", "GET, HEAD, OPTIONS"},
		"method of health":        {"POST", "/health", 405, "api.health", "GET, HEAD, OPTIONS"},
		"invented method":         {"BREW", "/issue", 405, "api.course.batch.cert.issue", "POST, OPTIONS"},
		"invented method nowhere": {"BREW", "/nowhere", 404, "api.nowhere", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHouse().do(httptest.NewRequest(test.method, test.path, http.NoBody))
			a := enveloped(t, w)
			assert.Equal(t, test.status, w.Code)
			assert.Equal(t, test.id, a.ID)
			assert.Equal(t, test.allow, strings.Join(w.Header().Values("Allow"), ", "))
			want := map[int]string{404: codeNotFound, 405: codeMethod}[test.status]
			assert.Equal(t, want, textOf(a.Params.Err))
			assert.Equal(t, want, textOf(a.Params.Status))
		})
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/issue", "/anywhere/at/all"} {
		w := newHouse().do(httptest.NewRequest(http.MethodOptions, path, http.NoBody))
		assert.Equal(t, http.StatusOK, w.Code)
		assert.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
		assert.Equal(t, "POST, GET, PUT, DELETE, OPTIONS", w.Header().Get("Access-Control-Allow-Methods"))
		assert.Empty(t, w.Body.String())
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		headers        []string
		msgID, echoing string // "" = a UUID
	}{
		"none":            {nil, "", ""},
		"message id":      {[]string{"X-msgid", "m"}, "m", "m"},
		"request id":      {[]string{"X-Request-ID", "r"}, "r", "r"},
		"both":            {[]string{"X-msgid", "m", "X-Request-ID", "r"}, "m", "r"},
		"dirty":           {[]string{"X-msgid", "a\tb<é>\x7f"}, "ab<>", "ab<>"},
		"nothing printed": {[]string{"X-msgid", "é", "X-Request-ID", "r"}, "r", "r"},
		"long":            {[]string{"X-msgid", strings.Repeat("m", 1000)}, strings.Repeat("m", 128), strings.Repeat("m", 128)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHouse().do(post("/issue", goodBody, test.headers...))
			echoed, msgID := w.Header().Get("X-Request-ID"), textOf(enveloped(t, w).Params.MsgID)
			if test.msgID == "" {
				require.NoError(t, uuid.Validate(msgID))
				assert.Equal(t, msgID, echoed)
				return
			}
			assert.Equal(t, test.msgID, msgID)
			assert.Equal(t, test.echoing, echoed)
		})
	}
}

func TestPanicIsAnsweredAndLogged(t *testing.T) {
	t.Parallel()
	h := newHouse()
	h.accept = func(context.Context, issue.Request) (issue.Acceptance, error) { panic("no such luck") }
	w := h.do(post("/issue", goodBody))
	assert.Equal(t, http.StatusInternalServerError, w.Code)
	a := enveloped(t, w)
	assert.Equal(t, codeInternal, textOf(a.Params.Err))
	assert.NotContains(t, textOf(a.Params.ErrMsg), "luck")
	require.Equal(t, 1, h.log.Len())
	line := h.log.All()[0]
	assert.Equal(t, zap.ErrorLevel, line.Level)
	assert.Equal(t, "no such luck", line.ContextMap()["panic"])
	assert.Contains(t, line.ContextMap()["stack"], "TestPanicIsAnsweredAndLogged")
}

func TestOneLinePerRequest(t *testing.T) {
	t.Parallel()
	h := newHouse()
	h.do(post("/issue?reIssue=true", `{"request":{"courseId":"c","batchId":"b","userIds":["secret-learner"]}}`,
		"X-msgid", "m", "x-authenticated-user-token", "secret-token", "Idempotency-Key", "secret-key"))
	require.Equal(t, 1, h.log.Len())
	line := h.log.All()[0]
	assert.Equal(t, "request", line.Message)
	assert.Equal(t, zap.InfoLevel, line.Level)
	fields := line.ContextMap()
	assert.Contains(t, fields, "duration")
	delete(fields, "duration")
	assert.Equal(t, map[string]any{
		"route": "/issue", "method": "POST", "status": int64(200), "request_id": "m", "batch": "b", "job": "job-1",
	}, fields)
}

func TestErrorsAreLoggedWithTheirCause(t *testing.T) {
	t.Parallel()
	h := newHouse()
	h.refuse(errors.New("the cause"))
	h.do(post("/issue", goodBody))
	assert.Equal(t, "the cause", h.log.All()[0].ContextMap()["error"])
	assert.Equal(t, zap.ErrorLevel, h.log.All()[0].Level)

	h = newHouse()
	h.get("/live")
	assert.Equal(t, zap.DebugLevel, h.log.All()[0].Level, "probes do not fill the log")
}

func TestLiveAndReady(t *testing.T) {
	t.Parallel()
	h := newHouse()
	assert.JSONEq(t, `{"live":true,"version":"1.2.3"}`, result(t, h.get("/live")))
	h = newHouse()
	w := h.get("/ready")
	assert.Equal(t, http.StatusOK, w.Code)
	assert.JSONEq(t, `{"ready":true}`, result(t, w))

	h = newHouse()
	h.cfg.Ready = func(context.Context) error { return errors.New("the ledger does not answer") }
	w = h.get("/ready")
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	a := enveloped(t, w)
	assert.Equal(t, "Not ready: the ledger does not answer", textOf(a.Params.ErrMsg))
	assert.Equal(t, map[string]any{"ready": false}, a.Result)
}

func TestAdminAlone(t *testing.T) {
	t.Parallel()
	h := newHouse()
	admin := NewAdmin(Config{Metrics: h.registry, Gatherer: h.registry})
	for path, want := range map[string]int{
		"/health": 200, "/service/health": 200, "/live/": 200, "/ready": 200, "/metrics": 200, "/issue": 404,
	} {
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httpGet(path))
		assert.Equal(t, want, w.Code, path)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	h := newHouse()
	api := New(h.cfg)
	problems, err := testutil.GatherAndLint(h.registry)
	require.NoError(t, err)
	assert.Empty(t, problems)
	before, err := testutil.GatherAndCount(h.registry)
	require.NoError(t, err)

	ask := func(r *http.Request) string {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		body, err := io.ReadAll(w.Body)
		require.NoError(t, err)
		return string(body)
	}
	ask(post(Prefix+"/issue/", goodBody, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	ask(post("/issue", `{`))
	ask(httpGet("/scan/1"))
	ask(httpGet("/scan/2"))
	ask(httpGet(Prefix + "/jobs/1"))
	ask(httpGet(Prefix + "/jobs/2"))
	ask(httpGet("/issue"))
	after, err := testutil.GatherAndCount(h.registry)
	require.NoError(t, err)
	assert.Equal(t, before, after, "every series was there from the start")

	text := ask(httpGet("/metrics", "Accept", "application/openmetrics-text; version=1.0.0"))
	for _, want := range []string{
		`ecreds_http_request_duration_seconds_count{code="200",method="POST",route="/v1/course/batch/cert/issue"} 1`,
		`ecreds_http_request_duration_seconds_count{code="400",method="POST",route="/issue"} 1`,
		`ecreds_http_request_duration_seconds_count{code="503",method="POST",route="/issue"} 0`,
		`ecreds_http_request_duration_seconds_count{code="404",method="GET",route="other"} 2`,
		`ecreds_http_request_duration_seconds_count{code="405",method="GET",route="other"} 1`,
		`ecreds_http_request_duration_seconds_count{code="200",method="GET",route="/v1/course/batch/cert/jobs/{id}"} 2`,
		`# {trace_id="0af7651916cd43dd8448eb211c80319c"}`,
	} {
		assert.Contains(t, text, want)
	}
}

// Over a real connection: limits of the server, HEAD, a chunked body that is
// too large, a stream that breaks off.
func TestServer(t *testing.T) {
	t.Parallel()
	h := newHouse()
	h.cfg.MaxBody = 1000
	h.learners = func(_ context.Context, q issue.LearnerQuery) (issue.LearnerPage, error) {
		if q.Cursor != "" {
			return issue.LearnerPage{}, errors.New("gone")
		}
		return issue.LearnerPage{Learners: []issue.LearnerProgress{{Learner: "u", State: "queued"}}, Next: "1"}, nil
	}
	server := NewServer(New(h.cfg))
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		assert.NoError(t, server.Close())
		assert.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(method, path, accept string, body io.Reader) (int, error) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+listener.Addr().String()+path, body)
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", accept)
		w, err := client.Do(r)
		require.NoError(t, err)
		defer w.Body.Close()
		_, err = io.ReadAll(w.Body)
		return w.StatusCode, err
	}

	status, err := ask(http.MethodHead, "/health", "", http.NoBody)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status)
	status, err = ask(http.MethodPost, "/issue", "", io.MultiReader(strings.NewReader(goodBody), strings.NewReader(strings.Repeat(" ", 5000))))
	require.NoError(t, err)
	assert.Equal(t, http.StatusRequestEntityTooLarge, status)
	_, err = ask(http.MethodGet, jobPath+"/learners", "text/csv", http.NoBody)
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
}
