package httpapi

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

// clauses are the members of "filters" that we understand; each narrows the
// filter and says whether its value made sense. The platform passed any member
// on to its index, where a misspelt one silently matched nobody: here it is
// refused by name.
var clauses = map[string]func(*issue.Filter, any) bool{
	"status":      byStatus,
	"userId":      byLearners,
	"userIds":     byLearners,
	"completedOn": byCompletion,
}

// filter reads userIds and filters. When both are given, both hold.
func (m members) filter() (issue.Filter, error) {
	var f issue.Filter
	if err := m.userIDs(&f); err != nil {
		return issue.Filter{}, err
	}
	given := m["filters"]
	if given == nil {
		return f, nil
	}
	filters, ok := given.(members)
	if !ok {
		return issue.Filter{}, invalidValue("filters", show(given))
	}
	for _, name := range slices.Sorted(maps.Keys(filters)) {
		narrow, known := clauses[name]
		if !known || !narrow(&f, filters[name]) {
			return issue.Filter{}, invalidValue("filters."+name, show(filters[name]))
		}
	}
	return f, nil
}

// userIDs reads the list beside filters. An empty one asks for nobody and is
// refused, since no list at all asks for everybody.
func (m members) userIDs(f *issue.Filter) error {
	given := m["userIds"]
	if given == nil {
		return nil
	}
	list, ok := given.([]any)
	if !ok {
		return typeError("userIds", "List")
	}
	if slices.ContainsFunc(list, func(v any) bool { _, text := v.(string); return !text }) {
		return typeError("userIds", "String")
	}
	if !byLearners(f, list) {
		return invalidValue("userIds", show(list))
	}
	return nil
}

// byStatus takes the statuses that an enrolment can have, 0 to 2. Another
// would match nobody, or be beyond what the index can hold.
func byStatus(f *issue.Filter, value any) bool {
	for _, one := range oneOrMany(value) {
		text, ok := plain(one)
		status, err := strconv.Atoi(strings.TrimSpace(text))
		if !ok || err != nil || status < 0 || status > issue.StatusCompleted {
			return false
		}
		f.Statuses = append(f.Statuses, status)
	}
	f.Statuses = distinct(f.Statuses)
	return len(f.Statuses) > 0
}

// byLearners keeps the learners that earlier clauses left. That none is left
// counts as a wrong value: a filter without learners would mean all of them.
func byLearners(f *issue.Filter, value any) bool {
	var asked []issue.LearnerID
	for _, one := range oneOrMany(value) {
		id, ok := one.(string)
		if !ok || strings.TrimSpace(id) == "" || checkID("", id) != nil {
			return false
		}
		asked = append(asked, issue.LearnerID(id))
	}
	asked = distinct(asked)
	if before := f.Learners; before != nil {
		asked = slices.DeleteFunc(asked, func(id issue.LearnerID) bool {
			_, kept := slices.BinarySearch(before, id)
			return !kept
		})
	}
	f.Learners = asked
	return len(asked) > 0
}

// byCompletion takes a moment, or bounds such as {">=": 1694131200000, "<": "2023-10-01"}.
func byCompletion(f *issue.Filter, value any) bool {
	bounds, isRange := value.(members)
	if !isRange {
		bounds = members{">=": value, "<=": value}
	}
	for operator, bound := range bounds {
		if !byBound(f, operator, bound) {
			return false
		}
	}
	return len(bounds) > 0
}

// byBound narrows the filter by one bound. Every moment is a span, a
// millisecond long or, for a date, a day: "<= 2023-09-08" includes that day.
func byBound(f *issue.Filter, operator string, bound any) bool {
	start, end, ok := span(bound)
	if !ok {
		return false
	}
	switch operator {
	case ">=":
		f.CompletedFrom = later(f.CompletedFrom, start)
	case ">":
		f.CompletedFrom = later(f.CompletedFrom, end)
	case "<":
		f.CompletedTo = earlier(f.CompletedTo, start)
	case "<=":
		f.CompletedTo = earlier(f.CompletedTo, end)
	default:
		return false
	}
	return true
}

func span(value any) (start, end time.Time, ok bool) {
	text, ok := plain(value)
	if !ok {
		return time.Time{}, time.Time{}, false
	}
	start, ok = issue.ParseCompletedOn(text)
	if len(strings.TrimSpace(text)) == len(time.DateOnly) {
		return start, start.AddDate(0, 0, 1), ok
	}
	return start, start.Add(time.Millisecond), ok
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// earlier takes a zero a for "no bound yet".
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// oneOrMany makes a list of a value that may be one: the platform's filters
// let both mean the same.
func oneOrMany(value any) []any {
	if list, ok := value.([]any); ok {
		return list
	}
	return []any{value}
}

// plain is the text of a JSON text or number.
func plain(value any) (string, bool) {
	switch value := value.(type) {
	case string:
		return value, true
	case json.Number:
		return value.String(), true
	}
	return "", false
}

// distinct sorts a list and drops repetitions, so that a learner named twice
// counts once and the order of a list changes no fingerprint.
func distinct[T int | issue.LearnerID](list []T) []T {
	slices.Sort(list)
	return slices.Compact(list)
}

// show writes a value into a sentence: a text as it is, anything else as JSON.
func show(value any) string {
	if text, ok := plain(value); ok {
		return text
	}
	text, err := marshal(value)
	if err != nil {
		return "?"
	}
	return string(text)
}
