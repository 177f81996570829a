package elasticsearch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ecreds/issuer/internal/enrolment/elasticsearch"
	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/parts"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(parts.StopAfter(m)) }

const batch issue.BatchID = "0128821148183429120B"

func newClient(t *testing.T, url string) *elasticsearch.Client {
	t.Helper()
	client, err := elasticsearch.New(elasticsearch.Config{URL: url, HTTP: sunbirdtest.HTTPClient(t)})
	require.NoError(t, err)
	return client
}

const (
	counted = `{"took":1,"timed_out":false,"_shards":{"total":5,"successful":5,"skipped":0,"failed":0},
		"hits":{"total":{"value":10,"relation":"eq"},"hits":[]},"aggregations":{"learners":{"buckets":{
		"inactive":{"doc_count":1},"status":{"doc_count":2},"no_completion_date":{"doc_count":3},"eligible":{"doc_count":4},
		"odd_dates":{"doc_count":%d},"held":{"doc_count":%d}}}}}`
	// found takes hits.
	found = `{"took":1,"timed_out":false,"_shards":{"total":5,"successful":5,"skipped":0,"failed":0},"hits":{"hits":[%s]}}`
)

// TestSearchBodies holds what is asked.
func TestSearchBodies(t *testing.T) {
	t.Parallel()
	some := issue.Filter{Statuses: []int{1, 2}, Learners: []issue.LearnerID{"U1", "u2", "u1"}}
	for name, ask := range map[string]func(ctx context.Context, c *elasticsearch.Client) error{
		"count": func(ctx context.Context, c *elasticsearch.Client) error {
			_, err := c.Count(ctx, batch, issue.Filter{}, []string{"c"})
			return err
		},
		"count-some": func(ctx context.Context, c *elasticsearch.Client) error {
			_, err := c.Count(ctx, batch, some, nil)
			return err
		},
		"page": func(ctx context.Context, c *elasticsearch.Client) error {
			_, err := c.Page(ctx, batch, issue.Filter{}, "", 500)
			return err
		},
		"page-some": func(ctx context.Context, c *elasticsearch.Client) error {
			_, err := c.Page(ctx, batch, some, "u<1>", 2)
			return err
		},
		"learner": func(ctx context.Context, c *elasticsearch.Client) error {
			_, _, err := c.Learner(ctx, batch, "U1")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, fmt.Sprintf(counted, 0, 0)))
			require.NoError(t, ask(t.Context(), newClient(t, server.URL)))
			requests := server.Requests()
			require.Len(t, requests, 1)
			assert.Equal(t, "POST", requests[0].Method)
			assert.Equal(t, "/user-courses/_search", requests[0].URI)
			sunbirdtest.Golden(t, name+".json", []byte(requests[0].Body))
		})
	}
}

func TestIndexNames(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, fmt.Sprintf(counted, 0, 0)))
	client, err := elasticsearch.New(elasticsearch.Config{
		URL: server.URL + "/es/", HTTP: sunbirdtest.HTTPClient(t), UserCourses: "enrolments-v2", CourseBatch: "batches/x",
	})
	require.NoError(t, err)
	_, _, err = client.Learner(t.Context(), batch, "u1")
	require.NoError(t, err)
	_, _, _ = client.Batch(t.Context(), "0128821148183429120")
	assert.Equal(t, "/es/enrolments-v2/_search", server.Requests()[0].URI)
	assert.Equal(t, "/es/batches%2Fx/_doc/0128821148183429120", server.Requests()[1].URI)
}

// TestAnIDThatIsNoneIsNoBatch: the index would refuse such an address, which
// must not look like the index being away.
func TestAnIDThatIsNoneIsNoBatch(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(400, `{}`))
	client, err := elasticsearch.New(elasticsearch.Config{URL: server.URL, HTTP: sunbirdtest.HTTPClient(t)})
	require.NoError(t, err)
	for _, id := range []issue.BatchID{"", "a/b", "..", ".", "/", "./x", "a?b", "a#b", "a b"} {
		_, found, err := client.Batch(t.Context(), id)
		require.NoError(t, err, id)
		require.False(t, found, id)
	}
	require.Empty(t, server.Requests())
}

func TestCount(t *testing.T) {
	t.Parallel()
	dated := issue.Filter{CompletedFrom: time.Unix(0, 0)}
	for name, tt := range map[string]struct {
		odd, held   int
		filter      issue.Filter
		estimate    bool
		notEnrolled int
	}{
		"exact":            {},
		"odd dates":        {odd: 1, estimate: true},
		"held":             {held: 1, estimate: true},
		"dates asked for":  {filter: dated, estimate: true},
		"learners asked":   {filter: issue.Filter{Learners: numbered(13)}, notEnrolled: 3},
		"asked twice":      {filter: issue.Filter{Learners: append(numbered(12), numbered(12)...)}, notEnrolled: 2},
		"fewer than found": {filter: issue.Filter{Learners: numbered(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, fmt.Sprintf(counted, tt.odd, tt.held)))
			got, err := newClient(t, server.URL).Count(t.Context(), batch, tt.filter, nil)
			require.NoError(t, err)
			assert.Equal(t, issue.EligibleCount{Eligible: 4, Estimate: tt.estimate, Skipped: map[issue.SkipReason]int{
				issue.SkipAlreadyIssued: 0, issue.SkipInactive: 1, issue.SkipStatus: 2, issue.SkipNoCompletionDate: 3,
				issue.SkipBadCompletionDate: 0, issue.SkipFiltered: 0, issue.SkipCriteria: 0,
				issue.SkipNotEnrolled: tt.notEnrolled,
			}}, got)
		})
	}
}

func TestCountBeforeVersion7(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, `{"_shards":{"total":5,"successful":5,"failed":0},"hits":{"total":10,"hits":[]},
		"aggregations":{"learners":{"buckets":{"inactive":{"doc_count":0},"status":{"doc_count":0},"no_completion_date":{"doc_count":0},
		"eligible":{"doc_count":10},"odd_dates":{"doc_count":0},"held":{"doc_count":0}}}}}`))
	got, err := newClient(t, server.URL).Count(t.Context(), batch, issue.Filter{Learners: numbered(12)}, nil)
	require.NoError(t, err)
	assert.Equal(t, 10, got.Eligible)
	assert.Equal(t, 2, got.Skipped[issue.SkipNotEnrolled])
}

func numbered(n int) []issue.LearnerID {
	learners := make([]issue.LearnerID, n)
	for i := range learners {
		learners[i] = issue.LearnerID(fmt.Sprintf("u%05d", i))
	}
	return learners
}

func TestTooManyLearners(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, fmt.Sprintf(counted, 0, 0)))
	client := newClient(t, server.URL)
	many := issue.Filter{Learners: numbered(elasticsearch.MaxLearners + 1)}
	_, err := client.Count(t.Context(), batch, many, nil)
	require.ErrorIs(t, err, elasticsearch.ErrTooManyLearners)
	_, err = client.Page(t.Context(), batch, many, "", 10)
	require.ErrorIs(t, err, elasticsearch.ErrTooManyLearners)
	_, err = client.Count(t.Context(), batch, issue.Filter{Learners: numbered(elasticsearch.MaxLearners)}, nil)
	require.NoError(t, err)
	assert.Len(t, server.Requests(), 1)
}

func TestPage(t *testing.T) {
	t.Parallel()
	hit := func(n int, source string) string {
		return fmt.Sprintf(`{"_id":"b_u%d","_source":%s,"sort":["u%d"]}`, n, source, n)
	}
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, fmt.Sprintf(found,
		hit(1, `{"userId":"U1","active":true,"status":2,"completedOn":"1566368430000","certificates":[{"name":"c","id":"i"},{"name":"d","identifier":"j","id":null},{"token":"t"}]}`)+","+
			hit(2, `{"userId":"u2","active":"true","status":"2","completedOn":1566368430000,"certificates":null}`)+","+
			hit(3, `{"userId":"u3","active":true,"status":2.0,"completedOn":1.56636843E12,"certificates":{"name":"c","id":"i"}}`)+","+
			hit(4, `{"userId":"u4","active":null,"status":null,"completedOn":null}`)+","+
			hit(5, `{"userId":"u5","completedOn":"2019-08-21 06:20:30:000+0000","certificates":[]}`))))
	client := newClient(t, server.URL)
	held := []issue.HeldCertificate{{Name: "c", ID: "i"}}
	want := []issue.Enrolment{
		{Learner: "U1", Active: true, Status: 2, CompletedOn: "1566368430000", Held: append(held, issue.HeldCertificate{Name: "d", ID: "j"})},
		{Learner: "u2", Active: true, Status: 2, CompletedOn: "1566368430000"},
		{Learner: "u3", Active: true, Status: 2, CompletedOn: "1566368430000", Held: held},
		{Learner: "u4", Status: -1},
		{Learner: "u5", Status: -1, CompletedOn: "2019-08-21 06:20:30:000+0000"},
	}
	got, err := client.Page(t.Context(), batch, issue.Filter{}, "", 5)
	require.NoError(t, err)
	assert.Equal(t, issue.EnrolmentPage{Enrolments: want, Next: "u5"}, got, "a full page may have a next one")

	got, err = client.Page(t.Context(), batch, issue.Filter{}, "", 6)
	require.NoError(t, err)
	assert.Equal(t, issue.EnrolmentPage{Enrolments: want}, got, "a page that is not full is the last")

	_, err = client.Page(t.Context(), batch, issue.Filter{}, "", 0)
	require.Error(t, err)
}

func TestPageNamesTheDocumentThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"no userId":        `{"active":true,"status":2}`,
		"userId null":      `{"userId":null}`,
		"no _source":       `null`,
		"_source a text":   `"x"`,
		"certificates odd": `{"userId":"u1","certificates":"many"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, fmt.Sprintf(found, `{"_id":"b_u1","_source":`+source+`,"sort":["u1"]}`)))
			client := newClient(t, server.URL)
			_, err := client.Page(t.Context(), batch, issue.Filter{}, "", 10)
			require.ErrorIs(t, err, issue.ErrUnavailable)
			require.ErrorContains(t, err, "b_u1")
			_, _, err = client.Learner(t.Context(), batch, "u1")
			require.ErrorIs(t, err, issue.ErrUnavailable)
		})
	}
}

func TestLearner(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, fmt.Sprintf(found,
		`{"_id":"b_U1","_source":{"userId":"U1","active":false,"status":1}},{"_id":"b_u1","_source":{"userId":"u1","active":true,"status":2,"completedOn":"1566368430000"}}`)))
	client := newClient(t, server.URL)
	got, ok, err := client.Learner(t.Context(), batch, "u1")
	require.NoError(t, err)
	assert.True(t, ok)
	assert.Equal(t, issue.Enrolment{Learner: "u1", Active: true, Status: 2, CompletedOn: "1566368430000"}, got)

	got, ok, err = client.Learner(t.Context(), batch, "U1")
	require.NoError(t, err)
	assert.True(t, ok, "an inactive enrolment is one")
	assert.Equal(t, issue.Enrolment{Learner: "U1", Status: 1}, got)

	_, ok, err = client.Learner(t.Context(), batch, "somebody")
	require.NoError(t, err)
	assert.False(t, ok)
}

func TestBatch(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body string
		want issue.Batch
	}{
		"full": {
			`{"_id":"b","found":true,"_source":{"batchId":"b","courseId":"do_1","createdBy":"u9","mentors":["m1","m2"],"status":1}}`,
			issue.Batch{Course: "do_1", Creator: "u9", Mentors: []issue.LearnerID{"m1", "m2"}},
		},
		"no mentors":   {`{"found":true,"_source":{"courseId":"do_1","createdBy":null}}`, issue.Batch{Course: "do_1"}},
		"mentors null": {`{"found":true,"_source":{"courseId":"do_1","mentors":null}}`, issue.Batch{Course: "do_1"}},
		"one mentor": {
			`{"found":true,"_source":{"courseId":"do_1","mentors":"m1"}}`,
			issue.Batch{Course: "do_1", Mentors: []issue.LearnerID{"m1"}},
		},
		"mentors of odd types": {`{"found":true,"_source":{"courseId":"do_1","mentors":[null,{},""]}}`, issue.Batch{Course: "do_1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, tt.body))
			got, ok, err := newClient(t, server.URL).Batch(t.Context(), batch)
			require.NoError(t, err)
			assert.True(t, ok)
			tt.want.ID = batch
			assert.Equal(t, tt.want, got)
			assert.Equal(t, "GET", server.Requests()[0].Method)
			assert.Equal(t, "/course-batch/_doc/"+string(batch), server.Requests()[0].URI)
		})
	}
	t.Run("not there", func(t *testing.T) {
		t.Parallel()
		server := sunbirdtest.Serve(t, sunbirdtest.JSON(404, `{"_index":"course-batch","_type":"_doc","_id":"x","found":false}`))
		_, ok, err := newClient(t, server.URL).Batch(t.Context(), batch)
		require.NoError(t, err)
		assert.False(t, ok)
	})
	t.Run("no id", func(t *testing.T) {
		t.Parallel()
		server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, `{}`))
		_, ok, err := newClient(t, server.URL).Batch(t.Context(), "")
		require.NoError(t, err)
		assert.False(t, ok)
		assert.Empty(t, server.Requests())
	})
}

// TestNothingWrongIsNobody: whatever goes wrong is an error that says the source
// is unavailable, for every question; never "nobody", and never permanent.
func TestNothingWrongIsNobody(t *testing.T) {
	t.Parallel()
	missing := `{"error":{"root_cause":[],"type":"index_not_found_exception","reason":"no such index [user-courses]"},"status":404}`
	for name, tt := range map[string]struct {
		reply sunbirdtest.Reply
		says  string
	}{
		"index missing": {sunbirdtest.JSON(404, missing), "no such index [user-courses]"},
		"a page of 404": {sunbirdtest.Reply{Status: 404, Body: "<html><title>Not Found</title></html>"}, "Not Found"},
		"query refused": {sunbirdtest.JSON(400, `{"error":{"type":"query_shard_exception","reason":"No mapping found for [userId.raw]"},"status":400}`), "No mapping"},
		"away":          {sunbirdtest.JSON(503, ``), ""},
		"busy":          {sunbirdtest.JSON(429, `{"error":{"type":"es_rejected_execution_exception","reason":"rejected"}}`), "rejected"},
		"refused us":    {sunbirdtest.JSON(401, ``), ""},
		"closed":        {sunbirdtest.Reply{}, ""},
		"empty 200":     {sunbirdtest.JSON(200, ``), "empty answer"},
		"a page of 200": {sunbirdtest.Reply{Status: 200, Body: "<html></html>"}, "page"},
		"no hits":       {sunbirdtest.JSON(200, `{"timed_out":false}`), ""},
		"timed out":     {sunbirdtest.JSON(200, `{"timed_out":true,"hits":{"hits":[]}}`), ""},
		"shard failed":  {sunbirdtest.JSON(200, `{"timed_out":false,"_shards":{"total":5,"successful":4,"failed":1},"hits":{"hits":[]}}`), ""},
		"shard away":    {sunbirdtest.JSON(200, `{"timed_out":false,"_shards":{"total":5,"successful":4,"failed":0},"hits":{"hits":[]}}`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, sunbirdtest.Serve(t, tt.reply).URL)
			for question, ask := range map[string]func() error{
				"batch": func() error { _, _, err := client.Batch(t.Context(), batch); return err },
				"count": func() error { _, err := client.Count(t.Context(), batch, issue.Filter{}, nil); return err },
				"page":  func() error { _, err := client.Page(t.Context(), batch, issue.Filter{}, "", 10); return err },
				"learner": func() error {
					_, _, err := client.Learner(t.Context(), batch, "u1")
					return err
				},
				"ping": func() error { return client.Ping(t.Context()) },
			} {
				err := ask()
				require.ErrorIs(t, err, issue.ErrUnavailable, question)
				require.ErrorContains(t, err, tt.says, question)
				assert.NotEqual(t, issue.Permanent, issue.AsFailure(err).Verdict, question)
			}
		})
	}
	t.Run("a count without its groups", func(t *testing.T) {
		t.Parallel()
		server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, `{"hits":{"total":{"value":3},"hits":[]}}`))
		_, err := newClient(t, server.URL).Count(t.Context(), batch, issue.Filter{}, nil)
		require.ErrorIs(t, err, issue.ErrUnavailable)
	})
	t.Run("a full page without sort values", func(t *testing.T) {
		t.Parallel()
		server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, fmt.Sprintf(found, `{"_id":"x","_source":{"userId":"u1"}}`)))
		_, err := newClient(t, server.URL).Page(t.Context(), batch, issue.Filter{}, "", 1)
		require.ErrorIs(t, err, issue.ErrUnavailable)
	})
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	client := newClient(t, "http://127.0.0.1:9")
	_, _, err := client.Batch(ctx, batch)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, issue.ErrUnavailable)
	_, err = client.Page(ctx, batch, issue.Filter{}, "", 1)
	require.ErrorIs(t, err, context.Canceled)
}

func FuzzAnswer(f *testing.F) {
	f.Add(`{"userId":"u1","status":2,"completedOn":1e12}`)
	f.Add(`{"userId":1,"completedOn":1e999999999,"certificates":[[]]}`)
	f.Fuzz(func(t *testing.T, source string) {
		if !json.Valid([]byte(source)) {
			t.Skip()
		}
		server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, fmt.Sprintf(found, `{"_id":"x","_source":`+source+`,"sort":["u1"]}`)))
		page, err := newClient(t, server.URL).Page(t.Context(), batch, issue.Filter{}, "", 10)
		if err == nil && (len(page.Enrolments) != 1 || page.Enrolments[0].Learner == "") {
			t.Errorf("%s gave %+v", source, page)
		}
	})
}
