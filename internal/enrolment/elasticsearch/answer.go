package elasticsearch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// searchAnswer is what a search answers. Pointers tell missing members from
// zeros: what is missing is an error.
type searchAnswer struct {
	TimedOut bool `json:"timed_out"`
	Shards   struct {
		Total      int `json:"total"`
		Successful int `json:"successful"`
		Failed     int `json:"failed"`
	} `json:"_shards"`
	Hits *struct {
		Total total `json:"total"`
		Hits  []hit `json:"hits"`
	} `json:"hits"`
	Aggregations struct {
		Learners struct {
			Buckets map[string]struct {
				DocCount int `json:"doc_count"`
			} `json:"buckets"`
		} `json:"learners"`
	} `json:"aggregations"`
}

type hit struct {
	ID     string          `json:"_id"`
	Source json.RawMessage `json:"_source"`
	Sort   []sunbird.Text  `json:"sort"`
}

// total is the number of hits: an object with a value since version 7, a number
// before.
type total int

// UnmarshalJSON takes both forms.
func (t *total) UnmarshalJSON(raw []byte) error {
	if raw[0] != '{' {
		return json.Unmarshal(raw, (*int)(t))
	}
	var object struct {
		Value int `json:"value"`
	}
	if err := json.Unmarshal(raw, &object); err != nil {
		return err
	}
	*t = total(object.Value)
	return nil
}

// readSearch gives the answer of a search that has looked everywhere. A part of
// the enrolments must never be taken for all of them.
func readSearch(answer sunbird.Answer) (searchAnswer, error) {
	var found searchAnswer
	if answer.Status != http.StatusOK {
		return found, failed(answer)
	}
	if err := decode(answer, &found); err != nil {
		return found, err
	}
	switch {
	case found.TimedOut:
		return found, partial(answer, "the search timed out")
	case found.Shards.Failed > 0, found.Shards.Successful < found.Shards.Total:
		return found, partial(answer, fmt.Sprintf(
			"the search reached %d of %d shards", found.Shards.Successful, found.Shards.Total))
	case found.Hits == nil:
		return found, unavailable(answer.Bad(&sunbird.BadAnswerError{What: "an answer without hits"}))
	}
	return found, nil
}

func decode(answer sunbird.Answer, into any) error {
	if err := answer.Whole(); err != nil {
		return unavailable(answer.Bad(err))
	}
	if err := sunbird.Decode(answer.Body, into); err != nil {
		return unavailable(answer.Bad(err))
	}
	return nil
}

func (s searchAnswer) count(filter issue.Filter) (issue.EligibleCount, error) {
	counts := make(map[string]int)
	for _, name := range []string{groupInactive, groupStatus, groupNoDate, groupEligible, groupOddDates, groupHeld} {
		bucket, ok := s.Aggregations.Learners.Buckets[name]
		if !ok {
			return issue.EligibleCount{}, fmt.Errorf("%w: elasticsearch counted no %q", issue.ErrUnavailable, name)
		}
		counts[name] = bucket.DocCount
	}
	count := issue.EligibleCount{
		Eligible: counts[groupEligible],
		Estimate: counts[groupOddDates] > 0 || counts[groupHeld] > 0 ||
			(filter.NarrowsDates() && counts[groupEligible] > 0),
		Skipped: make(map[issue.SkipReason]int),
	}
	for _, reason := range issue.SkipReasons() {
		count.Skipped[reason] = 0
	}
	count.Skipped[issue.SkipInactive] = counts[groupInactive]
	count.Skipped[issue.SkipStatus] = counts[groupStatus]
	count.Skipped[issue.SkipNoCompletionDate] = counts[groupNoDate]
	if len(filter.Learners) > 0 {
		count.Skipped[issue.SkipNotEnrolled] = max(len(lowered(filter.Learners))-int(s.Hits.Total), 0)
	}
	return count, nil
}

func (s searchAnswer) page(size int) (issue.EnrolmentPage, error) {
	var page issue.EnrolmentPage
	for _, h := range s.Hits.Hits {
		enrolment, err := h.enrolment()
		if err != nil {
			return issue.EnrolmentPage{}, err
		}
		page.Enrolments = append(page.Enrolments, enrolment)
	}
	if n := len(s.Hits.Hits); n >= size {
		last := s.Hits.Hits[n-1]
		if len(last.Sort) == 0 || last.Sort[0] == "" {
			return issue.EnrolmentPage{}, unreadable(last.ID, "has no sort value")
		}
		page.Next = string(last.Sort[0])
	}
	return page, nil
}

func (s searchAnswer) enrolmentOf(learner issue.LearnerID) (issue.Enrolment, bool, error) {
	for _, h := range s.Hits.Hits {
		enrolment, err := h.enrolment()
		if err != nil {
			return issue.Enrolment{}, false, err
		}
		if enrolment.Learner == learner {
			return enrolment, true, nil
		}
	}
	return issue.Enrolment{}, false, nil
}

// enrolment reads a document as stored. A document that names nobody is an
// error: leaving it out would leave a learner without a certificate unnoticed.
func (h hit) enrolment() (issue.Enrolment, error) {
	var source struct {
		UserID       sunbird.Text    `json:"userId"`
		Active       sunbird.Text    `json:"active"`
		Status       sunbird.Text    `json:"status"`
		CompletedOn  sunbird.Text    `json:"completedOn"`
		Certificates json.RawMessage `json:"certificates"`
	}
	if err := json.Unmarshal(h.Source, &source); err != nil {
		return issue.Enrolment{}, unreadable(h.ID, "has no readable _source")
	}
	if source.UserID == "" {
		return issue.Enrolment{}, unreadable(h.ID, "has no userId")
	}
	held, err := readHeld(source.Certificates)
	if err != nil {
		return issue.Enrolment{}, unreadable(h.ID, "has certificates that cannot be read")
	}
	return issue.Enrolment{
		Learner: issue.LearnerID(source.UserID), Active: strings.EqualFold(string(source.Active), "true"),
		Status: status(source.Status), CompletedOn: whole(string(source.CompletedOn)), Held: held,
	}, nil
}

// noStatus is the status of an enrolment without a readable one: not 0, which
// means "not started" and can be asked for.
const noStatus = -1

func status(t sunbird.Text) int {
	n, err := strconv.Atoi(whole(string(t)))
	if err != nil {
		return noStatus
	}
	return n
}

// readHeld reads the certificates that the enrolment shows, each with its id,
// which later platforms call identifier.
func readHeld(raw json.RawMessage) ([]issue.HeldCertificate, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, nil
	}
	if raw[0] == '{' { // an index does not tell one from a list of one
		raw = append(append([]byte{'['}, raw...), ']')
	}
	var entries []struct {
		Name       sunbird.Text `json:"name"`
		ID         sunbird.Text `json:"id"`
		Identifier sunbird.Text `json:"identifier"`
	}
	if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, err
	}
	var held []issue.HeldCertificate
	for _, e := range entries {
		id := e.ID
		if id == "" {
			id = e.Identifier
		}
		if e.Name != "" {
			held = append(held, issue.HeldCertificate{Name: string(e.Name), ID: string(id)})
		}
	}
	return held, nil
}

// maxNumber is longer than any number that could be a date: larger ones are not
// computed.
const maxNumber = 24

// whole writes out a number such as 1.566368430000E12, which is how some JSON
// printers write a long; every other text stays as it is.
func whole(text string) string {
	if len(text) > maxNumber || !strings.ContainsAny(text, ".eE") || strings.Trim(text, "0123456789.eE+-") != "" {
		return text
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 && len(text)-i > 4 {
		return text
	}
	n, ok := new(big.Rat).SetString(text)
	if !ok || !n.IsInt() {
		return text
	}
	return n.Num().String()
}

// readBatch reads the document of a batch. Only an index that says "found":
// false says that there is no such batch; a missing index answers 404 too.
func readBatch(answer sunbird.Answer, id issue.BatchID) (issue.Batch, bool, error) {
	if answer.Status != http.StatusOK && answer.Status != http.StatusNotFound {
		return issue.Batch{}, false, failed(answer)
	}
	var document struct {
		Found  *bool `json:"found"`
		Source *struct {
			CourseID  sunbird.Text    `json:"courseId"`
			CreatedBy sunbird.Text    `json:"createdBy"`
			Mentors   json.RawMessage `json:"mentors"`
		} `json:"_source"`
	}
	if answer.Status == http.StatusNotFound {
		if err := sunbird.Decode(answer.Body, &document); err != nil || document.Found == nil || *document.Found {
			return issue.Batch{}, false, failed(answer)
		}
		return issue.Batch{}, false, nil
	}
	if err := decode(answer, &document); err != nil {
		return issue.Batch{}, false, err
	}
	if document.Source == nil {
		return issue.Batch{}, false, unavailable(answer.Bad(&sunbird.BadAnswerError{What: "a batch without _source"}))
	}
	batch := issue.Batch{
		ID: id, Course: issue.CourseID(document.Source.CourseID), Creator: issue.LearnerID(document.Source.CreatedBy),
	}
	var mentors []sunbird.Text
	if err := json.Unmarshal(document.Source.Mentors, &mentors); err != nil {
		// One mentor may stand without its list; anything else names nobody.
		var one sunbird.Text
		if json.Unmarshal(document.Source.Mentors, &one) == nil {
			mentors = []sunbird.Text{one}
		}
	}
	for _, mentor := range mentors {
		if mentor != "" {
			batch.Mentors = append(batch.Mentors, issue.LearnerID(mentor))
		}
	}
	return batch, true, nil
}

var errUnreadable = errors.New("an enrolment cannot be read")

func unreadable(document, what string) error {
	return fmt.Errorf("%w: %w: document %s %s", issue.ErrUnavailable, errUnreadable, document, what)
}
