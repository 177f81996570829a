package simulator

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// document is what the search engine looks at: an enrolment or a batch.
type document interface {
	docID() string
	// value is a member as text (numbers and booleans too), by its name without .raw; false when it is absent.
	value(field string) (string, bool)
	// nested says whether any entry of a nested list has the member.
	nested(path, field string) bool
	source() map[string]any
}

// searchStore holds the indexes. Enrolments stand per batch in the order of their users, so that a page of a large
// batch costs no more than the page.
type searchStore struct {
	mu        sync.RWMutex
	batches   map[string]*batchDoc
	enrolled  map[string]*enrolDoc
	byBatch   map[string][]document // enrolments, by user
	all       []document            // enrolments, by user
	allBatch  []document
	overlays  map[string]map[string]json.RawMessage // what was written to enrolments, by document id
	changes   int64
	countMemo map[string]int
}

func newSearchStore() *searchStore {
	return &searchStore{
		batches: map[string]*batchDoc{}, enrolled: map[string]*enrolDoc{}, byBatch: map[string][]document{},
		overlays: map[string]map[string]json.RawMessage{}, countMemo: map[string]int{},
	}
}

// enrolDoc is a document of user-courses.
type enrolDoc struct {
	Enrolment
	id      string
	userKey string // as .raw has it: lower case
	extra   map[string]json.RawMessage
	version int64
}

func newEnrolDoc(e Enrolment) *enrolDoc {
	return &enrolDoc{Enrolment: e, id: e.BatchID + "_" + e.UserID, userKey: strings.ToLower(e.UserID), version: 1}
}

// load adds and replaces, and sorts once at the end.
func (s *searchStore) load(batches []Batch, enrolments []Enrolment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range batches {
		s.batches[b.ID] = &batchDoc{b}
	}
	s.allBatch = nil
	for _, b := range s.batches {
		s.allBatch = append(s.allBatch, b)
	}
	slices.SortFunc(s.allBatch, func(a, b document) int { return strings.Compare(a.docID(), b.docID()) })
	touched := map[string]bool{}
	for _, e := range enrolments {
		s.put(newEnrolDoc(e))
		touched[strings.ToLower(e.BatchID)] = true
	}
	for batch := range touched {
		slices.SortFunc(s.byBatch[batch], byUser)
	}
	if len(touched) > 0 {
		slices.SortFunc(s.all, byUser)
	}
	s.changed()
}

func byUser(a, b document) int {
	return cmp.Or(strings.Compare(userKey(a), userKey(b)), strings.Compare(a.docID(), b.docID()))
}

func userKey(d document) string {
	key, _ := d.value("userId")
	return key
}

// put stores a document; a new one is appended and has to be sorted in by the caller.
func (s *searchStore) put(d *enrolDoc) {
	if overlay := s.overlays[d.id]; overlay != nil {
		d.merge(overlay)
	}
	if old := s.enrolled[d.id]; old != nil {
		d.version = old.version + 1
		*old = *d
		return
	}
	s.enrolled[d.id] = d
	batch := strings.ToLower(d.BatchID)
	s.byBatch[batch] = append(s.byBatch[batch], d)
	s.all = append(s.all, d)
}

func (s *searchStore) changed() {
	s.changes++
	clear(s.countMemo)
}

// merge takes over members of a partial document; those the type has no place for are kept as they are.
func (d *enrolDoc) merge(doc map[string]json.RawMessage) {
	for name, raw := range doc {
		var err error
		switch name {
		case "certificates":
			d.Certificates = nil
			err = json.Unmarshal(raw, &d.Certificates)
		case "active":
			err = json.Unmarshal(raw, &d.Active)
		case "status":
			err = json.Unmarshal(raw, &d.Status)
		case "completedOn":
			d.CompletedOn = ""
			err = json.Unmarshal(raw, &d.CompletedOn)
		case "batchId", "userId", "courseId":
		default:
			d.keep(name, raw)
		}
		if err != nil {
			d.keep(name, raw)
		}
	}
}

func (d *enrolDoc) keep(name string, raw json.RawMessage) {
	extra := make(map[string]json.RawMessage, len(d.extra)+1)
	for k, v := range d.extra {
		extra[k] = v
	}
	extra[name] = append(json.RawMessage(nil), raw...)
	d.extra = extra
}

func (d *enrolDoc) docID() string { return d.id }

func (d *enrolDoc) value(field string) (string, bool) {
	switch field {
	case "userId":
		return d.userKey, true
	case "batchId":
		return strings.ToLower(d.BatchID), true
	case "courseId":
		return strings.ToLower(d.CourseID), true
	case "active":
		return strconv.FormatBool(d.Active), true
	case "status":
		return strconv.Itoa(d.Status), true
	case "completedOn":
		return strings.ToLower(d.CompletedOn), d.CompletedOn != ""
	case "id", "identifier", "_id":
		return strings.ToLower(d.id), true
	}
	return "", false
}

func (d *enrolDoc) nested(path, field string) bool {
	if path != "certificates" {
		return false
	}
	for _, c := range d.Certificates {
		switch field {
		case "certificates", "certificates.name":
			if c.Name != "" {
				return true
			}
		case "certificates.token":
			if c.Token != "" {
				return true
			}
		case "certificates.url":
			if c.URL != "" {
				return true
			}
		case "certificates.lastIssuedOn":
			if c.LastIssuedOn != "" {
				return true
			}
		}
	}
	return false
}

func (d *enrolDoc) source() map[string]any {
	out := map[string]any{
		"id": d.id, "identifier": d.id, "userId": d.UserID, "batchId": d.BatchID, "courseId": d.CourseID,
		"active": d.Active, "status": d.Status, "progress": 10 * d.Status, "addedBy": d.UserID,
		"completionPercentage": 50 * d.Status,
	}
	if d.CompletedOn != "" {
		out["completedOn"] = d.CompletedOn
	}
	if d.Certificates != nil {
		out["certificates"] = d.Certificates
	}
	for name, raw := range d.extra {
		out[name] = raw
	}
	return out
}

// batchDoc is a document of course-batch.
type batchDoc struct{ Batch }

func (b *batchDoc) docID() string { return b.ID }

func (b *batchDoc) value(field string) (string, bool) {
	text := ""
	switch field {
	case "id", "identifier", "batchId", "_id":
		text = b.ID
	case "courseId":
		text = b.CourseID
	case "name":
		text = b.Name
	case "createdBy":
		text = b.CreatedBy
	case "enrollmentType":
		text = "open"
	case "status":
		text = strconv.Itoa(b.Status)
	}
	return strings.ToLower(text), text != ""
}

func (b *batchDoc) nested(string, string) bool { return false }

func (b *batchDoc) source() map[string]any {
	out := map[string]any{
		"id": b.ID, "identifier": b.ID, "batchId": b.ID, "courseId": b.CourseID, "name": b.Name, "description": "",
		"enrollmentType": "open", "status": b.Status, "startDate": orNull(b.StartDate), "endDate": orNull(b.EndDate),
		"enrollmentEndDate": nil, "createdBy": b.CreatedBy, "createdFor": []string{}, "mentors": b.mentors(),
		"createdDate": "2019-10-01 10:00:00:000+0530", "updatedDate": nil,
	}
	if !empty(b.CertTemplates) {
		out["cert_templates"], out["certTemplates"] = b.CertTemplates, b.CertTemplates
	}
	return out
}

func (b *batchDoc) mentors() []string {
	if b.Mentors == nil {
		return []string{}
	}
	return b.Mentors
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}
