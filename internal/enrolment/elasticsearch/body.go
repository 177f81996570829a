package elasticsearch

import (
	"strings"

	"github.com/ecreds/issuer/internal/issue"
)

// query is a piece of the query language.
type query = map[string]any

func all(clauses ...query) query { return query{"bool": query{"filter": clauses}} }

func term(field string, value any) query  { return query{"term": query{field: value}} }
func terms(field string, value any) query { return query{"terms": query{field: value}} }

// but narrows clauses by what must not hold. A document without the field holds
// nothing, so a missing or null active counts as inactive, and so on.
func but(not query, clauses ...query) query {
	parts := query{"must_not": []query{not}}
	if len(clauses) > 0 { // null is refused
		parts["filter"] = clauses
	}
	return query{"bool": parts}
}

// inBatch finds the enrolments of a batch, of the learners that the filter
// names if it names any. The course is no clause, as it never was: batch ids
// are unique.
func inBatch(batch issue.BatchID, filter issue.Filter) []query {
	clauses := []query{term("batchId.raw", strings.ToLower(string(batch)))}
	if len(filter.Learners) > 0 {
		clauses = append(clauses, terms("userId.raw", lowered(filter.Learners)))
	}
	return clauses
}

func active() query                    { return term("active.raw", true) }
func wanted(filter issue.Filter) query { return terms("status.raw", filter.WantedStatuses()) }

// dated finds what has a completion date that is not the empty text.
func dated() query {
	return but(term("completedOn.raw", ""), query{"exists": query{"field": "completedOn.raw"}})
}

// The groups of a count; each learner is in exactly one of the first four, the
// last two are among the eligible.
const (
	groupInactive = "inactive"
	groupStatus   = "status"
	groupNoDate   = "no_completion_date"
	groupEligible = "eligible"
	groupOddDates = "odd_dates"
	groupHeld     = "held"
)

func countBody(batch issue.BatchID, filter issue.Filter) query {
	eligible := []query{active(), wanted(filter), dated()}
	// Epoch milliseconds from 1973 to 5138: what the platform writes. A date
	// text may be good too, which only the core can tell.
	date := query{"regexp": query{"completedOn.raw": "[0-9]{12,14}"}}
	held := query{"nested": query{
		"path": "certificates", "query": query{"exists": query{"field": "certificates.name"}}, "ignore_unmapped": true,
	}}
	return query{
		"size":             0,
		"track_total_hits": true,
		"query":            all(inBatch(batch, filter)...),
		"aggs": query{"learners": query{"filters": query{"filters": query{
			groupInactive: but(active()),
			groupStatus:   but(wanted(filter), active()),
			groupNoDate:   but(dated(), active(), wanted(filter)),
			groupEligible: all(eligible...),
			groupOddDates: but(date, eligible...),
			groupHeld:     all(append(eligible, held)...),
		}}}},
	}
}

var sourceFields = []string{"userId", "active", "status", "completedOn", "certificates"}

func pageBody(batch issue.BatchID, filter issue.Filter, cursor string, size int) query {
	body := query{
		"size":    size,
		"query":   all(append(inBatch(batch, filter), active(), wanted(filter))...),
		"sort":    []query{{"userId.raw": "asc"}},
		"_source": sourceFields,
		// The size of the batch is known since it was counted.
		"track_total_hits": false,
	}
	if cursor != "" {
		body["search_after"] = []string{cursor}
	}
	return body
}

// learnerBody asks for a few documents: learners whose ids differ in the case
// of letters alone look the same to the index.
func learnerBody(batch issue.BatchID, learner issue.LearnerID) query {
	return query{
		"size":    10,
		"query":   all(inBatch(batch, issue.Filter{Learners: []issue.LearnerID{learner}})...),
		"_source": sourceFields,
	}
}
