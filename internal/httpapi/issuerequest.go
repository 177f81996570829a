package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ecreds/issuer/internal/issue"
)

// maxIDLength bounds ids and certificate names, in characters. The platform's
// are below 80; an index of the ledger takes about 2,700 bytes.
const maxIDLength = 256

// parseIssueRequest reads the body of /issue: the union of what the platform's
// eras have sent. Checks come in the platform's order, so that a body with two
// faults is refused for the same one as ever.
func parseIssueRequest(body []byte) (issue.Request, error) {
	fields, err := requestMember(body)
	if err != nil {
		return issue.Request{}, err
	}
	course, err := fields.mandatory("courseId", "collectionId")
	if err != nil {
		return issue.Request{}, err
	}
	batch, err := fields.mandatory("batchId")
	if err != nil {
		return issue.Request{}, err
	}
	certificate, err := fields.certificate()
	if err != nil {
		return issue.Request{}, err
	}
	filter, err := fields.filter()
	if err != nil {
		return issue.Request{}, err
	}
	return issue.Request{
		Batch: issue.BatchID(batch), Course: issue.CourseID(course), Certificate: certificate, Filter: filter,
	}, nil
}

// requestMember finds the member that holds everything. A body without it is
// an empty request, as the platform has it; one with a null or a text there is
// no request at all.
func requestMember(body []byte) (members, error) {
	value, ok := parseStrict(body)
	if !ok {
		return nil, errBody
	}
	whole, ok := value.(members)
	if !ok {
		return nil, errBody
	}
	inner, given := whole["request"]
	if !given {
		return members{}, nil
	}
	request, ok := inner.(members)
	if !ok {
		return nil, errBody
	}
	return request, nil
}

// mandatory reads an id that has to be there under one of its names; the first
// that is neither null nor blank wins.
func (m members) mandatory(names ...string) (string, error) {
	for _, name := range names {
		id, err := m.text(name)
		if err != nil || strings.TrimSpace(id) != "" {
			return id, err
		}
	}
	return "", missingError(strings.Join(names, "/"))
}

// text reads a text; null and absent are "".
func (m members) text(name string) (string, error) {
	switch value := m[name].(type) {
	case nil:
		return "", nil
	case string:
		return value, checkID(name, value)
	default:
		return "", typeError(name, "String")
	}
}

// checkID refuses what no id of the platform looks like and some store would
// choke on, PostgreSQL on a zero byte for one. Blank ones are for the caller to
// judge: they are missing, not wrong.
func checkID(name, id string) error {
	if !harmlessText(strings.TrimSpace(id), maxIDLength) {
		return invalidValue(name, id)
	}
	return nil
}

func harmlessText(s string, most int) bool {
	return utf8.RuneCountInString(s) <= most && !strings.ContainsFunc(s, unicode.IsControl)
}

// certificate reads the certificate's name. A blank one is refused instead of
// taken for "every certificate of the course": what it issues cannot be called
// back, what it refuses can be sent again.
func (m members) certificate() (string, error) {
	name, err := m.text("certificate")
	if _, given := m["certificate"].(string); given && err == nil && strings.TrimSpace(name) == "" {
		return "", invalidValue("certificate", name)
	}
	return name, err
}

// fingerprint sums up what a request asks for, so that the same meaning in
// another spelling is a repeat and not a conflict.
func fingerprint(r issue.Request) (string, error) {
	meaning := r.Filter
	meaning.Statuses = slices.Sorted(slices.Values(r.Filter.WantedStatuses()))
	text, err := json.Marshal([]any{r.Batch, r.Course, r.Certificate, meaning, r.ReIssue})
	if err != nil {
		return "", fmt.Errorf("encode the request's meaning: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
