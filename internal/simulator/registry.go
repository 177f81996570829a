package simulator

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

// Registration is a row of user_cert: a certificate the learner can see.
type Registration struct {
	ID         string          `json:"id"`
	AccessCode string          `json:"accessCode"`
	UserID     string          `json:"userId"`
	PDFURL     string          `json:"pdfUrl"`
	JSONData   json.RawMessage `json:"jsonData,omitempty"`
	CourseID   string          `json:"courseId,omitempty"`
	BatchID    string          `json:"batchId,omitempty"`
	OldID      string          `json:"oldId,omitempty"`
	Deleted    bool            `json:"deleted,omitempty"`
	CreatedAt  time.Time       `json:"createdAt"`
}

// registry is the table of learner-service; a row's key is the certificate's id, nothing else is unique.
type registry struct {
	era25 bool

	mu    sync.RWMutex
	rows  map[string]*Registration
	order []string
}

func newRegistry(era25 bool) *registry {
	return &registry{era25: era25, rows: map[string]*Registration{}}
}

// Registered lists the rows of certs/add in the order they were added.
func (p *Platform) Registered() []Registration {
	p.registry.mu.RLock()
	defer p.registry.mu.RUnlock()
	out := make([]Registration, len(p.registry.order))
	for i, id := range p.registry.order {
		out[i] = *p.registry.rows[id]
	}
	return out
}

// Unregister forgets the row of a certificate, as a table does that was restored from an older backup.
func (p *Platform) Unregister(id string) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	delete(p.registry.rows, id)
	p.registry.order = slices.DeleteFunc(p.registry.order, func(other string) bool { return other == id })
}

// add inserts a row. From 2.5 on, the row of oldId is marked deleted and, by the service's own mistake, takes over
// what the new one holds.
func (r *registry) add(row Registration) *refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.rows[row.ID]; taken {
		return &refusal{400, "INVALID_PARAMETER", "data already exist."}
	}
	if row.OldID != "" {
		old := r.rows[row.OldID]
		if old == nil {
			return unknownCertificate
		}
		if old.Deleted {
			return unavailable
		}
	}
	r.put(row)
	return nil
}

// put stores a row, replacing what oldId names; it is also how the journal brings rows back.
func (r *registry) put(row Registration) {
	if old := r.rows[row.OldID]; row.OldID != "" && old != nil {
		id := old.ID
		*old = row
		old.ID, old.OldID, old.Deleted = id, "", true
	}
	if _, again := r.rows[row.ID]; !again {
		r.order = append(r.order, row.ID)
	}
	r.rows[row.ID] = &row
}

var (
	unknownCertificate = &refusal{400, "INVALID_PARAMETER", "Please provide valid certId."}
	unavailable        = &refusal{400, "ERROR_UNAVAILABLE_CERTIFICATE", "Certificate is unavailable"}
)

type certsAddRequest struct {
	ID         json.RawMessage `json:"id"`
	AccessCode json.RawMessage `json:"accessCode"`
	PDFURL     json.RawMessage `json:"pdfURL"`
	UserID     json.RawMessage `json:"userId"`
	JSONData   json.RawMessage `json:"jsonData"`
	CourseID   json.RawMessage `json:"courseId"`
	BatchID    json.RawMessage `json:"batchId"`
	OldID      json.RawMessage `json:"oldId"`
}

// UnmarshalJSON reads members by their exact names: pdfUrl is not pdfURL to the service, while encoding/json would
// take the one for the other.
func (q *certsAddRequest) UnmarshalJSON(body []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return err
	}
	*q = certsAddRequest{
		members["id"], members["accessCode"], members["pdfURL"], members["userId"],
		members["jsonData"], members["courseId"], members["batchId"], members["oldId"],
	}
	return nil
}

func (p *Platform) certsAdd(x *exchange) func() reply {
	var q certsAddRequest
	if refused := p.learnerBody(x, &q); refused != nil {
		return answer(*refused)
	}
	row, bad := q.row(p.registry.era25)
	x.userID, x.batchID, x.certificateID = row.UserID, row.BatchID, row.ID
	if bad != nil {
		return answer(learnerError(x, bad))
	}
	return func() reply {
		if p.users.get(row.UserID) == nil {
			return learnerError(x, userNotFound)
		}
		if bad := p.registry.add(row); bad != nil {
			return learnerError(x, bad)
		}
		p.record(entry{Registration: &row})
		return learnerOK(x, map[string]string{"response": "SUCCESS"})
	}
}

// row checks the members in the order the service does.
func (q *certsAddRequest) row(era25 bool) (Registration, *refusal) {
	row := Registration{CreatedAt: time.Now().UTC()}
	row.BatchID, _ = rawText(q.BatchID)
	row.UserID, _ = rawText(q.UserID)
	row.ID, _ = rawText(q.ID)
	for _, f := range []struct {
		name string
		raw  json.RawMessage
		to   *string
	}{{"id", q.ID, &row.ID}, {"accessCode", q.AccessCode, &row.AccessCode}, {"pdfURL", q.PDFURL, &row.PDFURL}, {"userId", q.UserID, &row.UserID}} {
		text, isText := rawText(f.raw)
		if !isText {
			return row, internalError
		}
		if strings.TrimSpace(text) == "" {
			return row, mandatory(f.name)
		}
		*f.to = text
	}
	if empty(q.JSONData) {
		return row, mandatory("jsonData")
	}
	if q.JSONData[0] != '{' {
		return row, dataType("jsonData", "MAP")
	}
	row.JSONData = append(json.RawMessage(nil), q.JSONData...)
	if strings.TrimSpace(row.BatchID) != "" {
		row.CourseID, _ = rawText(q.CourseID)
	}
	if era25 {
		old, _ := rawText(q.OldID)
		row.OldID = strings.TrimSpace(old)
	}
	return row, nil
}

func (p *Platform) certsValidate(x *exchange) func() reply {
	var q struct {
		CertID     string `json:"certId"`
		AccessCode string `json:"accessCode"`
	}
	if refused := p.learnerBody(x, &q); refused != nil {
		return answer(*refused)
	}
	x.certificateID = q.CertID
	if q.CertID == "" {
		return answer(learnerError(x, mandatory("certId")))
	}
	if q.AccessCode == "" {
		return answer(learnerError(x, mandatory("accessCode")))
	}
	return func() reply {
		row, bad := p.registry.validate(q.CertID, q.AccessCode)
		if bad != nil {
			return learnerError(x, bad)
		}
		return learnerOK(x, map[string]any{"response": validated{row.JSONData, row.PDFURL, row.CourseID, row.BatchID}})
	}
}

type validated struct {
	JSON     json.RawMessage `json:"json"`
	PDF      string          `json:"pdf"`
	CourseID string          `json:"courseId"`
	BatchID  string          `json:"batchId"`
}

func (r *registry) validate(id, accessCode string) (Registration, *refusal) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	row := r.rows[id]
	switch {
	case row == nil:
		return Registration{}, unknownCertificate
	case row.Deleted:
		return Registration{}, unavailable
	case row.AccessCode != accessCode:
		return Registration{}, &refusal{400, "INVALID_PARAMETER", "Please provide valid accessCode."}
	}
	return *row, nil
}
