package httpapi

import (
	"context"
	"encoding/csv"
	"encoding/json"
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

const jobPath = Prefix + "/jobs/job-1"

// result is the answer's result as it stands in the body.
func result(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var whole struct{ Result json.RawMessage }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &whole))
	enveloped(t, w)
	return string(whole.Result)
}

func TestJob(t *testing.T) {
	t.Parallel()
	const skipped = `"skippedBy":{"already_issued":1,"bad_completion_date":0,"criteria":0,"filtered":0,"inactive":0,"no_completion_date":0,"not_enrolled":0,"status":0}`
	created := time.Date(2023, 9, 8, 15, 35, 45, 0, time.FixedZone("IST", 5*3600+1800))
	job := issue.Job{
		ID: "job-1", Batch: "b", Course: "c", Certificates: []string{"A"}, ReIssue: true, State: issue.JobRunning, Eligible: 4,
		Skipped: map[issue.SkipReason]int{issue.SkipAlreadyIssued: 1}, Resolved: true, CreatedBy: "officer", CreatedAt: created,
	}
	const head = `{"job":{"jobId":"job-1","batchId":"b","courseId":"c","certificates":["A"],"reIssue":true,"state":%q,"createdAt":"2023-09-08T10:05:45Z","createdBy":"officer","eligible":4,`
	tests := map[string]struct {
		progress issue.JobProgress
		state    string
		tail     string
	}{
		"running": {
			issue.JobProgress{Job: job, Counts: map[issue.State]int{issue.Queued: 3, issue.Notified: 1, issue.Failed: 0}, Issued: 1},
			"running",
			`"counts":{"issued":1,"notified":1,"queued":3},` + skipped + `,"resolved":true,"done":false,"healthy":true}}`,
		},
		"done with a failure": {
			issue.JobProgress{
				Job: job, Counts: map[issue.State]int{issue.Notified: 3, issue.Failed: 1}, Issued: 3,
				FailedBy: map[issue.Reason]int{issue.ReasonUnknownUser: 1},
			},
			"done",
			`"counts":{"failed":1,"issued":3,"notified":3},` + skipped + `,"failedBy":{"unknown_user":1},"resolved":true,"done":true,"healthy":false,"reasons":["failed"]}}`,
		},
		"stalled": {
			issue.JobProgress{Job: job, Counts: map[issue.State]int{issue.Queued: 4}, Stalled: true},
			"running",
			`"counts":{"issued":0,"queued":4},` + skipped + `,"resolved":true,"done":false,"healthy":false,"reasons":["stalled"]}}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			h.job = func(context.Context, issue.JobID) (issue.JobProgress, bool, error) { return test.progress, true, nil }
			w := h.get(jobPath + "/")
			require.Equal(t, http.StatusOK, w.Code)
			sameText(t, fmt.Sprintf(head, test.state)+test.tail, result(t, w))
		})
	}
}

func TestJobIdentity(t *testing.T) {
	t.Parallel()
	a := enveloped(t, newHouse().get(jobPath))
	assert.Equal(t, "api.course.batch.cert.jobs", a.ID)
	assert.Equal(t, "v1", a.Ver)
	a = enveloped(t, newHouse().get(jobPath+"/learners"))
	assert.Equal(t, "api.course.batch.cert.jobs.learners", a.ID)
}

func TestLearners(t *testing.T) {
	t.Parallel()
	h := newHouse()
	var asked []issue.LearnerQuery
	h.learners = func(_ context.Context, q issue.LearnerQuery) (issue.LearnerPage, error) {
		asked = append(asked, q)
		return issue.LearnerPage{Next: "u2", Learners: []issue.LearnerProgress{
			{Learner: "u1", State: "skipped", Reason: "status"},
			{
				Learner: "u2", Issuance: "i2", State: "retrying", Step: issue.StepGenerate, Attempts: 3, Reason: "timeout",
				Message: "no answer <80s>", Revision: 1, CertificateID: "cert", UpdatedAt: time.Date(2023, 9, 8, 0, 0, 0, 0, time.UTC),
				Due: time.Date(2023, 9, 8, 0, 5, 0, 0, time.UTC),
			},
		}}, nil
	}
	w := h.get(jobPath + "/learners")
	require.Equal(t, http.StatusOK, w.Code)
	sameText(t, `{"learners":[{"userId":"u1","state":"skipped","reason":"status"},`+
		`{"userId":"u2","issuanceId":"i2","state":"retrying","step":"generate","attempts":3,"reason":"timeout","message":"no answer <80s>","certificateId":"cert","revision":1,"updatedAt":"2023-09-08T00:00:00Z","due":"2023-09-08T00:05:00Z"}],"next":"u2"}`,
		result(t, w))
	h.get(jobPath + "/learners?state=skipped&cursor=u2&limit=1000")
	assert.Equal(t, []issue.LearnerQuery{
		{Job: "job-1", Limit: 100}, {Job: "job-1", State: "skipped", Cursor: "u2", Limit: 1000},
	}, asked)

	assert.JSONEq(t, `{"learners":[]}`, result(t, newHouse().get(jobPath+"/learners")), "an empty page is a list too")
}

func TestJobRefusals(t *testing.T) {
	t.Parallel()
	away := fmt.Errorf("query: %w: dial tcp 10.0.0.1", issue.ErrUnavailable)
	tests := map[string]struct {
		path       string
		found      bool
		err        error
		status     int
		code, text string
	}{
		"unknown":             {jobPath, false, nil, 404, codeNotFound, "No such jobId exists: job-1"},
		"unknown, learners":   {jobPath + "/learners", false, nil, 404, codeNotFound, "No such jobId exists: job-1"},
		"zero byte":           {jobPath + "%00", true, nil, 404, codeNotFound, "No such jobId exists: job-1\x00"},
		"ledger away":         {jobPath, false, away, 503, codeUnavailable, "The ledger cannot be reached. Please try again later."},
		"ledger away, page":   {jobPath + "/learners", true, away, 503, codeUnavailable, "The ledger cannot be reached. Please try again later."},
		"broken":              {jobPath, false, errors.New("x"), 500, codeInternal, "Process failed,please try again later."},
		"unknown state":       {jobPath + "/learners?state=lost", true, nil, 400, codeValue, "Invalid value lost for parameter state. Please provide a valid value."},
		"limit zero":          {jobPath + "/learners?limit=0", true, nil, 400, codeValue, "Invalid value 0 for parameter limit. Please provide a valid value."},
		"limit too large":     {jobPath + "/learners?limit=1001", true, nil, 400, codeValue, "Invalid value 1001 for parameter limit. Please provide a valid value."},
		"limit text":          {jobPath + "/learners?limit=all", true, nil, 400, codeValue, "Invalid value all for parameter limit. Please provide a valid value."},
		"cursor with control": {jobPath + "/learners?cursor=a%00", true, nil, 400, codeValue, "Invalid value a\x00 for parameter cursor. Please provide a valid value."},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			h.job = func(_ context.Context, id issue.JobID) (issue.JobProgress, bool, error) {
				return issue.JobProgress{Job: issue.Job{ID: id}}, test.found, test.err
			}
			w := h.get(test.path)
			assert.Equal(t, test.status, w.Code)
			a := enveloped(t, w)
			assert.Equal(t, test.code, textOf(a.Params.Status))
			assert.Equal(t, test.text, textOf(a.Params.ErrMsg))
		})
	}
}

// pages serves learners u0, u1, … one to a page.
func pages(learners ...issue.LearnerProgress) func(context.Context, issue.LearnerQuery) (issue.LearnerPage, error) {
	return func(_ context.Context, q issue.LearnerQuery) (issue.LearnerPage, error) {
		at := 0
		_, _ = fmt.Sscan(q.Cursor, &at)
		page := issue.LearnerPage{Learners: learners[at : at+1]}
		if at+1 < len(learners) {
			page.Next = fmt.Sprint(at + 1)
		}
		return page, nil
	}
}

func TestLearnersAsCSV(t *testing.T) {
	t.Parallel()
	h := newHouse()
	h.learners = pages(
		issue.LearnerProgress{Learner: "u0", State: "notified", Attempts: 1, CertificateID: "c0", Revision: 2, UpdatedAt: h.now},
		issue.LearnerProgress{Learner: "-u1", State: "failed", Message: `=HYPERLINK("http://x","a, b")`},
		issue.LearnerProgress{Learner: "u2", State: "skipped", Message: "two\nlines"},
	)
	w := h.do(httpGet(jobPath+"/learners", "Accept", "text/csv;q=0.9, */*"))
	require.Equal(t, http.StatusOK, w.Code)
	assert.True(t, strings.HasPrefix(w.Header().Get("Content-Type"), "text/csv"))
	rows, err := csv.NewReader(w.Body).ReadAll()
	require.NoError(t, err)
	assert.Equal(t, [][]string{
		csvHeader,
		{"u0", "", "notified", "", "1", "", "", "c0", "2", "2023-09-08T10:05:45.247Z", ""},
		{"'-u1", "", "failed", "", "", "", `'=HYPERLINK("http://x","a, b")`, "", "", "", ""},
		{"u2", "", "skipped", "", "", "", "two\nlines", "", "", "", ""},
	}, rows)
}

// A CSV that cannot be finished must not look finished.
func TestBrokenCSV(t *testing.T) {
	t.Parallel()
	tests := map[string]func(q issue.LearnerQuery) (issue.LearnerPage, error){
		"error after a page": func(q issue.LearnerQuery) (issue.LearnerPage, error) {
			if q.Cursor != "" {
				return issue.LearnerPage{}, issue.ErrUnavailable
			}
			return issue.LearnerPage{Next: "1"}, nil
		},
		"page that leads to itself": func(issue.LearnerQuery) (issue.LearnerPage, error) { return issue.LearnerPage{Next: "1"}, nil },
	}
	for name, learners := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			h.learners = func(_ context.Context, q issue.LearnerQuery) (issue.LearnerPage, error) { return learners(q) }
			assert.PanicsWithValue(t, http.ErrAbortHandler, func() { h.do(httpGet(jobPath+"/learners", "Accept", "text/csv")) })
			require.Equal(t, 1, h.log.Len(), "the line is written nevertheless")
			assert.Contains(t, h.log.All()[0].ContextMap(), "error")
		})
	}
	h := newHouse()
	h.learners = func(context.Context, issue.LearnerQuery) (issue.LearnerPage, error) {
		return issue.LearnerPage{}, issue.ErrUnavailable
	}
	w := h.do(httpGet(jobPath+"/learners", "Accept", "text/csv"))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code, "an error of the first page is answered")
	enveloped(t, w)
}

func TestAccept(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]bool{
		"": false, "text/csv": true, "TEXT/CSV; charset=utf-8": true, "application/json, text/csv": false,
		"*/*": false, "text/html, text/csv": true,
	} {
		assert.Equal(t, want, wantsCSV(httpGet("/", "Accept", accept)), accept)
	}
}
