package simulator

import (
	"encoding/json"
	"strings"
)

// Dataset is what a platform knows: loading it adds or replaces by id.
type Dataset struct {
	Organisations []Organisation
	Courses       []Course
	Batches       []Batch
	Users         []User
	Enrolments    []Enrolment
}

// Organisation is a root organisation. One that only a user's RootOrgID names is known too, without keys.
type Organisation struct {
	ID       string
	Name     string
	SignKeys []string
	EncKeys  []string
}

// Course is a content node of the content service.
type Course struct {
	ID        string
	Name      string
	Templates []Template
	// RawCertTemplate stands in place of Templates as the member certTemplate: a list, a map, a JSON string. The
	// literal null leaves the member out, as the service does with text it cannot parse.
	RawCertTemplate json.RawMessage
}

// Template is a certificate template as the course's metadata holds it.
type Template struct {
	Name          string
	HTMLTemplate  string
	Issuer        Issuer
	SignatoryList []Signatory
	// KeyID names the signing key; empty leaves the member keys out: a hosted, unsigned certificate.
	KeyID string
	// Narrative is criteria.narrative; empty leaves criteria out.
	Narrative string
	// Notify is the notifyTemplate; nil leaves it out and nobody is notified.
	Notify map[string]string
}

// Issuer is who stands on the certificate.
type Issuer struct {
	Name      string   `json:"name"`
	URL       string   `json:"url"`
	PublicKey []string `json:"publicKey,omitempty"`
}

// Signatory is who signs the certificate.
type Signatory struct {
	Name        string `json:"name,omitempty"`
	ID          string `json:"id"`
	Designation string `json:"designation"`
	Image       string `json:"image"`
}

// MarshalJSON writes the template as the course's metadata has it.
func (t Template) MarshalJSON() ([]byte, error) {
	type idOf struct {
		ID string `json:"id"`
	}
	type criteria struct {
		Narrative string `json:"narrative"`
	}
	wire := struct {
		Name          string            `json:"name"`
		HTMLTemplate  string            `json:"htmlTemplate,omitempty"`
		Issuer        Issuer            `json:"issuer"`
		SignatoryList []Signatory       `json:"signatoryList,omitempty"`
		Keys          *idOf             `json:"keys,omitempty"`
		Criteria      *criteria         `json:"criteria,omitempty"`
		Notify        map[string]string `json:"notifyTemplate,omitempty"`
	}{Name: t.Name, HTMLTemplate: t.HTMLTemplate, Issuer: t.Issuer, SignatoryList: t.SignatoryList, Notify: t.Notify}
	if t.KeyID != "" {
		wire.Keys = &idOf{t.KeyID}
	}
	if t.Narrative != "" {
		wire.Criteria = &criteria{t.Narrative}
	}
	return json.Marshal(wire)
}

// Batch is a course batch, a document of the index course-batch.
type Batch struct {
	ID        string
	CourseID  string
	Name      string
	Status    int // 0 upcoming, 1 running, 2 ended
	CreatedBy string
	Mentors   []string
	StartDate string
	EndDate   string
	// CertTemplates is the member cert_templates of later platforms; nil leaves it out.
	CertTemplates json.RawMessage
}

// User is a learner, mentor or officer.
type User struct {
	ID        string
	FirstName string // the text "null" is served as such: old data has it
	LastName  string // empty is absent from answers
	UserName  string
	RootOrgID string
	Email     string
	Phone     string // answers carry only maskedPhone, made of it
	Roles     []string
	// Blocked makes the user's read a 400 USER_ACCOUNT_BLOCKED.
	Blocked bool
	// Unindexed hides the user from search while reads and certs/add know it: the index lags behind the table.
	Unindexed bool
}

// maskedPhone shows the last four digits, as the service does.
func (u *User) maskedPhone() string { return mask(u.Phone, 4) }

// maskedEmail shows the first two letters and the domain.
func (u *User) maskedEmail() string {
	at := strings.IndexByte(u.Email, '@')
	if at < 2 {
		return u.Email
	}
	return u.Email[:2] + strings.Repeat("*", at-2) + u.Email[at:]
}

func mask(text string, shown int) string {
	if len(text) <= shown {
		return text
	}
	return strings.Repeat("*", len(text)-shown) + text[len(text)-shown:]
}

// Enrolment is a document of the index user-courses.
type Enrolment struct {
	BatchID  string
	UserID   string
	CourseID string
	Active   bool
	Status   int // 0 not started, 1 in progress, 2 completed
	// CompletedOn is the text as the index keeps it: epoch milliseconds or a date; empty is absent.
	CompletedOn  string
	Certificates []EnrolmentCertificate
}

// EnrolmentCertificate is an entry of an enrolment's certificates.
type EnrolmentCertificate struct {
	Name           string `json:"name"`
	ID             string `json:"id,omitempty"`
	URL            string `json:"url,omitempty"`
	Token          string `json:"token,omitempty"`
	LastIssuedOn   string `json:"lastIssuedOn,omitempty"`
	LastReIssuedOn string `json:"lastReIssuedOn,omitempty"`
}
