package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	userCourses = "user-courses"
	courseBatch = "course-batch"
	// resultWindow is index.max_result_window.
	resultWindow = 10_000
)

var elasticHeader = http.Header{"X-Elastic-Product": {"Elasticsearch"}}

func elasticReply(status int, v any) reply {
	r := jsonReply(status, v)
	r.contentType = "application/json; charset=UTF-8"
	r.header = elasticHeader
	return r
}

type elasticCause struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
	Index  string `json:"index,omitempty"`
	Line   int    `json:"line,omitempty"`
	Col    int    `json:"col,omitempty"`
}

type elasticFailure struct {
	Error struct {
		RootCause []elasticCause `json:"root_cause"`
		elasticCause
	} `json:"error"`
	Status int `json:"status"`
}

func elasticError(status int, kind, reason string) reply {
	return causeReply(status, elasticCause{Type: kind, Reason: reason})
}

func causeReply(status int, cause elasticCause) reply {
	f := elasticFailure{Status: status}
	f.Error.RootCause, f.Error.elasticCause = []elasticCause{cause}, cause
	return elasticReply(status, f)
}

func refuseQuery(err error) reply {
	var q *queryError
	if !errors.As(err, &q) {
		return elasticError(400, "parse_exception", err.Error())
	}
	cause := elasticCause{Type: q.kind, Reason: q.reason}
	if q.kind == "parsing_exception" {
		cause.Line, cause.Col = 1, 1
	}
	return causeReply(400, cause)
}

// elasticRoute finds the operation of a request to the search engine (7.10 as a plain client sees it).
func (p *Platform) elasticRoute(r *http.Request) route {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/":
		return route{"es_info", fixed(elasticInfo)}
	case parts[0] == "_cluster" && len(parts) == 2 && parts[1] == "health":
		return route{"es_info", fixed(elasticHealth)}
	case len(parts) == 1:
		return route{"es_index", func(*exchange) func() reply { return answer(indexInfo(parts[0])) }}
	case parts[0] != userCourses && parts[0] != courseBatch:
		return route{"es_index", func(*exchange) func() reply { return answer(noSuchIndex(parts[0])) }}
	case len(parts) == 2 && parts[1] == "_search" && r.Method != http.MethodPut:
		return route{"es_search", func(x *exchange) func() reply { return p.esSearch(x, parts[0], false) }}
	case len(parts) == 2 && parts[1] == "_count":
		return route{"es_count", func(x *exchange) func() reply { return p.esSearch(x, parts[0], true) }}
	case len(parts) == 2 && parts[1] == "_refresh":
		return route{"es_info", fixed(reply{status: 200, contentType: jsonType, body: []byte(`{"_shards":{"total":2,"successful":1,"failed":0}}`), header: elasticHeader})}
	case len(parts) == 3 && (parts[1] == "_doc" || parts[1] == "_update"):
		return p.documentRoute(r.Method, parts[0], parts[1], parts[2])
	}
	return route{"unknown", fixed(elasticError(400, "illegal_argument_exception", "no handler found for uri ["+r.URL.RequestURI()+"] and method ["+r.Method+"]"))}
}

func fixed(r reply) operation { return func(*exchange) func() reply { return answer(r) } }

var (
	elasticInfo = elasticReply(200, map[string]any{
		"name": "simulated", "cluster_name": "sunbird", "cluster_uuid": "c2ltdWxhdGVkLXN1bmJpcmQ",
		"version": map[string]any{
			"number": "7.10.2", "build_flavor": "default", "build_type": "tar", "lucene_version": "8.7.0",
			"minimum_wire_compatibility_version": "6.8.0", "minimum_index_compatibility_version": "6.0.0-beta1",
		},
		"tagline": "You Know, for Search",
	})
	elasticHealth = elasticReply(200, map[string]any{
		"cluster_name": "sunbird", "status": "green", "timed_out": false, "number_of_nodes": 1, "number_of_data_nodes": 1,
		"active_primary_shards": 2, "active_shards": 2, "unassigned_shards": 0,
	})
)

func indexInfo(index string) reply {
	if index != userCourses && index != courseBatch {
		return noSuchIndex(index)
	}
	return elasticReply(200, map[string]any{index: map[string]any{"aliases": struct{}{}, "settings": struct{}{}}})
}

func noSuchIndex(index string) reply {
	return causeReply(404, elasticCause{Type: "index_not_found_exception", Reason: "no such index [" + index + "]", Index: index})
}

// searchRequest is the body of a search; a member it lacks is refused.
type searchRequest struct {
	Query       json.RawMessage `json:"query"`
	Size        *int            `json:"size"`
	From        int             `json:"from"`
	Sort        json.RawMessage `json:"sort"`
	SearchAfter []any           `json:"search_after"`
	Source      json.RawMessage `json:"_source"`
	TrackTotal  json.RawMessage `json:"track_total_hits"`
	Aggs        json.RawMessage `json:"aggs"`
	Aggregation json.RawMessage `json:"aggregations"`
	Timeout     string          `json:"timeout"`
	TrackScores bool            `json:"track_scores"`
	Version     bool            `json:"version"`
}

// search is a request made ready.
type search struct {
	searchRequest
	index  string
	query  clause
	sort   []sortKey
	fields sourceFilter
	aggs   map[string]aggregation
}

func (p *Platform) esSearch(x *exchange, index string, countOnly bool) func() reply {
	if len(x.body) > 0 && !x.isJSON() {
		return answer(elasticReply(406, map[string]any{
			"error": "Content-Type header [" + x.r.Header.Get("Content-Type") + "] is not supported", "status": 406,
		}))
	}
	s := &search{index: index}
	if err := s.read(x); err != nil {
		return answer(refuseQuery(err))
	}
	if ids := required(s.query, "batchId"); len(ids) == 1 {
		x.batchID = ids[0]
	}
	if ids := required(s.query, "userId"); len(ids) == 1 {
		x.userID = ids[0]
	}
	if bad := s.window(); bad != nil && !countOnly {
		return answer(*bad)
	}
	return func() reply {
		if countOnly {
			return elasticReply(200, map[string]any{"count": p.search.count(s), "_shards": allShards})
		}
		return p.search.run(s)
	}
}

func (s *search) read(x *exchange) error {
	if len(x.body) > 0 {
		dec := json.NewDecoder(bytes.NewReader(x.body))
		dec.DisallowUnknownFields()
		dec.UseNumber()
		if err := dec.Decode(&s.searchRequest); err != nil {
			return parsing("Unknown key or malformed value in the search: %s", err)
		}
	}
	if err := s.parameters(x.r); err != nil {
		return err
	}
	mapped := &userCoursesMapping
	if s.index == courseBatch {
		mapped = &courseBatchMapping
	}
	c := &compiler{mapped}
	s.query = allClause(true)
	var err error
	if s.Query != nil {
		if s.query, err = c.compile(s.Query); err != nil {
			return err
		}
	}
	if s.sort, err = sortKeys(mapped, s.Sort); err != nil {
		return err
	}
	if s.SearchAfter != nil && len(s.SearchAfter) != len(s.sort) {
		return &queryError{"illegal_argument_exception", "search_after has " + strconv.Itoa(len(s.SearchAfter)) + " value(s) but sort has " + strconv.Itoa(len(s.sort)) + "."}
	}
	if s.fields, err = readSourceFilter(s.Source); err != nil {
		return err
	}
	if s.Aggs == nil {
		s.Aggs = s.Aggregation
	}
	s.aggs, err = c.aggregations(s.Aggs)
	return err
}

// parameters reads the query string; the search engine refuses parameters it does not know.
func (s *search) parameters(r *http.Request) error {
	for name, values := range r.URL.Query() {
		value := values[0]
		switch name {
		case "size", "from":
			n, err := strconv.Atoi(value)
			if err != nil {
				return &queryError{"illegal_argument_exception", "Failed to parse int parameter [" + name + "] with value [" + value + "]"}
			}
			if name == "size" {
				s.Size = &n
			} else {
				s.From = n
			}
		case "track_total_hits":
			s.TrackTotal = json.RawMessage(value)
		case "_source":
			s.Source = encode(strings.Split(value, ","))
		case "ignore_unavailable", "allow_no_indices", "request_cache", "preference", "timeout", "pretty", "routing", "expand_wildcards", "refresh":
		default:
			return &queryError{"illegal_argument_exception", "request [" + r.URL.Path + "] contains unrecognized parameter: [" + name + "]"}
		}
	}
	return nil
}

func (s *search) size() int {
	if s.Size == nil {
		return 10
	}
	return *s.Size
}

// window refuses what goes beyond the result window, as the shards do.
func (s *search) window() *reply {
	var reason string
	switch {
	case s.size() < 0:
		reason = "[size] parameter cannot be negative, found [" + strconv.Itoa(s.size()) + "]"
	case s.SearchAfter != nil && s.From > 0:
		reason = "`from` parameter must be set to 0 when `search_after` is used."
	case s.From+s.size() > resultWindow:
		reason = "Result window is too large, from + size must be less than or equal to: [10000] but was [" + strconv.Itoa(s.From+s.size()) +
			"]. See the scroll api for a more efficient way to request large data sets. This limit can be set by changing the [index.max_result_window] index level setting."
	default:
		return nil
	}
	cause := elasticCause{Type: "illegal_argument_exception", Reason: reason}
	r := elasticReply(400, map[string]any{"status": 400, "error": map[string]any{
		"root_cause": []elasticCause{cause}, "type": "search_phase_execution_exception", "reason": "all shards failed",
		"phase": "query", "grouped": true, "caused_by": cause,
		"failed_shards": []any{map[string]any{"shard": 0, "index": s.index, "node": "simulated", "reason": cause}},
	}})
	return &r
}

type shards struct {
	Total      int `json:"total"`
	Successful int `json:"successful"`
	Skipped    int `json:"skipped"`
	Failed     int `json:"failed"`
}

var allShards = shards{Total: 5, Successful: 5}

type searchResponse struct {
	Took         int            `json:"took"`
	TimedOut     bool           `json:"timed_out"`
	Shards       shards         `json:"_shards"`
	Hits         hits           `json:"hits"`
	Aggregations map[string]any `json:"aggregations,omitempty"`
}

type hits struct {
	Total    *hitTotal `json:"total,omitempty"`
	MaxScore *float64  `json:"max_score"`
	Hits     []hit     `json:"hits"`
}

type hitTotal struct {
	Value    int    `json:"value"`
	Relation string `json:"relation"`
}

type hit struct {
	Index  string   `json:"_index"`
	Type   string   `json:"_type"`
	ID     string   `json:"_id"`
	Score  *float64 `json:"_score"`
	Source any      `json:"_source,omitempty"`
	Sort   []any    `json:"sort,omitempty"`
}

// run answers a search.
func (s *searchStore) run(q *search) reply {
	out := searchResponse{Took: 1, Shards: allShards, Hits: hits{Hits: []hit{}}}
	out.Hits.Total = s.total(q)
	s.mu.RLock()
	defer s.mu.RUnlock()
	score := 1.0
	for _, d := range s.page(q) {
		h := hit{Index: q.index, Type: "_doc", ID: d.docID(), Source: q.fields.apply(d)}
		if len(q.sort) > 0 {
			h.Sort = valuesOf(q.sort, d)
		} else {
			h.Score = &score
		}
		out.Hits.Hits = append(out.Hits.Hits, h)
	}
	if len(q.aggs) > 0 {
		out.Aggregations = s.aggregate(q)
	}
	return elasticReply(200, out)
}

// total is the number of matches: by default counted up to the window only, absent where the caller does not want it.
func (s *searchStore) total(q *search) *hitTotal {
	limit := resultWindow
	switch string(q.TrackTotal) {
	case "", "null":
	case "true":
		limit = -1
	case "false":
		return nil
	default:
		limit, _ = strconv.Atoi(string(q.TrackTotal))
	}
	n := s.count(q)
	if limit >= 0 && n > limit {
		return &hitTotal{limit, "gte"}
	}
	return &hitTotal{n, "eq"}
}

// count is remembered until something changes, so that reading a batch page by page counts it once.
func (s *searchStore) count(q *search) int {
	key := q.index + "\x00" + string(q.Query)
	s.mu.RLock()
	n, known := s.countMemo[key]
	changes := s.changes
	if !known {
		n = countMatching(q.query, s.candidates(q))
	}
	s.mu.RUnlock()
	if known {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == changes && len(s.countMemo) < 1000 {
		s.countMemo[key] = n
	}
	return n
}

// candidates are the documents that can match, in natural order: enrolments by user. The list belongs to the store.
func (s *searchStore) candidates(q *search) []document {
	if q.index == courseBatch {
		return s.allBatch
	}
	batches := required(q.query, "batchId")
	if len(batches) != 1 {
		return s.all
	}
	list := s.byBatch[batches[0]]
	users := required(q.query, "userId")
	if users == nil {
		return list
	}
	out := []document{}
	users = slices.Clone(users)
	slices.Sort(users)
	for _, user := range slices.Compact(users) {
		at, _ := slices.BinarySearchFunc(list, user, func(d document, key string) int { return strings.Compare(userKey(d), key) })
		for ; at < len(list) && userKey(list[at]) == user; at++ {
			out = append(out, list[at])
		}
	}
	return out
}

// page gives the documents of one answer, in order.
func (s *searchStore) page(q *search) []document {
	list := s.candidates(q)
	if !natural(q) {
		list = matching(q.query, list)
		slices.SortStableFunc(list, func(a, b document) int { return compareBy(q.sort, a, valuesOf(q.sort, b)) })
	}
	if q.SearchAfter != nil {
		from, _ := slices.BinarySearchFunc(list, q.SearchAfter, func(d document, after []any) int {
			if compareBy(q.sort, d, after) <= 0 {
				return -1
			}
			return 1
		})
		list = list[from:]
	}
	out, skip := []document{}, q.From
	for _, d := range list {
		if len(out) >= q.size() {
			break
		}
		if !q.query.match(d) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		out = append(out, d)
	}
	return out
}

// natural says whether the candidates already stand in the order asked for.
func natural(q *search) bool {
	if len(q.sort) == 0 {
		return true
	}
	first := q.sort[0].field
	if q.index == courseBatch || first != "userId" && (first != "_id" || len(required(q.query, "batchId")) != 1) {
		return false
	}
	for i, key := range q.sort {
		if key.descending || i > 0 && key.field != "_id" && key.field != "batchId" {
			return false
		}
	}
	return true
}
