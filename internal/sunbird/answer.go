package sunbird

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

// Answer is what a service answered.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // of an error at most its first 64 KiB

	service string
	sent    func() []string
	broken  error // why the body is not whole
}

var errTooLong = fmt.Errorf("the answer is longer than %d MiB", maxAnswer>>20)

// read takes in the body up to its cap and drains what little may be left.
func (a *Answer) read(body io.Reader) error {
	limit := int64(maxAnswer)
	if a.Status >= http.StatusMultipleChoices {
		limit = maxErrorAnswer
	}
	var err error
	if a.Body, err = io.ReadAll(io.LimitReader(body, limit)); err != nil {
		return err
	}
	// A drain that fails costs the connection, not the answer.
	drained, _ := io.Copy(io.Discard, io.LimitReader(body, maxDrain))
	if drained > 0 && limit == maxAnswer {
		return errTooLong
	}
	return nil
}

// Envelope is the frame of every answer of the platform. Members of unexpected
// types are taken as text: eras differ in them, and only the result matters.
type Envelope struct {
	ID           Text            `json:"id"`
	Ver          Text            `json:"ver"`
	TS           Text            `json:"ts"`
	Params       Params          `json:"params"`
	ResponseCode Text            `json:"responseCode"`
	Result       json.RawMessage `json:"result"`
}

// Params tells how a call went, in words.
type Params struct {
	ResMsgID Text `json:"resmsgid"`
	MsgID    Text `json:"msgid"`
	Err      Text `json:"err"`
	Status   Text `json:"status"`
	ErrMsg   Text `json:"errmsg"`
}

// Envelope decodes the frame of the answer.
func (a Answer) Envelope() (Envelope, error) {
	var e Envelope
	if a.broken != nil {
		return e, a.broken
	}
	if err := Decode(a.Body, &e); err != nil {
		return e, err
	}
	return e, nil
}

// Whole says why the body is not whole, nil when it is.
func (a Answer) Whole() error { return a.broken }

// Words are what the service says about the call, unscrubbed and for
// classification only: the errmsg of its params, else the message of its result
// (cert-service), else the error's code, else the title of an HTML page, else
// the start of the text.
func (a Answer) Words() string {
	e, err := a.Envelope()
	if err != nil {
		return pageTitle(a.Body)
	}
	var result struct {
		Message Text `json:"message"`
	}
	_ = json.Unmarshal(e.Result, &result) // of another shape: it has no message
	for _, text := range []Text{e.Params.ErrMsg, result.Message, e.Params.Err} {
		if strings.TrimSpace(string(text)) != "" {
			return string(text)
		}
	}
	return ""
}

// Code is the error code of the answer's envelope, such as USER_NOT_FOUND; ""
// when it has none. Services after 2020 answer codes of their own there, so
// that words decide where both are known.
func (a Answer) Code() string {
	e, err := a.Envelope()
	if err != nil {
		return ""
	}
	return string(e.Params.Err)
}

// HTML says that the answer is a page of a web server or framework: nothing of
// the service itself has spoken.
func (a Answer) HTML() bool { return bytes.HasPrefix(bytes.TrimSpace(a.Body), []byte("<")) }

var titleElement = regexp.MustCompile(`(?is)<(?:title|pre)[^>]*>(.*?)</`)

// pageTitle says in a few words what a text that is not an envelope says.
func pageTitle(body []byte) string {
	body = body[:min(len(body), maxErrorAnswer)]
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) {
		return string(body)
	}
	if found := titleElement.FindSubmatch(body); found != nil {
		return "HTML page: " + html.UnescapeString(strings.TrimSpace(string(found[1])))
	}
	return "HTML page"
}

// Failure classifies the answer by its status alone. A status of success gives
// a bad answer: whoever asks did not find in it what makes a success.
func (a Answer) Failure() *issue.Failure {
	if a.Success() {
		return a.Bad(nil)
	}
	verdict, reason := Classify(a.Status)
	return a.As(verdict, reason)
}

// As classifies the answer as an edge knows better.
func (a Answer) As(verdict issue.Verdict, reason issue.Reason) *issue.Failure {
	message := Scrub(a.Words(), values(a.sent)...)
	if message == "" {
		message = fmt.Sprintf("%s said nothing", a.service)
	}
	return &issue.Failure{
		Verdict: verdict, Reason: reason, HTTPStatus: a.Status, Message: message, RetryAfter: RetryAfter(a.Header, time.Now()),
	}
}

// Bad classifies an answer of success that is empty, unreadable, or without
// what we asked for. Nothing of it is repeated: it may hold names.
func (a Answer) Bad(cause error) *issue.Failure {
	what := "an answer that cannot be read"
	var stated *BadAnswerError
	switch {
	case a.broken != nil:
		what, cause = "an answer that broke off", a.broken
	case len(bytes.TrimSpace(a.Body)) == 0:
		what = "an empty answer"
	case a.HTML():
		what = "an HTML page"
	case errors.As(cause, &stated):
		what = stated.What
	}
	return &issue.Failure{
		Verdict: issue.Transient, Reason: issue.ReasonBadAnswer, HTTPStatus: a.Status,
		Message: fmt.Sprintf("%s gave %s", a.service, what), Err: cause,
	}
}

// Success says whether the status is one of 2xx.
func (a Answer) Success() bool { return a.Status >= 200 && a.Status < 300 }

// BadAnswerError says in our own words what an answer lacks, such as "an answer
// without a certificate".
type BadAnswerError struct{ What string }

func (e *BadAnswerError) Error() string { return e.What }

// Accepted checks the answer of a call that answers nothing but
// result.response SUCCESS, in any case of letters: platforms of different
// years differ in it. Anything else with status 200 is a bad answer; other
// statuses are for the edge.
func (a Answer) Accepted() error {
	e, err := a.Envelope()
	if err != nil {
		return a.Bad(err)
	}
	var result struct {
		Response Text `json:"response"`
	}
	if err := json.Unmarshal(e.Result, &result); err != nil || !strings.EqualFold(string(result.Response), "success") {
		return a.Bad(&BadAnswerError{"an answer without SUCCESS"})
	}
	return nil
}
