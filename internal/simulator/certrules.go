package simulator

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// problem is a refusal of cert-service: a status and the text of result.message. Its code follows from the era.
type problem struct {
	status  int
	message string
}

const (
	genericMessage = "Process failed,please try again later."
	invalidRequest = "Requested data for this operation is not valid."
)

// generic is the answer to whatever the service did not foresee, a value of the wrong type among it.
var generic = &problem{500, genericMessage}

func missing(field string) *problem {
	return &problem{400, "Mandatory parameter certificate" + field + " is missing."}
}

func invalidValue(value, field string) *problem {
	return &problem{400, fmt.Sprintf("Invalid value %s for parameter %s.", value, field)}
}

// fields checks members of the request one after another, as the service does: the first problem stands. A value of
// the wrong JSON type fails as a cast does there, with the generic 500.
type fields struct {
	blankIsMissing bool // from 1.1.0 on blank counts as missing, in 1.0.0 only empty
	bad            *problem
}

func (f *fields) fail(p *problem) {
	if f.bad == nil {
		f.bad = p
	}
}

// text reads a mandatory text.
func (f *fields) text(m map[string]any, name, path string) string {
	value := f.optional(m, name)
	empty := value == "" || f.blankIsMissing && strings.TrimSpace(value) == ""
	if f.bad == nil && empty {
		f.fail(missing(path + "." + name))
	}
	return value
}

// optional reads a text that may be absent.
func (f *fields) optional(m map[string]any, name string) string {
	value, isText := m[name].(string)
	if !isText && m[name] != nil {
		f.fail(generic)
	}
	return value
}

// object reads a mandatory object with members.
func (f *fields) object(m map[string]any, name string) map[string]any {
	value, isObject := m[name].(map[string]any)
	switch {
	case m[name] == nil, isObject && len(value) == 0:
		f.fail(missing("." + name))
	case !isObject:
		f.fail(generic)
	}
	return value
}

// objects reads a mandatory list of objects.
func (f *fields) objects(m map[string]any, name string) []map[string]any {
	list, isList := m[name].([]any)
	switch {
	case m[name] == nil, isList && len(list) == 0:
		f.fail(missing("." + name))
	case !isList:
		f.fail(generic)
	}
	out := make([]map[string]any, 0, len(list))
	for _, item := range list {
		object, ok := item.(map[string]any)
		if !ok {
			f.fail(generic)
			return nil
		}
		out = append(out, object)
	}
	return out
}

func (f *fields) texts(m map[string]any, name string) []string {
	if m[name] == nil {
		return nil
	}
	list, isList := m[name].([]any)
	if !isList {
		f.fail(generic)
	}
	out := make([]string, 0, len(list))
	for _, item := range list {
		text, isText := item.(string)
		if !isText {
			f.fail(generic)
		}
		out = append(out, text)
	}
	return out
}

// person is one entry of data.
type person struct {
	name      string
	id        *string
	expiry    string
	validFrom string
}

// generateRequest is a request that passed the checks at the door; its dates are judged later, as in the service.
type generateRequest struct {
	design    design
	template  string
	issueDate any // judged when the certificate is made
	people    []person
}

// checkGenerate reads the member certificate by the rules of the era.
func checkGenerate(era Era, cert map[string]any, defaultBase string) (*generateRequest, *problem) {
	f := &fields{blankIsMissing: era != Era100}
	if len(cert) == 0 {
		return nil, missing("")
	}
	q := &generateRequest{design: design{Era: era, Base: defaultBase}}
	f.common(era, cert, q)
	if era == Era100 {
		f.rules100(cert, q)
	} else {
		f.rules390(cert, q)
	}
	if f.bad != nil {
		return nil, f.bad
	}
	return q, nil
}

func (f *fields) common(era Era, cert map[string]any, q *generateRequest) {
	d := &q.design
	d.Name = f.text(cert, "name", "")
	if era == Era100 {
		d.CourseName = f.text(cert, "courseName", "")
	} else {
		d.CourseName = f.optional(cert, "courseName")
	}
	q.template = f.text(cert, "htmlTemplate", "")
	if era == Era100 {
		d.Tag = f.text(cert, "tag", "")
		d.OrgID = f.text(cert, "orgId", "")
	}
	f.people(cert, q)
	issuer := f.object(cert, "issuer")
	d.Issuer = Issuer{Name: f.text(issuer, "name", ".issuer"), URL: f.text(issuer, "url", ".issuer")}
	d.Issuer.PublicKey = f.texts(issuer, "publicKey")
	for _, s := range f.objects(cert, "signatoryList") {
		f.text(s, "name", ".signatoryList") // required, and then dropped
		d.Signatories = append(d.Signatories, Signatory{
			ID:          f.text(s, "id", ".signatoryList"),
			Designation: f.text(s, "designation", ".signatoryList"),
			Image:       f.text(s, "image", ".signatoryList"),
		})
	}
	if _, present := cert["keys"]; present { // null counts as present
		d.KeyID = f.text(f.object(cert, "keys"), "id", ".keys")
	}
	d.Description = f.optional(cert, "description")
}

func (f *fields) people(cert map[string]any, q *generateRequest) {
	for _, entry := range f.objects(cert, "data") {
		p := person{
			name:   f.text(entry, "recipientName", ".data"),
			expiry: f.optional(entry, "expiry"), validFrom: f.optional(entry, "validFrom"),
		}
		if id := f.optional(entry, "recipientId"); entry["recipientId"] != nil {
			p.id = &id
		}
		q.people = append(q.people, p)
	}
}

// rules100: the issuer's publicKey is not called mandatory, but the service falls over without it.
func (f *fields) rules100(cert map[string]any, q *generateRequest) {
	q.issueDate = cert["issueDate"]
	if len(q.design.Issuer.PublicKey) == 0 {
		f.fail(generic)
	}
}

func (f *fields) rules390(cert map[string]any, q *generateRequest) {
	d := &q.design
	q.issueDate = cert["issuedDate"]
	criteria := f.object(cert, "criteria")
	d.Narrative = f.text(criteria, "narrative", ".criteria")
	d.Tag = f.optional(cert, "tag")
	if !validTag(d.Tag) {
		f.fail(invalidValue(d.Tag, "tag"))
	}
	if base := f.optional(cert, "basePath"); base != "" {
		d.Base = base
		if !validBase(base) {
			f.fail(invalidValue(base, "certificate.basePath"))
		}
	}
	f.store(cert)
	f.publicKey(d)
	d.Preview = f.optional(cert, "preview") == "true"
	for name := range criteria {
		if name != "narrative" && name != "id" && name != "type" {
			f.fail(generic)
		}
	}
}

var tagPattern = regexp.MustCompile(`^[^\s[:punct:]]*$`)

// validTag lets letters, digits and _ through.
func validTag(tag string) bool { return tagPattern.MatchString(strings.ReplaceAll(tag, "_", "")) }

// validBase wants a web address whose host has a dot, which keeps localhost out.
func validBase(base string) bool {
	u, err := url.Parse(base)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && strings.Contains(u.Hostname(), ".")
}

func (f *fields) store(cert map[string]any) {
	if _, present := cert["store"]; !present {
		return
	}
	store := f.object(cert, "store")
	kind := f.text(store, "type", ".store")
	if kind != "azure" && kind != "aws" {
		f.fail(invalidValue(kind, "certificate.store.type"))
	}
	account, isObject := store[kind].(map[string]any)
	if !isObject || len(account) == 0 {
		f.fail(missing(".store." + kind))
	}
	for _, name := range []string{"containerName", "account", "key"} {
		f.text(account, name, ".store."+kind)
	}
}

// publicKey wants the signing key among the issuer's keys. Of a key given as an address only the first character of
// the file name is looked at, so ids of two digits fail as addresses: the real service's own mistake.
func (f *fields) publicKey(d *design) {
	keys := d.Issuer.PublicKey
	if len(keys) == 0 || d.KeyID == "" {
		return
	}
	for _, key := range keys {
		if strings.HasPrefix(key, "http") {
			key = key[strings.LastIndexByte(key, '/')+1:]
			key = key[:min(1, len(key))]
		}
		if key == d.KeyID {
			return
		}
	}
	f.fail(&problem{400, fmt.Sprintf("Invalid value [%s] for parameter certificate.issuer.publicKey. "+
		",public key array must contain keys.id value", strings.Join(keys, ", "))})
}

const isoForm = "2006-01-02T15:04:05Z"

// isoTime reads the one full form the services take; time.Parse alone would let fractions of a second through.
func isoTime(text string) (time.Time, bool) {
	t, err := time.Parse(isoForm, text)
	return t, err == nil && len(text) == len(isoForm)
}

var datePrefix = regexp.MustCompile(`^(\d+)-(\d+)-(\d+)`)

// issuedOn judges the issue date: a full ISO time stands, anything else must begin with a date that exists, and what
// follows the date is ignored. Absent and blank are now.
func issuedOn(era Era, value any) (time.Time, *problem) {
	text, isText := value.(string)
	switch {
	case value == nil, isText && strings.TrimSpace(text) == "":
		return time.Now().UTC(), nil
	case !isText:
		return time.Time{}, generic
	}
	if t, ok := isoTime(text); ok {
		return t, nil
	}
	if t, ok := leadingDate(text); ok {
		return t, nil
	}
	if era == Era100 {
		return time.Time{}, generic
	}
	return time.Time{}, &problem{500, "issued date is not in valid format"}
}

func leadingDate(text string) (time.Time, bool) {
	part := datePrefix.FindStringSubmatch(text)
	if part == nil {
		return time.Time{}, false
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(part[i+1])
	}
	t := time.Date(n[0], time.Month(n[1]), n[2], 0, 0, 0, 0, time.UTC)
	return t, t.Year() == n[0] && int(t.Month()) == n[1] && t.Day() == n[2]
}

var relative = regexp.MustCompile(`^(\d{1,4})([dmyDMY])$`)

// expires judges the expiry: a full ISO time, or tokens such as "2m 2y" counted from the issue date.
func expires(era Era, issued time.Time, value string) (string, *problem) {
	if value == "" {
		return "", nil
	}
	if t, ok := isoTime(value); ok {
		return t.Format(isoForm), nil
	}
	end := issued
	for _, token := range strings.Fields(value) {
		part := relative.FindStringSubmatch(token)
		if part == nil {
			if era == Era100 {
				return "", generic
			}
			return "", &problem{500, "Given expiry date is invalid" + value}
		}
		n, _ := strconv.Atoi(part[1])
		end = addUnits(end, n, strings.ToLower(part[2]))
	}
	return end.Format(isoForm), nil
}

func addUnits(t time.Time, n int, unit string) time.Time {
	switch unit {
	case "d":
		return t.AddDate(0, 0, n)
	case "m":
		return t.AddDate(0, n, 0)
	}
	return t.AddDate(n, 0, 0)
}
