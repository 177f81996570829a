package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func TestEveryAliasIssues(t *testing.T) {
	t.Parallel()
	for _, path := range issuePatterns {
		for _, path := range []string{path, path + "/", path + "?x=1"} {
			t.Run(path, func(t *testing.T) {
				t.Parallel()
				h := newHouse()
				w := h.do(post(path, goodBody))
				require.Equal(t, http.StatusOK, w.Code)
				a := enveloped(t, w)
				assert.Equal(t, "api.course.batch.cert.issue", a.ID)
				assert.Equal(t, "v1", a.Ver)
				require.Len(t, h.asked, 1)
			})
		}
	}
}

func TestIssueRefusals(t *testing.T) {
	t.Parallel()
	in := func(members string) string { return `{"request":{"courseId":"c","batchId":"b",` + members + `}}` }
	const (
		bad     = "Requested data for this operation is not valid."
		course  = "Mandatory parameter courseId/collectionId is missing."
		batch   = "Mandatory parameter batchId is missing."
		invalid = "Invalid value %s for parameter %s. Please provide a valid value."
	)
	value := func(v, parameter string) string { return fmt.Sprintf(invalid, v, parameter) }
	tests := map[string]struct{ body, code, text string }{
		"empty body":              {``, codeBody, bad},
		"malformed":               {`{"request":`, codeBody, bad},
		"array":                   {`[]`, codeBody, bad},
		"scalar":                  {`1`, codeBody, bad},
		"null":                    {`null`, codeBody, bad},
		"request null":            {`{"request":null}`, codeBody, bad},
		"request text":            {`{"request":"x"}`, codeBody, bad},
		"request list":            {`{"request":[{}]}`, codeBody, bad},
		"trailing data":           {goodBody + `{}`, codeBody, bad},
		"member twice":            {in(`"batchId":"other"`), codeBody, bad},
		"unknown member twice":    {`{"a":1,"a":1,` + goodBody[1:], codeBody, bad},
		"invalid UTF-8":           {in("\"x\":\"\xff\""), codeBody, bad},
		"deep":                    {in(`"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40)), codeBody, bad},
		"very deep":               {strings.Repeat("[", 500_000), codeBody, bad},
		"NaN":                     {in(`"x":NaN`), codeBody, bad},
		"byte order mark":         {"\ufeff" + goodBody, codeBody, bad},
		"no request":              {`{}`, codeMissing, course},
		"empty request":           {`{"request":{}}`, codeMissing, course},
		"course before batch":     {`{"request":{"filters":1}}`, codeMissing, course},
		"ids beside request":      {`{"courseId":"c","batchId":"b"}`, codeMissing, course},
		"course blank":            {`{"request":{"courseId":" \t","batchId":"b"}}`, codeMissing, course},
		"both courses null":       {`{"request":{"courseId":null,"collectionId":null,"batchId":"b"}}`, codeMissing, course},
		"batch missing":           {`{"request":{"courseId":"c","userIds":[]}}`, codeMissing, batch},
		"batch null":              {`{"request":{"courseId":"c","batchId":null}}`, codeMissing, batch},
		"batch blank":             {`{"request":{"courseId":"c","batchId":"  "}}`, codeMissing, batch},
		"batch in other case":     {`{"request":{"courseId":"c","batchid":"b"}}`, codeMissing, batch},
		"course number":           {`{"request":{"courseId":1,"batchId":"b"}}`, codeType, "Data type of courseId should be String."},
		"collection list":         {`{"request":{"collectionId":["c"],"batchId":"b"}}`, codeType, "Data type of collectionId should be String."},
		"batch number":            {`{"request":{"courseId":"c","batchId":128821148183429120}}`, codeType, "Data type of batchId should be String."},
		"batch object":            {`{"request":{"courseId":"c","batchId":{}}}`, codeType, "Data type of batchId should be String."},
		"batch with a zero byte":  {`{"request":{"courseId":"c","batchId":"b\u0000"}}`, codeValue, value("b\x00", "batchId")},
		"certificate number":      {in(`"certificate":7`), codeType, "Data type of certificate should be String."},
		"certificate blank":       {in(`"certificate":" "`), codeValue, value(" ", "certificate")},
		"userIds text":            {in(`"userIds":"u"`), codeType, "Data type of userIds should be List."},
		"userIds numbers":         {in(`"userIds":["u",1]`), codeType, "Data type of userIds should be String."},
		"userIds with null":       {in(`"userIds":[null]`), codeType, "Data type of userIds should be String."},
		"userIds empty":           {in(`"userIds":[]`), codeValue, value("[]", "userIds")},
		"userIds blank":           {in(`"userIds":["u"," "]`), codeValue, value(`["u"," "]`, "userIds")},
		"filters text":            {in(`"filters":"x"`), codeValue, value("x", "filters")},
		"filters list":            {in(`"filters":[]`), codeValue, value("[]", "filters")},
		"unknown filter":          {in(`"filters":{"state":2}`), codeValue, value("2", "filters.state")},
		"status text":             {in(`"filters":{"status":"done"}`), codeValue, value("done", "filters.status")},
		"status fraction":         {in(`"filters":{"status":1.5}`), codeValue, value("1.5", "filters.status")},
		"status unknown":          {in(`"filters":{"status":[2,3]}`), codeValue, value("[2,3]", "filters.status")},
		"status huge":             {in(`"filters":{"status":99999999999999999999}`), codeValue, value("99999999999999999999", "filters.status")},
		"status null":             {in(`"filters":{"status":null}`), codeValue, value("null", "filters.status")},
		"status empty list":       {in(`"filters":{"status":[]}`), codeValue, value("[]", "filters.status")},
		"status range":            {in(`"filters":{"status":{">":1}}`), codeValue, value(`{">":1}`, "filters.status")},
		"userId number":           {in(`"filters":{"userId":1}`), codeValue, value("1", "filters.userId")},
		"userIds in filter empty": {in(`"filters":{"userIds":[]}`), codeValue, value("[]", "filters.userIds")},
		"nobody in both":          {in(`"userIds":["u"],"filters":{"userId":"v"}`), codeValue, value("v", "filters.userId")},
		"date in seconds":         {in(`"filters":{"completedOn":{">":1694131200}}`), codeValue, value(`{">":1694131200}`, "filters.completedOn")},
		"date words":              {in(`"filters":{"completedOn":"yesterday"}`), codeValue, value("yesterday", "filters.completedOn")},
		"date list":               {in(`"filters":{"completedOn":["2023-09-08"]}`), codeValue, value(`["2023-09-08"]`, "filters.completedOn")},
		"date operator":           {in(`"filters":{"completedOn":{"=":"2023-09-08"}}`), codeValue, value(`{"=":"2023-09-08"}`, "filters.completedOn")},
		"date without bounds":     {in(`"filters":{"completedOn":{}}`), codeValue, value("{}", "filters.completedOn")},
		"date bool":               {in(`"filters":{"completedOn":true}`), codeValue, value("true", "filters.completedOn")},
		"long value is cut":       {in(`"filters":{"x":"` + strings.Repeat("é", 500) + `"}`), codeValue, value(strings.Repeat("é", 100)+"…", "filters.x")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			w := h.do(post("/issue", test.body))
			assert.Equal(t, http.StatusBadRequest, w.Code)
			a := enveloped(t, w)
			assert.Equal(t, "api.course.batch.cert.issue", a.ID)
			assert.Equal(t, "CLIENT_ERROR", a.ResponseCode)
			assert.Equal(t, test.code, textOf(a.Params.Err))
			assert.Equal(t, test.code, textOf(a.Params.Status))
			assert.Equal(t, test.text, textOf(a.Params.ErrMsg))
			assert.Empty(t, a.Result)
			assert.Empty(t, h.asked, "a refused request reaches nobody")
		})
	}
}

func TestIssueUnderstands(t *testing.T) {
	t.Parallel()
	day := time.Date(2023, 9, 8, 0, 0, 0, 0, time.UTC)
	ms := time.UnixMilli(1694131200123).UTC()
	filter := func(f issue.Filter) issue.Request { return issue.Request{Batch: "b", Course: "c", Filter: f} }
	in := func(members string) string { return `{"request":{"courseId":"c","batchId":"b",` + members + `}}` }
	tests := map[string]struct {
		body string
		want issue.Request
	}{
		"v2.3.5": {
			in(`"certificate":"100PercentCompletionCertificate","filters":{"status":2}`),
			issue.Request{
				Batch: "b", Course: "c", Certificate: "100PercentCompletionCertificate", Filter: issue.Filter{Statuses: []int{2}},
			},
		},
		"today": {
			`{"id":"x","ver":"v1","ts":1,"params":{},"request":{"courseId":"c","batchId":"b","userIds":["u2","u1","u2"],"createdBy":"x","reIssue":true}}`,
			filter(issue.Filter{Learners: []issue.LearnerID{"u1", "u2"}}),
		},
		"collection":                {`{"request":{"collectionId":"c","batchId":"b"}}`, filter(issue.Filter{})},
		"null course":               {`{"request":{"courseId":null,"collectionId":"c","batchId":"b"}}`, filter(issue.Filter{})},
		"course wins":               {`{"request":{"courseId":"c","collectionId":"d","batchId":"b"}}`, filter(issue.Filter{})},
		"optional members null":     {in(`"certificate":null,"filters":null,"userIds":null`), filter(issue.Filter{})},
		"no filters":                {in(`"filters":{}`), filter(issue.Filter{})},
		"status list of both kinds": {in(`"filters":{"status":["2",1,2]}`), filter(issue.Filter{Statuses: []int{1, 2}})},
		"learners as one":           {in(`"filters":{"userId":"u"}`), filter(issue.Filter{Learners: []issue.LearnerID{"u"}})},
		"both hold": {
			in(`"userIds":["u1","u2","u3"],"filters":{"userIds":["u3","u2","u4"],"userId":["u3","u9"]}`),
			filter(issue.Filter{Learners: []issue.LearnerID{"u3"}}),
		},
		"exact number": {
			in(`"filters":{"completedOn":1694131200123}`),
			filter(issue.Filter{CompletedFrom: ms, CompletedTo: ms.Add(time.Millisecond)}),
		},
		"exact day": {
			in(`"filters":{"completedOn":"2023-09-08"}`),
			filter(issue.Filter{CompletedFrom: day, CompletedTo: day.AddDate(0, 0, 1)}),
		},
		"inclusive range": {
			in(`"filters":{"completedOn":{">=":"1694131200123","<=":"2023-09-08"}}`),
			filter(issue.Filter{CompletedFrom: ms, CompletedTo: day.AddDate(0, 0, 1)}),
		},
		"exclusive range": {
			in(`"filters":{"completedOn":{">":1694131200123,"<":"2023-09-08 00:00:00:000+0000"}}`),
			filter(issue.Filter{CompletedFrom: ms.Add(time.Millisecond), CompletedTo: day}),
		},
		"narrowest bounds win": {
			in(`"filters":{"completedOn":{">":"2023-09-07",">=":1694131200123,"<":"2023-09-10","<=":"2023-09-08"}}`),
			filter(issue.Filter{CompletedFrom: ms, CompletedTo: day.AddDate(0, 0, 1)}),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			w := h.do(post("/issue", test.body))
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			require.Len(t, h.asked, 1)
			got := h.asked[0]
			assert.Len(t, got.Fingerprint, 64)
			got.Fingerprint = ""
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReIssueIsAQuestionOfTheQuery(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{
		"": false, "?reIssue=true": true, "?reIssue=TRUE": true, "?reIssue=1": false, "?reissue=true": false,
		"?reIssue=true&reIssue=false": true, "?reIssue=false&reIssue=true": false, "?dryRun=false&reIssue=true": true,
	}
	for query, want := range tests {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			require.Equal(t, http.StatusOK, h.do(post("/issue"+query, goodBody)).Code)
			assert.Equal(t, want, h.asked[0].ReIssue)
		})
	}
}

func TestDryRunNeverIssues(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"dryRun=true", "dryRun=1", "dryRun", "DRYRUN=TRUE"} {
		h := newHouse()
		w := h.do(post("/issue?"+query, goodBody))
		assert.Equal(t, http.StatusBadRequest, w.Code)
		assert.Equal(t, codeValue, textOf(enveloped(t, w).Params.Err))
		assert.Empty(t, h.asked)
	}
}

func TestRefusalsOfTheAccepter(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err                         error
		status                      int
		responseCode, code, errText string
	}{
		"certificate": {
			issue.InvalidValueError{Parameter: "certificate", Value: "Gold"},
			400, "CLIENT_ERROR", codeValue,
			"Invalid value Gold for parameter certificate. Please provide a valid value.",
		},
		"key reused": {
			fmt.Errorf("write: %w", issue.ErrKeyReused), 409, "CLIENT_ERROR", codeConflict, issue.ErrKeyReused.Error(),
		},
		"unknown": {io.ErrUnexpectedEOF, 500, "SERVER_ERROR", codeInternal, "Process failed,please try again later."},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			h.refuse(test.err)
			w := h.do(post("/issue", goodBody))
			a := enveloped(t, w)
			assert.Equal(t, test.status, w.Code)
			assert.Equal(t, test.responseCode, a.ResponseCode)
			assert.Equal(t, test.code, textOf(a.Params.Err))
			assert.Equal(t, test.code, textOf(a.Params.Status))
			assert.Equal(t, test.errText, textOf(a.Params.ErrMsg))
		})
	}
}

func TestCallerWhoLeavesIsNoErrorOfOurs(t *testing.T) {
	t.Parallel()
	h := newHouse()
	ctx, cancel := context.WithCancel(t.Context())
	h.accept = func(ctx context.Context, _ issue.Request) (issue.Acceptance, error) {
		cancel()
		return issue.Acceptance{}, fmt.Errorf("%w: %w", issue.ErrUnavailable, ctx.Err())
	}
	require.Equal(t, statusGone, h.do(post("/issue", goodBody).WithContext(ctx)).Code)
}

func TestContentTypes(t *testing.T) {
	t.Parallel()
	tests := map[string]int{
		"application/json": 200, "application/json; charset=utf-8": 200, "Application/JSON;charset=UTF-8": 200,
		"": 400, "text/json": 400, "text/plain": 400, "application/jsonp": 400, "application/x-www-form-urlencoded": 400, ";": 400,
	}
	for contentType, want := range tests {
		t.Run(contentType, func(t *testing.T) {
			t.Parallel()
			w := newHouse().do(post("/issue", goodBody, "Content-Type", contentType))
			assert.Equal(t, want, w.Code)
			enveloped(t, w)
		})
	}
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		key    string
		status int
	}{
		"uuid":     {"8d2f0e4e-53b1-4f0e-b3f8-0b52b8a83cf1", 200},
		"longest":  {strings.Repeat("é", 255), 200},
		"too long": {strings.Repeat("k", 256), 400},
		"control":  {"a\x01b", 400},
		"not text": {"a\xffb", 400},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			w := h.do(post("/issue", goodBody, "Idempotency-Key", test.key))
			require.Equal(t, test.status, w.Code)
			enveloped(t, w)
			if test.status == http.StatusOK {
				assert.Equal(t, test.key, h.asked[0].IdempotencyKey)
			}
		})
	}
}

func TestFingerprintIsOfTheMeaning(t *testing.T) {
	t.Parallel()
	of := func(query, members string) string {
		h := newHouse()
		w := h.do(post("/issue"+query, `{"request":{"courseId":"c","batchId":"b"`+members+`}}`))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		return h.asked[0].Fingerprint
	}
	plain := of("", "")
	assert.Equal(t, plain, of("?reIssue=false", ` , "filters" : {"status":["2",2]}, "createdBy":"x"`))
	assert.Equal(t, of("", `,"userIds":["u","v"]`), of("", `,"filters":{"userIds":["v","u","v"]}`))
	others := map[string]bool{plain: true}
	for _, other := range []string{
		of("?reIssue=true", ""), of("", `,"certificate":"A"`), of("", `,"filters":{"status":1}`),
		of("", `,"userIds":["u"]`), of("", `,"filters":{"completedOn":{">":"2023-09-08"}}`),
	} {
		assert.False(t, others[other])
		others[other] = true
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	h := newHouse()
	h.cfg.MaxBody = 100
	w := h.do(post("/issue", goodBody+strings.Repeat(" ", 100-len(goodBody))))
	require.Equal(t, http.StatusOK, w.Code)
	h = newHouse()
	h.cfg.MaxBody = 100
	w = h.do(post("/issue", goodBody+strings.Repeat(" ", 101-len(goodBody))))
	require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
	a := enveloped(t, w)
	assert.Equal(t, "REQUEST_TOO_LARGE", textOf(a.Params.Err))
	assert.Equal(t, "Request body is larger than 100 bytes.", textOf(a.Params.ErrMsg))
	assert.Equal(t, "CLIENT_ERROR", a.ResponseCode)
}

func TestTraceParent(t *testing.T) {
	t.Parallel()
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tests := map[string]string{
		good: good, "": "", "00-xyz": "", good + "-more": "",
		"ff" + good[2:]: "", strings.ToUpper(good): "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": "",
	}
	for sent, want := range tests {
		h := newHouse()
		h.do(post("/issue", goodBody, "traceparent", sent))
		assert.Equal(t, want, h.asked[0].TraceParent, sent)
	}
}

func httpGet(path string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}
