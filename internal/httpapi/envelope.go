package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// envelope is the frame of every JSON answer. Members that are null are
// present: callers compare whole answers.
type envelope struct {
	ID           string  `json:"id"`
	Ver          string  `json:"ver"`
	TS           string  `json:"ts"`
	Params       *params `json:"params"`
	ResponseCode string  `json:"responseCode"`
	Result       any     `json:"result"`
}

type params struct {
	ResMsgID *string `json:"resmsgid"`
	MsgID    string  `json:"msgid"`
	Err      *string `json:"err"`
	Status   string  `json:"status"`
	ErrMsg   *string `json:"errmsg"`
}

// succeed answers 200 with the result.
func (a *api) succeed(w http.ResponseWriter, r *http.Request, result any) error {
	body, err := marshal(result)
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	w.Header().Set("X-Response-Length", strconv.Itoa(len(body)))
	return a.send(w, r, http.StatusOK, success(r, json.RawMessage(body)))
}

func success(r *http.Request, result any) envelope {
	return envelope{
		Params:       &params{MsgID: entryOf(r).requestID, Status: "success"},
		ResponseCode: "OK", Result: result,
	}
}

// fail answers with a refusal.
func (a *api) fail(w http.ResponseWriter, r *http.Request, why refusal) {
	note(r, zap.String("code", why.code))
	if why.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	if err := a.send(w, r, why.status, failure(r, why)); err != nil {
		note(r, zap.Error(err))
	}
}

func failure(r *http.Request, why refusal) envelope {
	return envelope{
		Params:       &params{MsgID: entryOf(r).requestID, Err: why.err(), Status: why.code, ErrMsg: &why.text},
		ResponseCode: why.responseCode(), Result: struct{}{},
	}
}

// send completes an answer with who gives it and when, and writes it.
func (a *api) send(w http.ResponseWriter, r *http.Request, status int, answer envelope) error {
	if answer.ID == "" {
		answer.ID, answer.Ver = identity(a.pattern(r), r.URL.Path)
	}
	if answer.TS == "" {
		answer.TS = timestamp(a.Now())
	}
	return write(w, status, answer)
}

func write(w http.ResponseWriter, status int, answer envelope) error {
	body, err := marshal(answer)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff") // what we repeat from a request stays JSON for browsers
	w.WriteHeader(status)
	w.Write(body) //nolint:gosec // JSON, not HTML
	return nil
}

// marshal encodes without the HTML escapes that the platform's answers never
// had: a template name with "&" is to be readable.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// timestamp writes the platform's "yyyy-MM-dd HH:mm:ss:SSSZ". Its colon before
// the milliseconds is beyond a layout.
func timestamp(t time.Time) string {
	t = t.UTC()
	return fmt.Sprintf("%s:%03d%s", t.Format(time.DateTime), t.Nanosecond()/int(time.Millisecond), t.Format("-0700"))
}

// identity derives the id and ver of an answer from its route: "/v1" becomes
// "api", slashes become dots, and ids are left out. An unknown path gives its
// own, cut to a length that cannot be abused.
func identity(pattern, path string) (id, ver string) {
	if slices.Contains(issuePatterns, pattern) {
		pattern = issuePatterns[0]
	}
	if pattern == "" {
		pattern = cut(path, 200)
	}
	segments := strings.FieldsFunc(pattern, func(c rune) bool { return c == '/' })
	segments = slices.DeleteFunc(segments, func(s string) bool { return strings.HasPrefix(s, "{") })
	if len(segments) == 0 {
		return "api", ""
	}
	ver = segments[0]
	if ver == "v1" {
		segments = segments[1:]
	}
	return strings.Join(append([]string{"api"}, segments...), "."), ver
}

// cut shortens text from outside before it is repeated in an answer.
func cut(s string, most int) string {
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}
