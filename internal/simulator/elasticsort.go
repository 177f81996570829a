package simulator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// sortKey is one field of a sort.
type sortKey struct {
	field      string
	numeric    bool
	descending bool
}

// sortKeys reads a sort in any of its forms: "field", {"field":"asc"}, {"field":{"order":"asc"}}, or a list of these.
func sortKeys(m *mapping, raw json.RawMessage) ([]sortKey, error) {
	if empty(raw) {
		return nil, nil
	}
	items := []json.RawMessage{raw}
	if raw[0] == '[' {
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, parsing("malformed sort format: %s", err)
		}
	}
	keys := []sortKey{}
	for _, item := range items {
		key, err := oneSortKey(m, item)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func oneSortKey(m *mapping, raw json.RawMessage) (sortKey, error) {
	name, order := "", "asc"
	if raw[0] == '"' {
		_ = json.Unmarshal(raw, &name)
	} else {
		field, body, err := onlyField("sort", raw)
		if err != nil {
			return sortKey{}, err
		}
		name = field
		if body[0] == '{' {
			if body, err = inner(body, "order", "missing", "unmapped_type", "mode"); err != nil {
				return sortKey{}, err
			}
		}
		_ = json.Unmarshal(body, &order)
	}
	if order = strings.ToLower(order); order != "asc" && order != "desc" {
		return sortKey{}, &queryError{"illegal_argument_exception", "No enum constant org.elasticsearch.search.sort.SortOrder." + strings.ToUpper(order)}
	}
	field, kind := m.field(name)
	switch {
	case name == "_doc":
		field = "_id"
	case kind == text:
		return sortKey{}, &queryError{"illegal_argument_exception", fmt.Sprintf("Text fields are not optimised for operations that require per-document field data like aggregations and sorting, so these operations are disabled by default. Please use a keyword field instead. Alternatively, set fielddata=true on [%s] in order to load field data by uninverting the inverted index. Note that this can use significant memory.", name)}
	case kind == unmapped:
		return sortKey{}, &queryError{"query_shard_exception", "No mapping found for [" + name + "] in order to sort on"}
	}
	return sortKey{field, kind == long, order == "desc"}, nil
}

// valuesOf are the sort values of a document, as a hit shows them and search_after takes them.
func valuesOf(keys []sortKey, d document) []any {
	out := make([]any, len(keys))
	for i, key := range keys {
		value, present := d.value(key.field)
		switch {
		case !present:
		case key.field == "_id":
			out[i] = d.docID()
		case key.numeric:
			n, _ := strconv.Atoi(value)
			out[i] = n
		default:
			out[i] = value
		}
	}
	return out
}

// compareBy orders a document against sort values; what is absent comes last.
func compareBy(keys []sortKey, d document, against []any) int {
	for i, key := range keys {
		value, present := d.value(key.field)
		other := sortText(against[i])
		var order int
		switch {
		case !present || against[i] == nil:
			order = compareNumbers(boolNumber(!present), boolNumber(against[i] == nil))
		case key.numeric:
			a, _ := strconv.ParseFloat(value, 64)
			b, _ := strconv.ParseFloat(other, 64)
			order = compareNumbers(a, b)
		default:
			order = strings.Compare(value, strings.ToLower(other))
		}
		if key.descending && present && against[i] != nil {
			order = -order
		}
		if order != 0 {
			return order
		}
	}
	return 0
}

func boolNumber(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func sortText(v any) string {
	if s, isText := v.(string); isText {
		return s
	}
	return fmt.Sprint(v)
}

// sourceFilter is which members of _source a hit shows; nil shows all.
type sourceFilter struct {
	none             bool
	include, exclude []string
}

func readSourceFilter(raw json.RawMessage) (sourceFilter, error) {
	var f sourceFilter
	switch {
	case empty(raw), string(raw) == "true":
		return f, nil
	case string(raw) == "false":
		return sourceFilter{none: true}, nil
	case raw[0] == '[':
		err := json.Unmarshal(raw, &f.include)
		return f, err
	case raw[0] == '{':
		var parts struct {
			Includes []string `json:"includes"`
			Excludes []string `json:"excludes"`
		}
		err := json.Unmarshal(raw, &parts)
		return sourceFilter{include: parts.Includes, exclude: parts.Excludes}, err
	}
	var one string
	if err := json.Unmarshal(raw, &one); err != nil {
		return f, parsing("Expected one of [VALUE_BOOLEAN, START_OBJECT] but found [%s]", raw)
	}
	return sourceFilter{include: []string{one}}, nil
}

func (f sourceFilter) apply(d document) any {
	if f.none {
		return nil
	}
	source := d.source()
	for name := range source {
		if f.include != nil && !slices.Contains(f.include, name) || slices.Contains(f.exclude, name) {
			delete(source, name)
		}
	}
	return source
}

// aggregation counts matches: filter under one clause, filters under several with names.
type aggregation struct {
	filter  clause
	filters map[string]clause
	within  map[string]aggregation
}

func (c *compiler) aggregations(raw json.RawMessage) (map[string]aggregation, error) {
	if empty(raw) {
		return nil, nil
	}
	var named map[string]map[string]json.RawMessage
	if err := json.Unmarshal(raw, &named); err != nil {
		return nil, parsing("malformed aggregations: %s", err)
	}
	out := make(map[string]aggregation, len(named))
	for name, parts := range named {
		a, err := c.aggregation(parts)
		if err != nil {
			return nil, err
		}
		out[name] = a
	}
	return out, nil
}

func (c *compiler) aggregation(parts map[string]json.RawMessage) (aggregation, error) {
	var a aggregation
	for kind, body := range parts {
		var err error
		switch kind {
		case "filter":
			a.filter, err = c.compile(body)
		case "filters":
			a.filters, err = c.namedFilters(body)
		case "aggs", "aggregations":
			a.within, err = c.aggregations(body)
		default:
			err = parsing("Unknown aggregation type [%s]", kind)
		}
		if err != nil {
			return a, err
		}
	}
	if a.filters != nil && a.within != nil {
		return a, parsing("aggregations within [filters] are not simulated")
	}
	return a, nil
}

func (c *compiler) namedFilters(raw json.RawMessage) (map[string]clause, error) {
	body, err := inner(raw, "filters")
	if err != nil {
		return nil, err
	}
	var named map[string]json.RawMessage
	if err := json.Unmarshal(body, &named); err != nil {
		return nil, parsing("[filters] without names are not simulated")
	}
	out := make(map[string]clause, len(named))
	for name, query := range named {
		if out[name], err = c.compile(query); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *searchStore) aggregate(q *search) map[string]any {
	return aggregateOver(q.aggs, matching(q.query, s.candidates(q)))
}

type bucket struct {
	DocCount int `json:"doc_count"`
}

func aggregateOver(aggs map[string]aggregation, list []document) map[string]any {
	out := make(map[string]any, len(aggs))
	for name, a := range aggs {
		if a.filters != nil {
			buckets := make(map[string]bucket, len(a.filters))
			for key, c := range a.filters {
				buckets[key] = bucket{countMatching(c, list)}
			}
			out[name] = map[string]any{"buckets": buckets}
			continue
		}
		matched := matching(a.filter, list)
		result := aggregateOver(a.within, matched)
		result["doc_count"] = len(matched)
		out[name] = result
	}
	return out
}

func matching(c clause, list []document) []document {
	out := []document{}
	for _, d := range list {
		if c.match(d) {
			out = append(out, d)
		}
	}
	return out
}

func countMatching(c clause, list []document) int {
	n := 0
	for _, d := range list {
		if c.match(d) {
			n++
		}
	}
	return n
}
