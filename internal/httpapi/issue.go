package httpapi

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/ecreds/issuer/internal/issue"
)

// issueNeeds is what /issue cannot do without: jobs are kept in the ledger,
// learners are counted, and courses have the templates.
const issueNeeds = "The ledger, the enrolment source or the content service"

// maxKeyLength bounds an Idempotency-Key, in characters.
const maxKeyLength = 255

// issue answers the platform's call. Once it says "submitted", the job is
// written.
func (a *api) issue(w http.ResponseWriter, r *http.Request) error {
	request, err := readIssue(r)
	if err != nil {
		return err
	}
	note(r, zap.String("batch", string(request.Batch)))
	acceptance, err := a.Accepter.Accept(r.Context(), request)
	if err != nil {
		return err
	}
	if acceptance.Job != "" {
		note(r, zap.String("job", string(acceptance.Job)))
	}
	return a.succeed(w, r, map[string]any{"result": newIssueAnswer(request, acceptance)})
}

// readIssue reads everything that a call says, in the platform's order: type,
// body, then what came in later years.
func readIssue(r *http.Request) (issue.Request, error) {
	body, err := readBody(r)
	if err != nil {
		return issue.Request{}, err
	}
	request, err := parseIssueRequest(body)
	if err != nil {
		return issue.Request{}, err
	}
	if err := refuseDryRun(r); err != nil {
		return issue.Request{}, err
	}
	request.ReIssue = strings.EqualFold(r.URL.Query().Get("reIssue"), "true")
	request.TraceParent = entryOf(r).traceParent
	if request.IdempotencyKey, err = idempotencyKey(r); err != nil {
		return issue.Request{}, err
	}
	request.Fingerprint, err = fingerprint(request)
	return request, err
}

// readBody reads a body that says that it is JSON.
func readBody(r *http.Request) ([]byte, error) {
	if !isJSON(r.Header.Get("Content-Type")) {
		return nil, errContentType
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, unreadable(err)
	}
	return body, nil
}

// isJSON accepts parameters such as a charset. The text is JSON in UTF-8
// whatever they say.
func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return (err == nil || errors.Is(err, mime.ErrInvalidMediaParameter)) && media == "application/json"
}

// refuseDryRun keeps a call that asks for a trial from issuing for real, in
// whatever spelling it asks.
func refuseDryRun(r *http.Request) error {
	for name, values := range r.URL.Query() {
		if strings.EqualFold(name, "dryRun") && !strings.EqualFold(values[0], "false") {
			return invalidValue("dryRun", values[0])
		}
	}
	return nil
}

func idempotencyKey(r *http.Request) (string, error) {
	key := r.Header.Get("Idempotency-Key")
	unprintable := strings.ContainsFunc(key, func(c rune) bool { return !unicode.IsPrint(c) })
	if unprintable || !utf8.ValidString(key) || utf8.RuneCountInString(key) > maxKeyLength {
		return "", invalidValue("Idempotency-Key", strings.ToValidUTF8(key, "�"))
	}
	return key, nil
}

// issueAnswer has the members of both eras, and ours beside them.
type issueAnswer struct {
	Status       string         `json:"status"`
	BatchID      string         `json:"batchId"`
	CourseID     string         `json:"courseId"`
	CollectionID string         `json:"collectionId"`
	Certificate  string         `json:"certificate,omitempty"`
	JobID        string         `json:"jobId,omitempty"`
	Eligible     int            `json:"eligible"`
	Estimate     bool           `json:"estimate,omitempty"`
	Skipped      map[string]int `json:"skipped"`
}

func newIssueAnswer(r issue.Request, accepted issue.Acceptance) issueAnswer {
	status := "No user exists for provided requests"
	if accepted.Job != "" {
		status = "Certificates issue action for Course Batch Id " + string(r.Batch) + " submitted Successfully!"
	}
	return issueAnswer{
		Status: status, BatchID: string(r.Batch), CourseID: string(r.Course), CollectionID: string(r.Course),
		Certificate: r.Certificate, JobID: string(accepted.Job), Eligible: accepted.Eligible,
		Estimate: accepted.Estimate, Skipped: everySkipReason(accepted.Skipped),
	}
}

// everySkipReason shows zeros too: that nobody was skipped for a reason is
// worth knowing.
func everySkipReason(counted map[issue.SkipReason]int) map[string]int {
	all := map[string]int{}
	for _, reason := range issue.SkipReasons() {
		all[string(reason)] = counted[reason]
	}
	return all
}
