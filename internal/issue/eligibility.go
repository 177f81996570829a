package issue

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// StatusCompleted is the enrolment status of a learner who finished the course.
const StatusCompleted = 2

// Enrolment is one learner's row in a batch, as the enrolment source has it.
type Enrolment struct {
	Learner     LearnerID
	Active      bool
	Status      int
	CompletedOn string // as stored: epoch milliseconds or a date, may be empty
	Held        []HeldCertificate
}

// HeldCertificate is a certificate that the enrolment already shows.
type HeldCertificate struct{ Name, ID string }

func (e Enrolment) held(certificate string) (HeldCertificate, bool) {
	i := slices.IndexFunc(e.Held, func(h HeldCertificate) bool { return strings.EqualFold(h.Name, certificate) })
	if i < 0 {
		return HeldCertificate{}, false
	}
	return e.Held[i], true
}

// Filter narrows the learners of a request. The zero value means every
// learner with status 2.
type Filter struct {
	Statuses      []int       `json:"statuses,omitempty"`     // none = StatusCompleted
	Learners      []LearnerID `json:"learners,omitempty"`     // none = everybody
	CompletedFrom time.Time   `json:"completedFrom,omitzero"` // inclusive
	CompletedTo   time.Time   `json:"completedTo,omitzero"`   // exclusive
}

// WantedStatuses are the enrolment statuses that the filter lets through.
func (f Filter) WantedStatuses() []int {
	if len(f.Statuses) == 0 {
		return []int{StatusCompleted}
	}
	return f.Statuses
}

func (f Filter) admitsDate(completed time.Time) bool {
	return (f.CompletedFrom.IsZero() || !completed.Before(f.CompletedFrom)) &&
		(f.CompletedTo.IsZero() || completed.Before(f.CompletedTo))
}

// NarrowsDates says that the filter has a clause which only a look at each
// learner can judge.
func (f Filter) NarrowsDates() bool { return !f.CompletedFrom.IsZero() || !f.CompletedTo.IsZero() }

// SkipReason says why a learner of the batch gets no certificate from a job.
type SkipReason string

// The closed list of skip reasons.
const (
	SkipAlreadyIssued     SkipReason = "already_issued"
	SkipInactive          SkipReason = "inactive"
	SkipStatus            SkipReason = "status"
	SkipNoCompletionDate  SkipReason = "no_completion_date"
	SkipBadCompletionDate SkipReason = "bad_completion_date"
	SkipFiltered          SkipReason = "filtered"
	SkipCriteria          SkipReason = "criteria"
	SkipNotEnrolled       SkipReason = "not_enrolled"
)

// SkipReasons lists every skip reason: answers show all of them, zeros too.
func SkipReasons() []SkipReason {
	return []SkipReason{
		SkipAlreadyIssued, SkipInactive, SkipStatus, SkipNoCompletionDate, SkipBadCompletionDate, SkipFiltered,
		SkipCriteria, SkipNotEnrolled,
	}
}

// Judge decides whether an enrolment earns the certificate. It returns the
// completion date, or the reason why not.
func (f Filter) Judge(e Enrolment) (completed time.Time, why SkipReason) {
	switch {
	case !e.Active:
		return time.Time{}, SkipInactive
	case !slices.Contains(f.WantedStatuses(), e.Status):
		return time.Time{}, SkipStatus
	case strings.TrimSpace(e.CompletedOn) == "":
		return time.Time{}, SkipNoCompletionDate
	}
	completed, ok := ParseCompletedOn(e.CompletedOn)
	if !ok {
		return time.Time{}, SkipBadCompletionDate
	}
	if !f.admitsDate(completed) {
		return time.Time{}, SkipFiltered
	}
	return completed, ""
}

// completionLayouts are the date texts seen in enrolments of different years:
// the platform's own "yyyy-MM-dd HH:mm:ss:SSSZ" first.
var completionLayouts = []string{
	"2006-01-02 15:04:05.000-0700", "2006-01-02 15:04:05-0700", "2006-01-02 15:04:05",
	time.RFC3339Nano, "2006-01-02T15:04:05.000-0700", "2006-01-02T15:04:05-0700", time.DateOnly,
}

// ParseCompletedOn reads a completion date: epoch milliseconds as a number in
// text form, or one of the date texts the platform has written.
func ParseCompletedOn(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return completion(ms)
	}
	if ms, err := strconv.ParseFloat(s, 64); err == nil { // as Java prints a double: 1.566372109689E12
		return completion(int64(ms))
	}
	// The platform separates milliseconds by a colon, which no layout can say.
	if len(s) > 19 && s[19] == ':' {
		s = s[:19] + "." + s[20:]
	}
	for _, layout := range completionLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return completion(t.UnixMilli())
		}
	}
	return time.Time{}, false
}

// completion is the time of so many epoch milliseconds, if somebody can have
// completed a course then. Ten digits would be seconds, which the platform never
// wrote: a value before 1973 is a mistake. So is a date text of such a year
// ("0001-01-01", "1970-01-01"), which is how programs write "none".
func completion(ms int64) (time.Time, bool) {
	if ms < 1e11 || ms > 1e14 {
		return time.Time{}, false
	}
	return time.UnixMilli(ms).UTC(), true
}

// EnrolmentPage is one page of a batch's enrolments in the order of their
// learner ids. Next continues after it and stays valid over restarts of the
// source; empty = this was the last page.
type EnrolmentPage struct {
	Enrolments []Enrolment
	Next       string
}
