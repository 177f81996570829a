package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ecreds/issuer/internal/issue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a fresh API with fakes behind it; its defaults accept one job.
type house struct {
	accept   func(context.Context, issue.Request) (issue.Acceptance, error)
	job      func(context.Context, issue.JobID) (issue.JobProgress, bool, error)
	learners func(context.Context, issue.LearnerQuery) (issue.LearnerPage, error)
	asked    []issue.Request
	now      time.Time
	log      *observer.ObservedLogs
	registry *prometheus.Registry
	cfg      Config
	api      http.Handler // built from cfg at the first request
}

func newHouse() *house {
	core, log := observer.New(zap.DebugLevel)
	h := &house{
		accept: func(context.Context, issue.Request) (issue.Acceptance, error) {
			return issue.Acceptance{Job: "job-1", Eligible: 3}, nil
		},
		job: func(_ context.Context, id issue.JobID) (issue.JobProgress, bool, error) {
			return issue.JobProgress{Job: issue.Job{ID: id, Batch: "b", Course: "c", State: issue.JobRunning}}, true, nil
		},
		learners: func(context.Context, issue.LearnerQuery) (issue.LearnerPage, error) { return issue.LearnerPage{}, nil },
		now:      time.Date(2023, 9, 8, 10, 5, 45, 247e6, time.UTC),
		log:      log, registry: prometheus.NewRegistry(),
	}
	h.cfg = Config{
		Accepter: h, Jobs: h, Log: zap.New(core), Metrics: h.registry, Gatherer: h.registry, Version: "1.2.3",
		Now: func() time.Time { return h.now },
	}
	return h
}

func (h *house) Accept(ctx context.Context, r issue.Request) (issue.Acceptance, error) {
	h.asked = append(h.asked, r)
	return h.accept(ctx, r)
}

func (h *house) Job(ctx context.Context, id issue.JobID) (issue.JobProgress, bool, error) {
	return h.job(ctx, id)
}

func (h *house) Learners(ctx context.Context, q issue.LearnerQuery) (issue.LearnerPage, error) {
	return h.learners(ctx, q)
}

func (h *house) refuse(err error) {
	h.accept = func(context.Context, issue.Request) (issue.Acceptance, error) { return issue.Acceptance{}, err }
}

func (h *house) do(r *http.Request) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	if h.api == nil {
		h.api = New(h.cfg)
	}
	h.api.ServeHTTP(recorder, r)
	return recorder
}

func (h *house) get(path string) *httptest.ResponseRecorder {
	return h.do(httptest.NewRequest(http.MethodGet, path, http.NoBody))
}

const goodBody = `{"request":{"courseId":"do_2128410273679114241112","batchId":"0128821148183429120"}}`

// post is a call of /issue; headers come in pairs.
func post(path, body string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// answered is an answer taken apart.
type answered struct {
	ID, Ver, TS  string
	Params       struct{ ResMsgID, MsgID, Err, Status, ErrMsg *string }
	ResponseCode string
	Result       map[string]any
}

// enveloped checks what holds for every JSON answer and takes it apart.
func enveloped(t *testing.T, w *httptest.ResponseRecorder) answered {
	t.Helper()
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
	body, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	var keys map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(body, &keys), "%s", body)
	for _, key := range []string{"id", "ver", "ts", "params", "responseCode", "result"} {
		require.Contains(t, keys, key)
	}
	var in map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(keys["params"], &in))
	for _, key := range []string{"resmsgid", "msgid", "err", "status", "errmsg"} {
		require.Contains(t, in, key)
	}
	var a answered
	require.NoError(t, json.Unmarshal(body, &a))
	require.Nil(t, a.Params.ResMsgID)
	require.NotNil(t, a.Params.MsgID)
	return a
}

func textOf(s *string) string {
	if s == nil {
		return "<null>"
	}
	return *s
}
