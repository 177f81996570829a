package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// learnerRoute finds the operation of a request to learner-service. Paths with the word private need no token inside
// the platform, and of the others only the open ones are simulated.
func (p *Platform) learnerRoute(r *http.Request) route {
	path := r.URL.Path
	switch r.Method + " " + path {
	case "POST /private/user/v1/certs/add":
		return route{"certs_add", p.certsAdd}
	case "POST /private/user/v1/certs/validate":
		return route{"certs_validate", p.certsValidate}
	case "POST /private/user/v1/search":
		return route{"user_search", p.userSearch}
	case "POST /v1/org/read":
		return route{"org_read", p.orgRead}
	case "POST /v1/notification/email", "POST /private/user/v1/notification/email":
		return route{"email", p.notify}
	case "GET /health", "GET /service/health":
		return route{"health", p.learnerHealth}
	}
	if id, found := strings.CutPrefix(path, "/private/user/v1/read/"); found && r.Method == http.MethodGet {
		return route{"user_read", func(x *exchange) func() reply { return p.userRead(x, id) }}
	}
	return route{"unknown", func(x *exchange) func() reply {
		return answer(p.certPage(404, "Not Found", requestLine(x.r)))
	}}
}

type envelopeParams struct {
	ResMsgID *string `json:"resmsgid"`
	MsgID    *string `json:"msgid"`
	Err      *string `json:"err"`
	Status   string  `json:"status"`
	ErrMsg   *string `json:"errmsg"`
}

// sunbirdEnvelope is what the Sunbird services answer in, learner-service as well as content.
type sunbirdEnvelope struct {
	ID           string         `json:"id"`
	Ver          string         `json:"ver"`
	TS           string         `json:"ts"`
	Params       envelopeParams `json:"params"`
	ResponseCode string         `json:"responseCode"`
	Result       any            `json:"result"`
}

// refusal is an error of learner-service in its 2019 form.
type refusal struct {
	status int
	code   string
	text   string
}

func mandatory(name string) *refusal {
	return &refusal{400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter " + name + " is missing."}
}

func dataType(name, kind string) *refusal {
	return &refusal{400, "DATA_TYPE_ERROR", fmt.Sprintf("Data type of %s should be %s.", name, kind)}
}

func invalidParameter(value, name string) *refusal {
	return &refusal{
		400, "INVALID_PARAMETER_VALUE",
		fmt.Sprintf("Invalid value %s for parameter %s. Please provide a valid value.", value, name),
	}
}

var (
	invalidData   = &refusal{400, "INVALID_REQUESTED_DATA", invalidRequest}
	internalError = &refusal{500, "INTERNAL_ERROR", genericMessage}
)

// learnerEnvelope names the route as the service does: ver is the first segment of the path, and id is blank on
// private routes.
func learnerEnvelope(x *exchange) sunbirdEnvelope {
	segments := strings.Split(strings.Trim(x.r.URL.Path, "/"), "/")
	e := sunbirdEnvelope{Ver: segments[0], TS: sunbirdTime(time.Now())}
	if segments[0] != "private" {
		e.ID = "api." + strings.Join(segments[1:], ".")
	}
	if id := x.r.Header.Get("X-Request-Id"); id != "" {
		e.Params.MsgID = &id
	}
	return e
}

// sunbirdTime writes the milliseconds after a colon.
func sunbirdTime(t time.Time) string {
	return fmt.Sprintf("%s:%03d%s", t.Format("2006-01-02 15:04:05"), t.Nanosecond()/1e6, t.Format("-0700"))
}

func learnerOK(x *exchange, result any) reply {
	e := learnerEnvelope(x)
	e.Params.Status, e.ResponseCode, e.Result = "success", "OK", result
	return jsonReply(200, e)
}

func learnerError(x *exchange, bad *refusal) reply {
	e := learnerEnvelope(x)
	e.Params.Err, e.Params.Status, e.Params.ErrMsg = &bad.code, bad.code, &bad.text
	e.Result = struct{}{}
	switch {
	case bad.status == 404:
		e.ResponseCode = "RESOURCE_NOT_FOUND"
	case bad.status >= 500:
		e.ResponseCode = "SERVER_ERROR"
	default:
		e.ResponseCode = "CLIENT_ERROR"
	}
	return jsonReply(bad.status, e)
}

func (p *Platform) learnerHealth(x *exchange) func() reply {
	return answer(learnerOK(x, map[string]any{"response": map[string]any{"checks": []any{}, "healthy": true, "name": "learner"}}))
}

// learnerBody reads the member request into q, or gives the answer to a body that is none.
func (p *Platform) learnerBody(x *exchange, q any) *reply {
	if x.tooLarge {
		r := p.certPage(413, "Bad Request", requestLine(x.r)+" [Request entity too large]")
		return &r
	}
	refuse := func(bad *refusal) *reply {
		r := learnerError(x, bad)
		return &r
	}
	if !x.isJSON() {
		return refuse(invalidData)
	}
	var envelope struct {
		Request json.RawMessage `json:"request"`
	}
	if err := json.Unmarshal(x.body, &envelope); err != nil {
		if json.Valid(x.body) {
			return refuse(invalidData)
		}
		r := p.certPage(400, "Bad Request", requestLine(x.r)+" [Invalid Json]")
		return &r
	}
	if empty(envelope.Request) || envelope.Request[0] != '{' || bytes.Equal(bytes.TrimSpace(envelope.Request[1:]), []byte("}")) {
		return refuse(invalidData)
	}
	if err := json.Unmarshal(envelope.Request, q); err != nil {
		return refuse(internalError)
	}
	return nil
}

// empty says whether a raw member is absent or null.
func empty(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// rawText reads a raw member as text; ok is false for another type.
func rawText(raw json.RawMessage) (text string, ok bool) {
	if empty(raw) {
		return "", true
	}
	return text, json.Unmarshal(raw, &text) == nil
}
