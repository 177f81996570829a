package issue

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Course is a course with what is needed to certify it.
type Course struct {
	ID        CourseID
	Name      string
	Templates []Template
}

// Template finds a template by certificate name, ignoring case as the platform
// always has.
func (c Course) Template(certificate string) (Template, bool) {
	i := slices.IndexFunc(c.Templates, func(t Template) bool { return strings.EqualFold(t.Name, certificate) })
	if i < 0 {
		return Template{}, false
	}
	return c.Templates[i], true
}

// Template is one entry of a course's certTemplate.
type Template struct {
	Name         string // the certificate name
	HTMLTemplate string // URL of the template zip, or a container-relative path
	Issuer       Issuer
	Signatories  []Signatory
	KeyID        string // signing key in enc-service; empty = hosted, unsigned certificate
	Narrative    string // criteria narrative; empty = the platform's default text
	// Notify holds the members of notifyTemplate as they stand in the course;
	// empty = nobody is notified.
	Notify map[string]json.RawMessage
}

// Issuer is the body that issues a certificate.
type Issuer struct {
	Name       string
	URL        string
	PublicKeys []string
}

// Signatory is a person who signs a certificate.
type Signatory struct {
	Name, ID, Designation, Image string
}

// Certificate is what cert-service answered for one learner.
type Certificate struct {
	ID         string
	AccessCode string
	PDFURL     string
	JSONURL    string
	// JSONData is the signed assertion. It is passed on byte for byte: parsing
	// and printing it again could break its signature.
	JSONData json.RawMessage
}

// Recipient is a learner as the learner service knows them. Name and phone
// stay in memory: they never reach a log, a metric or Kafka.
type Recipient struct {
	ID        LearnerID
	FirstName string
	LastName  string
	RootOrg   string // root organisation id; may be empty
	HasPhone  bool
}

// FullName is the name on the certificate. The text "null" is old data for
// "no name" and counts as empty.
func (r Recipient) FullName() string {
	return strings.TrimSpace(realName(r.FirstName) + " " + realName(r.LastName))
}

// GivenName is how messages address the learner.
func (r Recipient) GivenName() string {
	if first := realName(r.FirstName); first != "" {
		return first
	}
	return realName(r.LastName)
}

func realName(s string) string {
	s = strings.TrimSpace(s)
	if strings.EqualFold(s, "null") {
		return ""
	}
	return s
}

// GenerateRequest is everything cert-service needs for one certificate.
type GenerateRequest struct {
	Course    Course
	Template  Template
	Batch     BatchID
	Recipient Recipient
	IssuedOn  time.Time // the day the learner completed the course, in the zone of certificates
}

// Registration tells the platform that a certificate belongs to a learner.
type Registration struct {
	Learner     LearnerID
	Course      CourseID
	Batch       BatchID
	Certificate Certificate
	OldID       string // the certificate it replaces; empty on a first issue
	Repeated    bool   // it was sent before: the service may have it by now
}

// Notification announces a certificate.
type Notification struct {
	Learner   LearnerID
	GivenName string
	Course    Course
	Template  Template
	IssuedOn  time.Time
}
