package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

const reconcilePath = Prefix + "/reconcile"

// reconciling is an API whose reconciler is a function, and what it was asked.
type reconciling struct {
	*house
	look      func(context.Context, issue.ReconcileRequest) (issue.Reconciliation, error)
	questions []issue.ReconcileRequest
}

func newReconciling() *reconciling {
	r := &reconciling{house: newHouse()}
	r.look = func(context.Context, issue.ReconcileRequest) (issue.Reconciliation, error) {
		return issue.Reconciliation{}, nil
	}
	r.cfg.Reconciler = r
	return r
}

func (r *reconciling) Reconcile(ctx context.Context, q issue.ReconcileRequest) (issue.Reconciliation, error) {
	r.questions = append(r.questions, q)
	return r.look(ctx, q)
}

func TestReconcileUnderstands(t *testing.T) {
	t.Parallel()
	asked := func(change ...func(*issue.ReconcileRequest)) issue.ReconcileRequest {
		q := issue.ReconcileRequest{Batch: "b", Course: "c", Validate: true}
		for _, c := range change {
			c(&q)
		}
		return q
	}
	fix := func(q *issue.ReconcileRequest) { q.Fix = true }
	for name, test := range map[string]struct {
		query, members string
		want           issue.ReconcileRequest
	}{
		"the least":             {"", `"courseId":"c"`, asked()},
		"collection":            {"", `"collectionId":"c"`, asked()},
		"certificate":           {"", `"courseId":"c","certificate":"Merit"`, asked(func(q *issue.ReconcileRequest) { q.Certificate = "Merit" })},
		"without validation":    {"", `"courseId":"c","validate":false`, asked(func(q *issue.ReconcileRequest) { q.Validate = false })},
		"nulls are absent":      {"", `"courseId":"c","validate":null,"fix":null,"certificate":null`, asked()},
		"fix in the query":      {"?fix=true", `"courseId":"c"`, asked(fix)},
		"fix in capitals":       {"?fix=TRUE", `"courseId":"c"`, asked(fix)},
		"fix in the request":    {"", `"courseId":"c","fix":true`, asked(fix)},
		"fix in both":           {"?fix=true", `"courseId":"c","fix":true`, asked(fix)},
		"one of both is enough": {"?fix=false", `"courseId":"c","fix":true`, asked(fix)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newReconciling()
			w := h.do(post(reconcilePath+test.query, `{"request":{"batchId":"b",`+test.members+`}}`))
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			require.Equal(t, []issue.ReconcileRequest{test.want}, h.questions)
			require.Equal(t, "api.course.batch.cert.reconcile", enveloped(t, w).ID)
		})
	}
}

func TestReconcileRefusals(t *testing.T) {
	t.Parallel()
	value := func(v, name string) string {
		return fmt.Sprintf("Invalid value %s for parameter %s. Please provide a valid value.", v, name)
	}
	in := func(members string) string { return `{"request":{"courseId":"c","batchId":"b",` + members + `}}` }
	for name, test := range map[string]struct{ query, body, code, text string }{
		"malformed":             {"", `{"request":`, codeBody, "Requested data for this operation is not valid."},
		"no course":             {"", `{"request":{"batchId":"b"}}`, codeMissing, "Mandatory parameter courseId/collectionId is missing."},
		"no batch":              {"", `{"request":{"courseId":"c"}}`, codeMissing, "Mandatory parameter batchId is missing."},
		"batch number":          {"", `{"request":{"courseId":"c","batchId":1}}`, codeType, "Data type of batchId should be String."},
		"certificate list":      {"", in(`"certificate":[]`), codeType, "Data type of certificate should be String."},
		"certificate blank":     {"", in(`"certificate":" "`), codeValue, value(" ", "certificate")},
		"validate text":         {"", in(`"validate":"false"`), codeType, "Data type of validate should be Boolean."},
		"fix number":            {"", in(`"fix":1`), codeType, "Data type of fix should be Boolean."},
		"fix neither":           {"?fix=1", in(`"fix":false`), codeValue, value("1", "fix")},
		"members of /issue":     {"?fix=true", in(`"userIds":["u"]`), codeValue, value(`["u"]`, "userIds")},
		"filters":               {"", in(`"filters":{"status":1}`), codeValue, value(`{"status":1}`, "filters")},
		"a trial run of a fix":  {"?fix=true&dryRun=true", in(`"fix":false`), codeValue, value("true", "dryRun")},
		"a member spelt wrong":  {"", in(`"certficate":"A"`), codeValue, value("A", "certficate")},
		"a member of two cases": {"", in(`"Fix":true`), codeValue, value("true", "Fix")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newReconciling()
			w := h.do(post(reconcilePath+test.query, test.body))
			assert.Equal(t, http.StatusBadRequest, w.Code)
			a := enveloped(t, w)
			assert.Equal(t, test.code, textOf(a.Params.Err))
			assert.Equal(t, test.text, textOf(a.Params.ErrMsg))
			assert.Empty(t, h.questions, "a refused request reaches nobody")
		})
	}
}

func TestReconcileErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err    error
		status int
		text   string
	}{
		"unknown batch":       {issue.ErrUnknownBatch, 400, "No such batchId exists"},
		"other course":        {issue.ErrOtherCourse, 400, "batchId is not linked with courseId"},
		"unknown certificate": {issue.InvalidValueError{Parameter: "certificate", Value: "x"}, 400, "Invalid value x for parameter certificate. Please provide a valid value."},
		"no templates":        {issue.NoTemplatesError{Batch: "b"}, 400, "No certificate templates associated with b"},
		"a store is away": {
			fmt.Errorf("page: %w", issue.ErrUnavailable), 503,
			"The ledger, the enrolment source or the content service cannot be reached. Please try again later.",
		},
		"anything else": {errors.New("secret of 10.0.0.1"), 500, "Process failed,please try again later."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newReconciling()
			h.look = func(context.Context, issue.ReconcileRequest) (issue.Reconciliation, error) {
				return issue.Reconciliation{}, test.err
			}
			w := h.do(post(reconcilePath, goodBody))
			assert.Equal(t, test.status, w.Code)
			a := enveloped(t, w)
			assert.Equal(t, test.text, textOf(a.Params.ErrMsg))
			assert.Empty(t, a.Result)
		})
	}
}

func TestReconcileAnswer(t *testing.T) {
	t.Parallel()
	h := newReconciling()
	finding := func(learners ...issue.LearnerID) issue.Finding {
		return issue.Finding{Count: len(learners) + 5, Samples: learners}
	}
	h.look = func(context.Context, issue.ReconcileRequest) (issue.Reconciliation, error) {
		return issue.Reconciliation{
			Certificates: []string{"A & <B>"}, Eligible: 9, States: map[issue.State]int{issue.Notified: 4, issue.Failed: 1},
			Issued: 4, Validated: 2, Missing: finding("u1", "u2"), Lost: finding("u3"), Orphaned: finding("u4"),
			Unchecked: map[issue.Unchecked]issue.Finding{"unavailable": finding("u5")}, Queued: 2,
			Jobs: []issue.JobID{"standing"},
			Recount: issue.Recount{
				Jobs: 2, Unresolved: 1, Corrected: 1,
				Wrong: []issue.WrongSum{{Job: "j", Kind: "state", Name: "queued", Kept: 3, Counted: 2}, {Job: "j", Kind: "issued", Kept: 1}},
			},
		}, nil
	}
	w := h.do(post(reconcilePath+"?fix=true", `{"request":{"courseId":"c","batchId":"b"}}`))
	sameText(t, `{"reconcile":{"batchId":"b","courseId":"c","certificates":["A & <B>"],"eligible":9,`+
		`"counts":{"failed":1,"issued":4,"notified":4},"validated":2,`+
		`"missing":{"count":7,"samples":["u1","u2"]},"lost":{"count":6,"samples":["u3"]},"duplicate":{"count":0},`+
		`"orphaned":{"count":6,"samples":["u4"]},"elsewhere":{"count":0},`+
		`"unchecked":{"unavailable":{"count":6,"samples":["u5"]}},"fix":true,"queued":2,"jobs":["standing"],`+
		`"recount":{"jobs":2,"unresolved":1,"wrong":2,"corrected":1,"samples":[`+
		`{"jobId":"j","kind":"state","name":"queued","kept":3,"counted":2},{"jobId":"j","kind":"issued","kept":1,"counted":0}]}}}`,
		result(t, w))
}

// A long look is cut off neither by the time that a server gives to answers nor
// by the time that it gives to requests.
func TestReconcileOutlastsTheServersLimits(t *testing.T) {
	t.Parallel()
	const limit = 50 * time.Millisecond
	h := newReconciling()
	h.look = func(ctx context.Context, _ issue.ReconcileRequest) (issue.Reconciliation, error) {
		select {
		case <-ctx.Done():
			return issue.Reconciliation{}, ctx.Err()
		case <-time.After(10 * limit):
			return issue.Reconciliation{Eligible: 7}, nil
		}
	}
	server := httptest.NewUnstartedServer(New(h.cfg))
	server.Config.ReadTimeout, server.Config.WriteTimeout = limit, limit
	server.Start()
	t.Cleanup(server.Close)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+reconcilePath, strings.NewReader(goodBody))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := server.Client().Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
}

func TestReconcileEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	h := newReconciling()
	ctx, cancel := context.WithCancel(t.Context())
	h.look = func(ctx context.Context, _ issue.ReconcileRequest) (issue.Reconciliation, error) {
		cancel()
		return issue.Reconciliation{}, ctx.Err()
	}
	require.Equal(t, statusGone, h.do(post(reconcilePath, goodBody).WithContext(ctx)).Code)
}
