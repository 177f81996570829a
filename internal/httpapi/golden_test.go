package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

// The platform's recorded answers, byte for byte. Clock and message id are set
// to those of the recording.
func TestRecordedErrors(t *testing.T) {
	t.Parallel()
	const batch = `{"request":{"courseId":"do_1","batchId":"0128821148183429120"}}`
	tests := map[string]struct {
		body    string
		headers []string
		refusal error
		status  int
		want    string
	}{
		"batchId missing": {
			body: `{"request":{"courseId":"do_1"}}`, status: 400,
			want: `{"id":"api.course.batch.cert.issue","ver":"v1","ts":"2023-09-12 05:37:06:782+0000","params":{"resmsgid":null,"msgid":"21a9de3c-386c-471b-b339-5a7c367a0320","err":"MANDATORY_PARAMETER_MISSING","status":"MANDATORY_PARAMETER_MISSING","errmsg":"Mandatory parameter batchId is missing."},"responseCode":"CLIENT_ERROR","result":{}}`,
		},
		"courseId missing": {
			body: `{"request":{"batchId":"0128821148183429120"}}`, status: 400,
			want: `{"id":"api.course.batch.cert.issue","ver":"v1","ts":"2023-09-12 05:34:20:507+0000","params":{"resmsgid":null,"msgid":"c6cf3e16-fa4e-42c3-b378-fc7475c27fde","err":"MANDATORY_PARAMETER_MISSING","status":"MANDATORY_PARAMETER_MISSING","errmsg":"Mandatory parameter courseId/collectionId is missing."},"responseCode":"CLIENT_ERROR","result":{}}`,
		},
		"unknown batch": {
			body: batch, refusal: fmt.Errorf("wrapped: %w", issue.ErrUnknownBatch), status: 400,
			want: `{"id":"api.course.batch.cert.issue","ver":"v1","ts":"2023-09-12 05:43:27:896+0000","params":{"resmsgid":null,"msgid":"d16956b9-5e0d-480d-a895-d8a8cb770ca8","err":null,"status":"SERVER_ERROR","errmsg":"No such batchId exists"},"responseCode":"CLIENT_ERROR","result":{}}`,
		},
		"batch of another course": {
			body: batch, refusal: issue.ErrOtherCourse, status: 400,
			want: `{"id":"api.course.batch.cert.issue","ver":"v1","ts":"2023-09-12 05:41:49:689+0000","params":{"resmsgid":null,"msgid":"8588f5e9-befb-438e-930c-0d4d8ee81af2","err":null,"status":"SERVER_ERROR","errmsg":"batchId is not linked with courseId"},"responseCode":"CLIENT_ERROR","result":{}}`,
		},
		"no templates": {
			body: batch, refusal: issue.NoTemplatesError{Batch: "0128821148183429120"}, status: 400,
			want: `{"id":"api.course.batch.cert.issue","ver":"v1","ts":"2023-09-12 05:41:49:689+0000","params":{"resmsgid":null,"msgid":"<msgid>","err":null,"status":"SERVER_ERROR","errmsg":"No certificate templates associated with 0128821148183429120"},"responseCode":"CLIENT_ERROR","result":{}}`,
		},
		"templates that cannot be read": {
			body: batch, refusal: issue.BadTemplatesError{Course: "do_1", Problem: "keys is no object"}, status: 400,
			want: `{"id":"api.course.batch.cert.issue","ver":"v1","ts":"2023-09-12 05:41:49:689+0000","params":{"resmsgid":null,"msgid":"<msgid>","err":null,"status":"SERVER_ERROR","errmsg":"The certificate templates of course do_1 cannot be read: keys is no object"},"responseCode":"CLIENT_ERROR","result":{}}`,
		},
		"content type": {
			body: batch, headers: []string{"Content-Type", "text/plain"}, status: 400,
			want: `{"id":"api.course.batch.cert.issue","ver":"v1","ts":"2019-08-21 05:41:49:689+0000","params":{"resmsgid":null,"msgid":"<msgid>","err":"CONTENT_TYPE_ERROR","status":"CONTENT_TYPE_ERROR","errmsg":"Please add Content-Type header with value application/json"},"responseCode":"CLIENT_ERROR","result":{}}`,
		},
		"unexpected failure": {
			body: batch, refusal: errors.New("dial tcp 10.0.0.1: secret"), status: 500,
			want: `{"id":"api.course.batch.cert.issue","ver":"v1","ts":"2020-11-23 15:15:18:331+0000","params":{"resmsgid":null,"msgid":"<msgid>","err":"INTERNAL_ERROR","status":"INTERNAL_ERROR","errmsg":"Process failed,please try again later."},"responseCode":"SERVER_ERROR","result":{}}`,
		},
		"away": { // the platform's has a null errmsg and msgid; ours says what is away
			body: batch, refusal: fmt.Errorf("count: %w: dial tcp 10.0.0.1", issue.ErrUnavailable), status: 503,
			want: `{"id":"api.course.batch.cert.issue","ver":"v1","ts":"2020-11-23 15:15:18:331+0000","params":{"resmsgid":null,"msgid":"<msgid>","err":null,"status":"SERVICE_UNAVAILABLE","errmsg":"The ledger, the enrolment source or the content service cannot be reached. Please try again later."},"responseCode":"SERVICE_UNAVAILABLE","result":{}}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			h.now = recordedAt(t, test.want)
			h.refuse(test.refusal)
			r := post(Prefix+"/issue", test.body, append(test.headers, "X-msgid", between(test.want, `"msgid":"`))...)
			w := h.do(r)
			require.Equal(t, test.status, w.Code)
			sameText(t, test.want, w.Body.String())
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		})
	}
}

func TestSuccessAnswers(t *testing.T) {
	t.Parallel()
	const head = `{"id":"api.course.batch.cert.issue","ver":"v1","ts":"2023-09-08 10:05:45:247+0000","params":{"resmsgid":null,"msgid":"3b0520de-14ca-4c27-9d51-26e469c9ef00","err":null,"status":"success","errmsg":null},"responseCode":"OK","result":`
	tests := map[string]struct {
		body   string
		accept issue.Acceptance
		result string
	}{
		"whole batch": {
			body:   `{"request":{"collectionId":"do_113776650927300608138","batchId":"0138758519984209923"}}`,
			accept: issue.Acceptance{Job: "j-1", Eligible: 7, Certificates: []string{"A", "B"}},
			result: `{"result":{"status":"Certificates issue action for Course Batch Id 0138758519984209923 submitted Successfully!","batchId":"0138758519984209923","courseId":"do_113776650927300608138","collectionId":"do_113776650927300608138","jobId":"j-1","eligible":7,"skipped":{"already_issued":0,"bad_completion_date":0,"criteria":0,"filtered":0,"inactive":0,"no_completion_date":0,"not_enrolled":0,"status":0}}}`,
		},
		"one certificate, estimated, with an ampersand": {
			body: `{"request":{"courseId":"do_1","batchId":"b","certificate":"A & <B>"}}`,
			accept: issue.Acceptance{
				Job: "j-1", Eligible: 7, Estimate: true, Skipped: map[issue.SkipReason]int{issue.SkipInactive: 2},
			},
			result: `{"result":{"status":"Certificates issue action for Course Batch Id b submitted Successfully!","batchId":"b","courseId":"do_1","collectionId":"do_1","certificate":"A & <B>","jobId":"j-1","eligible":7,"estimate":true,"skipped":{"already_issued":0,"bad_completion_date":0,"criteria":0,"filtered":0,"inactive":2,"no_completion_date":0,"not_enrolled":0,"status":0}}}`,
		},
		"nobody": {
			body:   `{"request":{"courseId":"do_1","batchId":"b"}}`,
			accept: issue.Acceptance{Skipped: map[issue.SkipReason]int{issue.SkipStatus: 40}},
			result: `{"result":{"status":"No user exists for provided requests","batchId":"b","courseId":"do_1","collectionId":"do_1","eligible":0,"skipped":{"already_issued":0,"bad_completion_date":0,"criteria":0,"filtered":0,"inactive":0,"no_completion_date":0,"not_enrolled":0,"status":40}}}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			h.accept = func(context.Context, issue.Request) (issue.Acceptance, error) { return test.accept, nil }
			w := h.do(post(Prefix+"/issue", test.body, "X-msgid", "3b0520de-14ca-4c27-9d51-26e469c9ef00"))
			require.Equal(t, http.StatusOK, w.Code)
			sameText(t, head+test.result+"}", w.Body.String())
			require.Equal(t, fmt.Sprint(len(test.result)), w.Header().Get("x-response-length"))
		})
	}
}

func TestHealthAnswers(t *testing.T) {
	t.Parallel()
	h := newHouse()
	h.cfg.Checks = []Check{
		{"Elastic search service", func(context.Context) error { return nil }},
		{"Content service", func(context.Context) error { return errors.New("dial tcp 10.0.0.1: refused") }},
		{"Cassandra service", func(context.Context) error { panic("broken probe") }},
	}
	r := httpGet("/health", "X-msgid", "m")
	w := h.do(r)
	require.Equal(t, http.StatusOK, w.Code)
	sameText(t, `{"id":"api.all.health","ver":"health","ts":"2023-09-08 10:05:45:247+0000","params":{"resmsgid":null,"msgid":"m","err":null,"status":"success","errmsg":null},"responseCode":"OK","result":{"response":{"checks":[{"name":"Elastic search service","healthy":true,"err":"","errmsg":""},{"name":"Content service","healthy":false,"err":"CONNECTION_ERROR","errmsg":"Connection error"},{"name":"Cassandra service","healthy":false,"err":"CONNECTION_ERROR","errmsg":"Connection error"}],"name":"Complete health check api","healthy":false}}}`,
		w.Body.String())

	w = h.do(httpGet("/service/health", "X-msgid", "m"))
	sameText(t, `{"id":"learner.service.health.api","ver":"service","ts":"m","params":null,"responseCode":"OK","result":{"response":{"checks":[{"name":"Learner service","healthy":true,"err":"","errmsg":""}],"name":"Learner service health","healthy":true}}}`,
		w.Body.String())
}

// sameText compares byte for byte: the order of members is part of the answer.
func sameText(t *testing.T, want, got string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func recordedAt(t *testing.T, answer string) time.Time {
	t.Helper()
	ts := between(answer, `"ts":"`)
	at, err := time.Parse("2006-01-02 15:04:05.000-0700", ts[:19]+"."+ts[20:])
	require.NoError(t, err)
	return at
}

// between is the text from after start to the next quote.
func between(text, start string) string {
	_, rest, _ := strings.Cut(text, start)
	found, _, _ := strings.Cut(rest, `"`)
	return found
}
