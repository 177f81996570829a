package simulator

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// clause is one compiled part of a query.
type clause interface{ match(d document) bool }

// fieldKind is how a field is mapped.
type fieldKind int

const (
	unmapped fieldKind = iota
	text               // analysed; only its existence can be asked here
	keyword            // the .raw of a text: the whole value in lower case
	long
	boolean
)

// mapping says how the fields of an index are kept; the mappings are not dynamic, so an unknown field matches nothing.
type mapping struct {
	texts    []string
	longs    []string
	booleans []string
	nested   []string
}

var userCoursesMapping = mapping{
	texts: []string{
		"id", "identifier", "userId", "courseId", "batchId", "addedBy", "enrolledDate", "createdBy", "createdDate",
		"updatedBy", "updatedDate", "dateTime", "delta", "lastReadContentId", "contentStatus", "completedOn",
	},
	longs:    []string{"status", "progress", "completionPercentage", "lastReadContentStatus"},
	booleans: []string{"active"},
	nested:   []string{"certificates"},
}

var courseBatchMapping = mapping{
	texts: []string{"id", "identifier", "batchId", "courseId", "name", "description", "enrollmentType", "createdBy", "createdFor", "mentors"},
	longs: []string{"status", "participantCount", "completedCount"},
}

// field splits a name into the member it reads and how that is mapped.
func (m *mapping) field(name string) (string, fieldKind) {
	base, raw := strings.CutSuffix(name, ".raw")
	switch {
	case name == "_id":
		return name, keyword
	case slices.Contains(m.texts, base) && raw:
		return base, keyword
	case slices.Contains(m.texts, base):
		return base, text
	case slices.Contains(m.longs, base):
		return base, long
	case slices.Contains(m.booleans, base):
		return base, boolean
	}
	return base, unmapped
}

// queryError is a refusal of the search engine.
type queryError struct {
	kind   string
	reason string
}

func (e *queryError) Error() string { return e.reason }

func parsing(format string, args ...any) error {
	return &queryError{"parsing_exception", fmt.Sprintf(format, args...)}
}

// compiler turns the JSON of a query into clauses. What it does not know it refuses: a clause passed over in silence
// would find the wrong learners.
type compiler struct{ mapping *mapping }

func (c *compiler) compile(raw json.RawMessage) (clause, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, parsing("[_na] query malformed, must start with start_object")
	}
	if len(members) != 1 {
		return nil, parsing("[_na] query malformed, expected one query but found [%d]", len(members))
	}
	for kind, body := range members {
		return c.byKind(kind, body)
	}
	return nil, nil
}

func (c *compiler) byKind(kind string, body json.RawMessage) (clause, error) {
	switch kind {
	case "match_all":
		return allClause(true), nil
	case "match_none":
		return allClause(false), nil
	case "bool":
		return c.boolean(body)
	case "term", "terms":
		return c.term(kind, body)
	case "exists":
		return c.exists(body, "")
	case "nested":
		return c.nested(body)
	case "regexp", "prefix", "wildcard":
		return c.pattern(kind, body)
	case "range":
		return c.between(body)
	case "ids":
		return c.ids(body)
	case "constant_score":
		return c.constant(body)
	}
	return nil, parsing("unknown query [%s]", kind)
}

type allClause bool

func (a allClause) match(document) bool { return bool(a) }

// boolClause joins clauses.
type boolClause struct {
	must, should, mustNot []clause
	minimum               int
}

func (b *boolClause) match(d document) bool {
	for _, c := range b.must {
		if !c.match(d) {
			return false
		}
	}
	for _, c := range b.mustNot {
		if c.match(d) {
			return false
		}
	}
	matched := 0
	for _, c := range b.should {
		if c.match(d) {
			matched++
		}
	}
	return matched >= b.minimum
}

func (c *compiler) boolean(raw json.RawMessage) (clause, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, parsing("[bool] query malformed, no start_object after query name")
	}
	b, minimum := &boolClause{}, -1
	for name, body := range members {
		var err error
		var list []clause
		switch name {
		case "must", "filter":
			list, err = c.list(body)
			b.must = append(b.must, list...)
		case "should":
			b.should, err = c.list(body)
		case "must_not":
			b.mustNot, err = c.list(body)
		case "minimum_should_match":
			minimum, err = strconv.Atoi(strings.Trim(string(body), `"`))
		case "boost", "_name", "adjust_pure_negative":
		default:
			err = parsing("[bool] query does not support [%s]", name)
		}
		if err != nil {
			return nil, err
		}
	}
	if b.minimum = minimum; minimum < 0 {
		b.minimum = 0
		if len(b.should) > 0 && len(b.must) == 0 {
			b.minimum = 1
		}
	}
	return b, nil
}

// list compiles one clause or a list of them.
func (c *compiler) list(raw json.RawMessage) ([]clause, error) {
	bodies := []json.RawMessage{raw}
	if len(raw) > 0 && raw[0] == '[' {
		if err := json.Unmarshal(raw, &bodies); err != nil {
			return nil, parsing("[bool] malformed query: %s", err)
		}
	}
	out := make([]clause, 0, len(bodies))
	for _, body := range bodies {
		compiled, err := c.compile(body)
		if err != nil {
			return nil, err
		}
		out = append(out, compiled)
	}
	return out, nil
}

// termClause compares the whole value, as text in the form of the field's kind.
type termClause struct {
	field  string
	values []string
	set    map[string]bool // where there are many
}

func (t *termClause) match(d document) bool {
	have, present := d.value(t.field)
	if !present {
		return false
	}
	if t.set != nil {
		return t.set[have]
	}
	return slices.Contains(t.values, have)
}

func (c *compiler) term(kind string, raw json.RawMessage) (clause, error) {
	name, body, err := onlyField(kind, raw)
	if err != nil {
		return nil, err
	}
	field, mapped := c.mapping.field(name)
	if mapped == text {
		return nil, parsing("[%s] on the analysed field [%s] is not simulated; ask for [%s.raw]", kind, name, name)
	}
	bodies := []json.RawMessage{body}
	if kind == "terms" {
		if err := json.Unmarshal(body, &bodies); err != nil {
			return nil, parsing("[terms] query does not support [%s]", name)
		}
	} else if body[0] == '{' {
		if bodies[0], err = inner(body, "value", "boost", "_name"); err != nil {
			return nil, err
		}
	}
	t := &termClause{field: field}
	for _, value := range bodies {
		form, err := termForm(name, mapped, value)
		if err != nil {
			return nil, err
		}
		t.values = append(t.values, form)
	}
	if mapped == unmapped {
		return allClause(false), nil
	}
	if len(t.values) > 8 {
		t.set = make(map[string]bool, len(t.values))
		for _, v := range t.values {
			t.set[v] = true
		}
	}
	return t, nil
}

// termForm brings a value into the form the field keeps.
func termForm(name string, kind fieldKind, raw json.RawMessage) (string, error) {
	value := strings.Trim(string(raw), `"`)
	if len(raw) > 0 && raw[0] == '"' {
		_ = json.Unmarshal(raw, &value)
	}
	switch kind {
	case long:
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return "", &queryError{"query_shard_exception", fmt.Sprintf("failed to create query: For input string: %q", value)}
		}
		return strconv.FormatFloat(n, 'f', -1, 64), nil
	case boolean:
		if value != "true" && value != "false" {
			return "", &queryError{
				"query_shard_exception",
				fmt.Sprintf("failed to create query: Can't parse boolean value [%s], expected [true] or [false]", value),
			}
		}
		return value, nil
	case keyword, text, unmapped:
	}
	if len(raw) == 0 || raw[0] == '{' || raw[0] == '[' || string(raw) == "null" {
		return "", &queryError{"illegal_argument_exception", "field name [" + name + "] cannot have a null or compound value"}
	}
	return strings.ToLower(value), nil
}

// onlyField splits {"field": body}, dropping boost and _name.
func onlyField(kind string, raw json.RawMessage) (string, json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return "", nil, parsing("[%s] query malformed, no start_object after query name", kind)
	}
	delete(members, "boost")
	delete(members, "_name")
	if len(members) != 1 {
		return "", nil, parsing("[%s] query doesn't support multiple fields", kind)
	}
	for name, body := range members {
		return name, body, nil
	}
	return "", nil, nil
}

// inner gives the member of an object, refusing members that are neither it nor among the ignored.
func inner(raw json.RawMessage, name string, ignored ...string) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, parsing("malformed query: %s", err)
	}
	for member := range members {
		if member != name && !slices.Contains(ignored, member) {
			return nil, parsing("query does not support [%s]", member)
		}
	}
	if members[name] == nil {
		return nil, parsing("required member [%s] is missing", name)
	}
	return members[name], nil
}

type existsClause struct{ path, field string }

func (e existsClause) match(d document) bool {
	if e.path != "" {
		return d.nested(e.path, e.field)
	}
	_, present := d.value(e.field)
	return present
}

// exists asks for a member. Entries of a nested list are documents of their own: asked for outside nested, they are
// never there.
func (c *compiler) exists(raw json.RawMessage, path string) (clause, error) {
	body, err := inner(raw, "field", "boost", "_name")
	if err != nil {
		return nil, err
	}
	var name string
	if json.Unmarshal(body, &name) != nil {
		return nil, parsing("[exists] must be provided with a [field]")
	}
	if path != "" {
		return existsClause{path, strings.TrimSuffix(name, ".raw")}, nil
	}
	field, kind := c.mapping.field(name)
	if kind == unmapped {
		return allClause(false), nil
	}
	return existsClause{field: field}, nil
}

func (c *compiler) nested(raw json.RawMessage) (clause, error) {
	var q struct {
		Path  string          `json:"path"`
		Query json.RawMessage `json:"query"`
	}
	if err := json.Unmarshal(raw, &q); err != nil || q.Path == "" || q.Query == nil {
		return nil, parsing("[nested] requires 'path' and 'query' field")
	}
	if !slices.Contains(c.mapping.nested, q.Path) {
		return nil, &queryError{"query_shard_exception", fmt.Sprintf("failed to create query: [nested] failed to find nested object under path [%s]", q.Path)}
	}
	kind, body, err := onlyField("nested", q.Query)
	if err != nil {
		return nil, err
	}
	if kind != "exists" {
		return nil, parsing("[nested] with the query [%s] is not simulated", kind)
	}
	return c.exists(body, q.Path)
}

type patternClause struct {
	field string
	expr  *regexp.Regexp
}

func (r patternClause) match(d document) bool {
	have, present := d.value(r.field)
	return present && r.expr.MatchString(have)
}

func (c *compiler) pattern(kind string, raw json.RawMessage) (clause, error) {
	name, body, err := onlyField(kind, raw)
	if err != nil {
		return nil, err
	}
	if body[0] == '{' {
		if body, err = inner(body, "value", "flags", "max_determinized_states", "case_insensitive", "boost", "rewrite"); err != nil {
			return nil, err
		}
	}
	var value string
	if json.Unmarshal(body, &value) != nil {
		return nil, parsing("[%s] query malformed", kind)
	}
	field, mapped := c.mapping.field(name)
	if mapped != keyword {
		return nil, &queryError{"query_shard_exception", fmt.Sprintf("Can only use %s queries on keyword fields here - not on [%s]", kind, name)}
	}
	var expr string
	switch kind {
	case "prefix":
		expr = regexp.QuoteMeta(strings.ToLower(value)) + ".*"
	case "wildcard":
		expr = strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(strings.ToLower(value)))
	default:
		expr = luceneRegexp(value)
	}
	compiled, err := regexp.Compile("(?s)^(?:" + expr + ")$")
	if err != nil {
		return nil, &queryError{"query_shard_exception", "failed to create query: " + err.Error()}
	}
	return patternClause{field, compiled}, nil
}

// luceneRegexp writes a Lucene expression for Go: it is always anchored, has no ^ or $, and a backslash only takes the
// meaning away from what follows (so that \d is the letter d, as many have found out).
func luceneRegexp(expr string) string {
	var out strings.Builder
	inClass := false
	for runes := []rune(expr); len(runes) > 0; runes = runes[1:] {
		r := runes[0]
		switch {
		case r == '\\' && len(runes) > 1:
			runes = runes[1:]
			out.WriteString(regexp.QuoteMeta(string(runes[0])))
			continue
		case r == '[':
			inClass = true
		case r == ']':
			inClass = false
		case (r == '^' || r == '$') && !inClass:
			out.WriteByte('\\')
		}
		out.WriteRune(r)
	}
	return out.String()
}

// rangeClause compares as text, or as numbers where the field has numbers.
type rangeClause struct {
	field   string
	numeric bool
	bounds  []bound
}

type bound struct {
	op     string
	text   string
	number float64
}

func (r *rangeClause) match(d document) bool {
	have, present := d.value(r.field)
	if !present {
		return false
	}
	number := 0.0
	if r.numeric {
		number, _ = strconv.ParseFloat(have, 64)
	}
	for _, b := range r.bounds {
		order := strings.Compare(have, b.text)
		if r.numeric {
			order = compareNumbers(number, b.number)
		}
		if !b.allows(order) {
			return false
		}
	}
	return true
}

func compareNumbers(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (b bound) allows(order int) bool {
	switch b.op {
	case "gt":
		return order > 0
	case "gte":
		return order >= 0
	case "lt":
		return order < 0
	}
	return order <= 0
}

func (c *compiler) between(raw json.RawMessage) (clause, error) {
	name, body, err := onlyField("range", raw)
	if err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return nil, parsing("[range] query malformed, no start_object after query name")
	}
	field, kind := c.mapping.field(name)
	if kind == text {
		return nil, parsing("[range] on the analysed field [%s] is not simulated; ask for [%s.raw]", name, name)
	}
	r := &rangeClause{field: field, numeric: kind == long}
	for op, value := range members {
		switch op {
		case "gt", "gte", "lt", "lte":
			form, err := termForm(name, kind, value)
			if err != nil {
				return nil, err
			}
			number, _ := strconv.ParseFloat(form, 64)
			r.bounds = append(r.bounds, bound{op, form, number})
		case "boost", "format", "relation", "time_zone":
		default:
			return nil, parsing("[range] query does not support [%s]", op)
		}
	}
	if kind == unmapped {
		return allClause(false), nil
	}
	return r, nil
}

func (c *compiler) ids(raw json.RawMessage) (clause, error) {
	body, err := inner(raw, "values", "boost", "_name")
	if err != nil {
		return nil, err
	}
	var ids []string
	if json.Unmarshal(body, &ids) != nil {
		return nil, parsing("[ids] query malformed")
	}
	t := &termClause{field: "_id", set: make(map[string]bool, len(ids))}
	for _, id := range ids {
		t.set[strings.ToLower(id)] = true
	}
	return t, nil
}

func (c *compiler) constant(raw json.RawMessage) (clause, error) {
	body, err := inner(raw, "filter", "boost", "_name")
	if err != nil {
		return nil, err
	}
	return c.compile(body)
}

// required gives the values one of which every match must have in the field; nil where the query does not say.
func required(c clause, field string) []string {
	switch c := c.(type) {
	case *termClause:
		if c.field == field {
			return c.values
		}
	case *boolClause:
		for _, part := range c.must {
			if values := required(part, field); values != nil {
				return values
			}
		}
	}
	return nil
}
