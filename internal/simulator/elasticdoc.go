package simulator

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// documentRoute finds the operation on one document. Enrolments can be written, as the platform does when a
// certificate was issued; batches are only read.
func (p *Platform) documentRoute(method, index, action, id string) route {
	switch {
	case action == "_doc" && (method == http.MethodGet || method == http.MethodHead):
		return route{"es_get", func(x *exchange) func() reply { return p.getDocument(x, index, id) }}
	case index == userCourses && action == "_update" && method == http.MethodPost,
		index == userCourses && action == "_doc" && (method == http.MethodPut || method == http.MethodPost):
		return route{"es_update", func(x *exchange) func() reply { return p.writeDocument(x, action, id) }}
	}
	return route{"unknown", fixed(elasticError(405, "method_not_allowed", "Incorrect HTTP method for uri ["+action+"] and method ["+method+"]"))}
}

type documentAnswer struct {
	Index       string `json:"_index"`
	Type        string `json:"_type"`
	ID          string `json:"_id"`
	Version     int64  `json:"_version,omitempty"`
	SeqNo       *int64 `json:"_seq_no,omitempty"`
	PrimaryTerm int    `json:"_primary_term,omitempty"`
	Found       bool   `json:"found"`
	Source      any    `json:"_source,omitempty"`
}

func (p *Platform) getDocument(x *exchange, index, id string) func() reply {
	if index == courseBatch {
		x.batchID = id
	}
	return func() reply {
		p.search.mu.RLock()
		defer p.search.mu.RUnlock()
		out := documentAnswer{Index: index, Type: "_doc", ID: id}
		d, version := p.search.find(index, id)
		if d == nil {
			return elasticReply(404, out)
		}
		seq := version - 1
		out.Found, out.Source, out.Version, out.SeqNo, out.PrimaryTerm = true, d.source(), version, &seq, 1
		return elasticReply(200, out)
	}
}

func (s *searchStore) find(index, id string) (document, int64) {
	if index == courseBatch {
		if b := s.batches[id]; b != nil {
			return b, 1
		}
		return nil, 0
	}
	if e := s.enrolled[id]; e != nil {
		return e, e.version
	}
	return nil, 0
}

// writeDocument merges a partial document (_update) or takes a whole one (_doc) into an enrolment that exists: issuing
// never enrols anybody.
func (p *Platform) writeDocument(x *exchange, action, id string) func() reply {
	var body struct {
		Doc json.RawMessage `json:"doc"`
	}
	var doc map[string]json.RawMessage
	raw := json.RawMessage(x.body)
	if action == "_update" {
		if err := json.Unmarshal(x.body, &body); err != nil || body.Doc == nil {
			return answer(elasticError(400, "action_request_validation_exception", "Validation Failed: 1: script or doc is missing;"))
		}
		raw = body.Doc
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return answer(elasticError(400, "mapper_parsing_exception", "failed to parse"))
	}
	expected, err := strconv.ParseInt(x.r.URL.Query().Get("if_seq_no"), 10, 64)
	if err != nil {
		expected = -1
	}
	x.aboutEnrolment(p.search, id)
	return func() reply {
		version, bad := p.search.write(id, doc, expected)
		if bad != nil {
			return *bad
		}
		p.record(entry{Enrolment: &enrolmentWrite{id, doc}})
		return elasticReply(200, map[string]any{
			"_index": userCourses, "_type": "_doc", "_id": id, "_version": version, "result": "updated",
			"_shards": map[string]int{"total": 2, "successful": 1, "failed": 0}, "_seq_no": version - 1, "_primary_term": 1,
		})
	}
}

func (x *exchange) aboutEnrolment(s *searchStore, id string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.enrolled[id]; e != nil {
		x.userID, x.batchID = e.UserID, e.BatchID
	}
}

// write merges into an enrolment; expected is the sequence number the caller saw, or -1.
func (s *searchStore) write(id string, doc map[string]json.RawMessage, expected int64) (int64, *reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.enrolled[id]
	if old == nil {
		r := causeReply(404, elasticCause{Type: "document_missing_exception", Reason: "[_doc][" + id + "]: document missing", Index: userCourses})
		return 0, &r
	}
	if expected >= 0 && expected != old.version-1 {
		r := causeReply(409, elasticCause{Type: "version_conflict_engine_exception", Index: userCourses, Reason: "[" + id +
			"]: version conflict, required seqNo [" + strconv.FormatInt(expected, 10) + "], primary term [1]. current document has seqNo [" +
			strconv.FormatInt(old.version-1, 10) + "] and primary term [1]"})
		return 0, &r
	}
	s.overlay(id, doc)
	return old.version, nil
}

// overlay keeps what was written, so that loading the seed data again does not undo it, and merges it in.
func (s *searchStore) overlay(id string, doc map[string]json.RawMessage) {
	kept := make(map[string]json.RawMessage, len(doc))
	for name, raw := range s.overlays[id] {
		kept[name] = raw
	}
	for name, raw := range doc {
		kept[name] = raw
	}
	s.overlays[id] = kept
	if old := s.enrolled[id]; old != nil {
		old.merge(doc)
		old.version++
		s.changed()
	}
}

// enrolmentWrite is a write as the journal keeps it.
type enrolmentWrite struct {
	ID  string                     `json:"id"`
	Doc map[string]json.RawMessage `json:"doc"`
}
