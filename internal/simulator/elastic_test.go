package simulator

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// esAnswer is what the tests read of a search's answer.
type esAnswer struct {
	Hits struct {
		Total *hitTotal
		Hits  []struct {
			ID     string         `json:"_id"`
			Source map[string]any `json:"_source"`
			Sort   []any          `json:"sort"`
		}
	}
	Aggregations map[string]json.RawMessage
	Count        int
	Error        struct{ Type, Reason string }
}

func (a *esAnswer) users() []string {
	out := []string{}
	for _, h := range a.Hits.Hits {
		out = append(out, fmt.Sprint(h.Source["userId"]))
	}
	return out
}

func es(tb testing.TB, p *Platform, path, body string) (int, esAnswer) {
	tb.Helper()
	status, raw := call(tb, "POST", p.URLs().Elasticsearch+path, body)
	var answer esAnswer
	require.NoError(tb, json.Unmarshal(raw, &answer), string(raw))
	return status, answer
}

var smallBatch = Dataset{
	Batches: []Batch{{ID: "0127", CourseID: "do_1", Name: "Batch one", Status: 1, CreatedBy: "u9", Mentors: []string{"u8"}}},
	Enrolments: []Enrolment{
		{BatchID: "0127", UserID: "u4", CourseID: "do_1", Active: true, Status: 2, CompletedOn: "1566362096000", Certificates: []EnrolmentCertificate{{Name: "A", Token: "T"}}},
		{BatchID: "0127", UserID: "u1", CourseID: "do_1", Active: true, Status: 2, CompletedOn: "1566362095000"},
		{BatchID: "0127", UserID: "u2", CourseID: "do_1", Active: false, Status: 2, CompletedOn: "2019-08-21"},
		{BatchID: "0127", UserID: "u3", CourseID: "do_1", Active: true, Status: 1},
		{BatchID: "0128", UserID: "u1", CourseID: "do_2", Active: true, Status: 0},
		{BatchID: "ABC", UserID: "U7", CourseID: "do_3", Active: true, Status: 2, CompletedOn: "1566362095000"},
	},
}

func TestQueries(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(smallBatch))
	inBatch := func(more string) string {
		return `{"bool":{"must":[{"term":{"batchId.raw":"0127"}}` + more + `]}}`
	}
	rows := []struct {
		name, query string
		want        []string
	}{
		{"everything", `{"match_all":{}}`, []string{"u1", "u1", "u2", "u3", "u4", "U7"}},
		{"nothing", `{"match_none":{}}`, []string{}},
		{"a batch", inBatch(``), []string{"u1", "u2", "u3", "u4"}},
		{"one clause in place of a list", `{"bool":{"filter":{"term":{"batchId.raw":{"value":"0128"}}}}}`, []string{"u1"}},
		{"active", inBatch(`,{"term":{"active":true}}`), []string{"u1", "u3", "u4"}},
		{"active as text, .raw", inBatch(`,{"term":{"active.raw":"true"}}`), []string{"u1", "u3", "u4"}},
		{"status", inBatch(`,{"term":{"status":2}}`), []string{"u1", "u2", "u4"}},
		{"status as text, .raw", inBatch(`,{"terms":{"status.raw":["1","0"]}}`), []string{"u3"}},
		{"status over", inBatch(`,{"range":{"status":{"gte":1,"lt":2}}}`), []string{"u3"}},
		{"users", inBatch(`,{"terms":{"userId.raw":["u4","u9","u1","u1"]}}`), []string{"u1", "u4"}},
		{"course", `{"term":{"courseId.raw":"do_2"}}`, []string{"u1"}},
		{".raw is lower case: so found", `{"term":{"batchId.raw":"abc"}}`, []string{"U7"}},
		{"completed", inBatch(`,{"exists":{"field":"completedOn"}}`), []string{"u1", "u2", "u4"}},
		{"not completed", `{"bool":{"must":{"term":{"batchId.raw":"0127"}},"must_not":{"exists":{"field":"completedOn.raw"}}}}`, []string{"u3"}},
		{"epoch milliseconds", inBatch(`,{"regexp":{"completedOn.raw":"[0-9]{13}"}}`), []string{"u1", "u4"}},
		{"regexp is anchored", inBatch(`,{"regexp":{"completedOn.raw":{"value":"[0-9]{12}"}}}`), []string{}},
		{"range is of text", inBatch(`,{"range":{"completedOn.raw":{"gt":"1566362095000","lte":"1566362096000"}}}`), []string{"u4"}},
		{"prefix", inBatch(`,{"prefix":{"completedOn.raw":"2019-"}}`), []string{"u2"}},
		{"certified", `{"nested":{"path":"certificates","query":{"exists":{"field":"certificates.name"}}}}`, []string{"u4"}},
		{"nested members are not there outside nested", `{"exists":{"field":"certificates.name"}}`, []string{}},
		{"should", `{"bool":{"should":[{"term":{"userId.raw":"u2"}},{"term":{"userId.raw":"u3"}}]}}`, []string{"u2", "u3"}},
		{"unmapped", inBatch(`,{"term":{"shoeSize":9}}`), []string{}},
		{"ids", `{"ids":{"values":["0127_u3","0127_x"]}}`, []string{"u3"}},
		{"constant score", `{"constant_score":{"filter":{"term":{"userId.raw":"u2"}}}}`, []string{"u2"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			status, answer := es(t, p, "/user-courses/_search", `{"query":`+row.query+`,"sort":[{"userId.raw":"asc"},{"_id":{"order":"asc"}}]}`)
			require.Equal(t, 200, status, answer.Error)
			require.Equal(t, row.want, answer.users())
			require.Equal(t, &hitTotal{len(row.want), "eq"}, answer.Hits.Total)
			_, counted := es(t, p, "/user-courses/_count", `{"query":`+row.query+`}`)
			require.Equal(t, len(row.want), counted.Count)
		})
	}
}

func TestSearchesThatAreRefused(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(smallBatch))
	rows := []struct{ name, body, kind, reason string }{
		{"unknown query", `{"query":{"fuzzy":{"userId":"u"}}}`, "parsing_exception", "unknown query [fuzzy]"},
		{"unknown query within", `{"query":{"bool":{"filter":[{"term":{"status":2}},{"geo":{}}]}}}`, "parsing_exception", "unknown query [geo]"},
		{"two queries", `{"query":{"match_all":{},"match_none":{}}}`, "parsing_exception", "found [2]"},
		{"unknown member of bool", `{"query":{"bool":{"most":[]}}}`, "parsing_exception", "[bool] query does not support [most]"},
		{"unknown key", `{"collapse":{}}`, "parsing_exception", "collapse"},
		{"term of two fields", `{"query":{"term":{"status":1,"active":true}}}`, "parsing_exception", "multiple fields"},
		{"number expected", `{"query":{"term":{"status":"x"}}}`, "query_shard_exception", `For input string: "x"`},
		{"analysed field", `{"query":{"term":{"batchId":"0127"}}}`, "parsing_exception", "batchId.raw"},
		{"window", `{"size":10001}`, "search_phase_execution_exception", "all shards failed"},
		{"window with from", `{"from":9999,"size":2}`, "search_phase_execution_exception", "all shards failed"},
		{"sort on text", `{"sort":["userId"]}`, "illegal_argument_exception", "Text fields are not optimised"},
		{"sort on nothing", `{"sort":["shoeSize"]}`, "query_shard_exception", "No mapping found for [shoeSize]"},
		{"search_after without sort", `{"search_after":["u1"]}`, "illegal_argument_exception", "search_after has 1 value(s) but sort has 0."},
		{"unknown aggregation", `{"aggs":{"a":{"cardinality":{"field":"userId.raw"}}}}`, "parsing_exception", "Unknown aggregation type [cardinality]"},
		{"nested path", `{"query":{"nested":{"path":"x","query":{"match_all":{}}}}}`, "query_shard_exception", "under path [x]"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			status, answer := es(t, p, "/user-courses/_search", row.body)
			require.Equal(t, 400, status)
			require.Equal(t, row.kind, answer.Error.Type)
			require.Contains(t, answer.Error.Reason, row.reason)
		})
	}
	status, answer := es(t, p, "/user-courses/_search?foo=1", `{}`)
	require.Equal(t, 400, status)
	require.Contains(t, answer.Error.Reason, "unrecognized parameter: [foo]")
	status, answer = es(t, p, "/nothing/_search", `{}`)
	require.Equal(t, 404, status)
	require.Equal(t, "index_not_found_exception", answer.Error.Type)
}

func TestPagingYieldsEverybodyOnce(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(DemoDataset(p.URLs().Files)))
	seen, after, pages := map[string]bool{}, "", 0
	for {
		status, answer := es(t, p, "/user-courses/_search", `{"size":1000,"_source":["userId","completedOn"],"track_total_hits":true,`+after+
			`"query":{"bool":{"filter":[{"term":{"batchId.raw":"`+LargeBatch+`"}},{"term":{"active":true}},{"term":{"status":2}}]}},"sort":[{"userId.raw":"asc"}]}`)
		require.Equal(t, 200, status)
		require.Equal(t, &hitTotal{LargeBatchSize, "eq"}, answer.Hits.Total)
		if len(answer.Hits.Hits) == 0 {
			break
		}
		pages++
		for _, h := range answer.Hits.Hits {
			require.Len(t, h.Source, 2)
			require.False(t, seen[h.ID], "twice")
			seen[h.ID] = true
			after = fmt.Sprintf(`"search_after":[%q],`, h.Sort[0])
		}
	}
	require.Equal(t, 25, pages)
	require.Len(t, seen, LargeBatchSize)
}

func TestTotalsSortsAndAggregations(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(DemoDataset(p.URLs().Files)))
	large := `"query":{"term":{"batchId.raw":"` + LargeBatch + `"}}`
	_, answer := es(t, p, "/user-courses/_search?size=0", `{`+large+`}`)
	require.Equal(t, &hitTotal{10_000, "gte"}, answer.Hits.Total)
	_, answer = es(t, p, "/user-courses/_search", `{"size":0,"track_total_hits":false,`+large+`}`)
	require.Nil(t, answer.Hits.Total)
	_, answer = es(t, p, "/user-courses/_search", `{"size":0,"query":{"term":{"batchId.raw":"`+DemoBatch+`"}},"aggs":{`+
		`"kinds":{"filters":{"filters":{"inactive":{"term":{"active":false}},"done":{"term":{"status":2}}}}},`+
		`"certified":{"filter":{"nested":{"path":"certificates","query":{"exists":{"field":"certificates.name"}}}},"aggs":{"again":{"filter":{"match_all":{}}}}}}}`)
	require.JSONEq(t, `{"buckets":{"done":{"doc_count":510},"inactive":{"doc_count":24}}}`, string(answer.Aggregations["kinds"]))
	require.JSONEq(t, `{"doc_count":2,"again":{"doc_count":2}}`, string(answer.Aggregations["certified"]))
	_, answer = es(t, p, "/user-courses/_search", `{"size":3,"query":{"term":{"batchId.raw":"`+RoughBatch+`"}},"sort":[{"completedOn.raw":"desc"},"userId.raw"]}`)
	require.Equal(t, "sometime in august", answer.Hits.Hits[0].Sort[0])
	_, answer = es(t, p, "/course-batch/_search", `{"query":{"term":{"courseId.raw":"`+DemoCourse+`"}},"sort":[{"status":"desc"}]}`)
	require.Len(t, answer.Hits.Hits, 2)
	require.Equal(t, DemoBatch, answer.Hits.Hits[0].ID)
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(smallBatch))
	base := p.URLs().Elasticsearch
	status, body := call(t, "GET", base+"/course-batch/_doc/0127", nil)
	require.Equal(t, 200, status)
	require.Contains(t, string(body), `"found":true,"_source":{"batchId":"0127","courseId":"do_1"`)
	status, body = call(t, "GET", base+"/course-batch/_doc/9", nil)
	require.Equal(t, 404, status)
	require.JSONEq(t, `{"_index":"course-batch","_type":"_doc","_id":"9","found":false}`, string(body))

	update := base + "/user-courses/_update/0127_u1"
	status, body = call(t, "POST", update+"?if_seq_no=0&if_primary_term=1", `{"doc":{"certificates":[{"name":"A","id":"c1"}],"note":"kept"}}`)
	require.Equal(t, 200, status, string(body))
	status, _ = call(t, "POST", update+"?if_seq_no=0&if_primary_term=1", `{"doc":{"status":1}}`)
	require.Equal(t, 409, status, "somebody wrote in between")
	status, _ = call(t, "POST", base+"/user-courses/_update/0127_u99", `{"doc":{"status":1}}`)
	require.Equal(t, 404, status)
	require.NoError(t, p.Load(smallBatch), "what was written stays written")
	_, body = call(t, "GET", base+"/user-courses/_doc/0127_u1", nil)
	require.Contains(t, string(body), `"certificates":[{"name":"A","id":"c1"}]`)
	require.Contains(t, string(body), `"note":"kept"`)
}

func TestClusterAnswers(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	for path, want := range map[string]int{"/": 200, "/_cluster/health": 200, "/user-courses": 200, "/nothing": 404, "/user-courses/_mget": 400} {
		status, body := call(t, "GET", p.URLs().Elasticsearch+path, nil)
		require.Equal(t, want, status, path)
		require.NotEmpty(t, body)
	}
	status, header, err := fetch(t, "HEAD", p.URLs().Elasticsearch+"/course-batch")
	require.NoError(t, err)
	require.Equal(t, 200, status)
	require.Equal(t, "Elasticsearch", header.Get("X-Elastic-Product"))
}
