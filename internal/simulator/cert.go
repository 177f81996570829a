package simulator

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// certRoute finds the operation of a request to cert-service. Verify came with 1.1.0; the routes of SVG certificates
// and stored templates are not simulated and are 404 like any unknown path.
func (p *Platform) certRoute(r *http.Request) route {
	path := r.URL.Path
	switch {
	case r.Method == http.MethodOptions && p.cfg.Era == Era390:
		return route{"options", p.preflight}
	case r.Method == http.MethodGet && strings.HasSuffix(path, "/health"):
		return route{"health", p.certHealth}
	case r.Method != http.MethodPost:
	case path == "/v1/certs/generate", path == "/private/cert/v1/certs/generate":
		return route{"generate", p.generate}
	case path == "/v1/user/certs/download":
		return route{"download", p.downloadURL}
	case path == "/v1/certs/verify" && p.cfg.Era == Era390:
		return route{"verify", p.verify}
	}
	return route{"unknown", func(x *exchange) func() reply {
		return answer(p.certPage(404, "Not Found", requestLine(x.r)))
	}}
}

// certEnvelope is what every JSON answer of cert-service stands in.
type certEnvelope struct {
	ID           *string         `json:"id"`
	Ver          *string         `json:"ver"`
	TS           *string         `json:"ts"`
	Params       *envelopeParams `json:"params"`
	ResponseCode string          `json:"responseCode"`
	Result       any             `json:"result"`
}

type messageResult struct {
	Message string `json:"message"`
}

var (
	headers100 = http.Header{
		"Referrer-Policy":                   {"origin-when-cross-origin, strict-origin-when-cross-origin"},
		"X-Frame-Options":                   {"DENY"},
		"X-Xss-Protection":                  {"1; mode=block"},
		"X-Content-Type-Options":            {"nosniff"},
		"Content-Security-Policy":           {"default-src 'self'"},
		"X-Permitted-Cross-Domain-Policies": {"master-only"},
	}
	headers390 = http.Header{"Vary": {"Origin"}, "Access-Control-Allow-Origin": {"*"}}
)

func (p *Platform) certHeaders() http.Header {
	if p.cfg.Era == Era100 {
		return headers100
	}
	return headers390
}

// certReply wraps a result. Until 1.3 the envelope's id, ver and ts are null; later they are filled, except on answers
// that no handler made (named says which).
func (p *Platform) certReply(x *exchange, status int, code string, result any, named bool) reply {
	envelope := certEnvelope{ResponseCode: code, Result: result}
	if named && p.cfg.Era != Era100 {
		id := strings.ReplaceAll(strings.TrimPrefix(x.r.URL.Path, "/"), "/", ".")
		ver, ts := "v1", strconv.FormatInt(time.Now().UnixMilli(), 10)
		envelope.ID, envelope.Ver, envelope.TS = &id, &ver, &ts
	}
	out := jsonReply(status, envelope)
	out.header = p.certHeaders()
	return out
}

// certProblem shows a refusal. Release 1.0.0 calls every foreseen failure BAD_REQUEST, whatever its status.
func (p *Platform) certProblem(x *exchange, bad *problem) reply {
	code := "SERVER_ERROR"
	switch {
	case bad == generic:
	case p.cfg.Era == Era100:
		code = "BAD_REQUEST"
	case bad.status < 500:
		code = "CLIENT_ERROR"
	}
	return p.certReply(x, bad.status, code, messageResult{bad.message}, bad != generic)
}

var (
	//go:embed pages/cert100.html
	page100 string
	//go:embed pages/cert390.html
	page390 string
	//go:embed pages/error390.html
	errorPage390 string
)

// certPage is the web framework's own page, which answers what never reaches a handler.
func (p *Platform) certPage(status int, title, detail string) reply {
	page, charset := page390, "utf-8"
	header := http.Header{"Vary": {"Origin"}}
	if p.cfg.Era == Era100 {
		page, charset, header = page100, "UTF-8", headers100
	}
	text := strings.NewReplacer("@@TITLE@@", title, "@@DETAIL@@", detail).Replace(page)
	return reply{status: status, contentType: "text/html; charset=" + charset, body: []byte(text), header: header}
}

func requestLine(r *http.Request) string {
	return fmt.Sprintf("For request '%s %s'", html.EscapeString(r.Method), html.EscapeString(r.URL.Path))
}

func (p *Platform) deadlinePage() reply {
	text := strings.Replace(errorPage390, "@@DETAIL@@", newID()[:8], 1)
	return reply{status: 500, contentType: "text/html; charset=utf-8", body: []byte(text)}
}

func (p *Platform) preflight(x *exchange) func() reply {
	return answer(reply{status: 200, header: http.Header{
		"Vary": {"Origin"}, "Access-Control-Max-Age": {"3600"}, "Access-Control-Allow-Credentials": {"true"},
		"Access-Control-Allow-Origin":  {x.r.Header.Get("Origin")},
		"Access-Control-Allow-Methods": {x.r.Header.Get("Access-Control-Request-Method")},
	}})
}

// certHealth checks nothing. Of /<word>/health only the word service is right, but the body is the same.
func (p *Platform) certHealth(x *exchange) func() reply {
	if x.r.URL.Path == "/health" {
		return answer(p.certReply(x, 200, "OK", map[string]string{"response": "Success"}, true))
	}
	status := 200
	if x.r.URL.Path != "/service/health" {
		status = 400
	}
	return answer(p.certReply(x, status, "OK", map[string]string{"Response": "Success"}, false))
}

// certBody reads the envelope of a call to cert-service and gives its request, or the answer to a body that is none.
func (p *Platform) certBody(x *exchange) (map[string]any, *reply) {
	page := func(status int, detail string) *reply {
		r := p.certPage(status, "Bad Request", requestLine(x.r)+" ["+html.EscapeString(detail)+"]")
		return &r
	}
	if x.tooLarge {
		return nil, page(413, "Request entity too large")
	}
	if !x.isJSON() {
		return map[string]any{}, nil
	}
	invalid := p.certProblem(x, &problem{400, invalidRequest})
	if len(bytes.TrimSpace(x.body)) == 0 {
		return nil, &invalid
	}
	body, err := decodeAny(x.body)
	if err != nil {
		return nil, page(400, "Error decoding json body: com.fasterxml.jackson.core.JsonParseException: "+err.Error())
	}
	envelope, isObject := body.(map[string]any)
	if !isObject || !wellTyped(envelope) {
		return nil, &invalid
	}
	if p.cfg.Era != Era100 && deadlinePassed(envelope["timeout"]) {
		r := p.deadlinePage()
		return nil, &r
	}
	if value, present := envelope["request"]; present && value == nil {
		r := p.certProblem(x, generic)
		return nil, &r
	}
	request, _ := envelope["request"].(map[string]any)
	return request, nil
}

func decodeAny(body []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("Unexpected end-of-input") //nolint:staticcheck // ST1005: the parser's own words
	}
	return v, err
}

// wellTyped says whether the envelope maps to the service's request class: an object named request, a whole number
// named timeout; unknown members are passed over.
func wellTyped(envelope map[string]any) bool {
	switch envelope["request"].(type) {
	case nil, map[string]any:
	default:
		return false
	}
	switch t := envelope["timeout"].(type) {
	case nil:
	case json.Number:
		_, err := t.Int64()
		return err == nil
	default:
		return false
	}
	return true
}

func deadlinePassed(timeout any) bool {
	seconds, given := timeout.(json.Number)
	n, _ := seconds.Int64()
	return given && n <= 0
}

func (p *Platform) generate(x *exchange) func() reply {
	request, refused := p.certBody(x)
	if refused != nil {
		return answer(*refused)
	}
	certMember, isObject := request["certificate"].(map[string]any)
	if request["certificate"] != nil && !isObject {
		return answer(p.certProblem(x, generic))
	}
	q, bad := checkGenerate(p.cfg.Era, certMember, p.certs.defaultBase())
	if bad != nil {
		x.aboutRefused(certMember)
		return answer(p.certProblem(x, bad))
	}
	x.about(q)
	return func() reply { return p.makeAll(x, q) }
}

// about notes for faults and the call log what a generate call is about. The tag is the batch's id, or ends in it.
func (x *exchange) about(q *generateRequest) {
	if id := q.people[0].id; id != nil {
		x.userID = *id
	}
	x.template = []string{q.template, q.design.Name}
	x.batchID = q.design.Tag[strings.LastIndexByte(q.design.Tag, '_')+1:]
}

// aboutRefused notes the recipient of a refused request, so that the call log says whose it was.
func (x *exchange) aboutRefused(cert map[string]any) {
	if data, _ := cert["data"].([]any); len(data) > 0 {
		entry, _ := data[0].(map[string]any)
		x.userID, _ = entry["recipientId"].(string)
	}
}

// issued100 and issued390 are an entry of the answer, each with its era's order of members.
type issued100 struct {
	PDFURL      string     `json:"pdfUrl"`
	JSONData    *assertion `json:"jsonData"`
	JSONURL     string     `json:"jsonUrl"`
	AccessCode  string     `json:"accessCode"`
	RecipientID *string    `json:"recipientId"`
	ID          string     `json:"id"`
}

type issued390 struct {
	ID          string     `json:"id"`
	AccessCode  string     `json:"accessCode"`
	JSONData    *assertion `json:"jsonData"`
	RecipientID *string    `json:"recipientId,omitempty"`
	JSONURL     string     `json:"jsonUrl"`
	PDFURL      string     `json:"pdfUrl"`
}

func (c *certificate) wire(data *assertion) any {
	if c.design.Era == Era100 {
		return issued100{c.pdfURL(), data, c.jsonURL(), c.AccessCode, c.RecipientID, c.ID}
	}
	return issued390{c.ID, c.AccessCode, data, c.RecipientID, c.jsonURL(), c.pdfURL()}
}

// makeAll makes one certificate after another. The first failure is the answer, although those before it exist.
func (p *Platform) makeAll(x *exchange, q *generateRequest) reply {
	kept := p.certs.intern(q.design, func(d *design) { p.record(entry{Design: d}) })
	list := make([]any, 0, len(q.people))
	for _, person := range q.people {
		c, bad, silent := p.makeOne(x.r.Context(), q, kept, person)
		if silent {
			return reply{cut: true}
		}
		if bad != nil {
			return p.certProblem(x, bad)
		}
		x.certificateID = c.ID
		list = append(list, c.wire(c.assertion()))
	}
	return p.certReply(x, 200, "OK", map[string]any{"response": list}, true)
}

// makeOne makes a certificate; silent says that the service never answers.
func (p *Platform) makeOne(ctx context.Context, q *generateRequest, d *design, who person) (made *certificate, bad *problem, silent bool) {
	issued, bad := issuedOn(p.cfg.Era, q.issueDate)
	if bad != nil {
		return nil, bad, false
	}
	end, bad := expires(p.cfg.Era, issued, who.expiry)
	if bad != nil {
		return nil, bad, false
	}
	c := &certificate{
		ID: newID(), AccessCode: newAccessCode(), RecipientName: who.name, RecipientID: who.id,
		IssuedOn: issued.Format(isoForm), Expires: end, ValidFrom: who.validFrom, Design: d.Number, design: d,
	}
	if bad := p.signCertificate(c); bad != nil {
		return nil, bad, false
	}
	if bad, silent := p.printCertificate(ctx, q.template); bad != nil || silent {
		return nil, bad, silent
	}
	if p.cfg.Era == Era390 {
		c.PDFID = newID() // print-service names its files itself
	}
	p.record(entry{Certificate: c})
	p.certs.add(c)
	return c, nil, false
}

// encLimit is the largest body enc-service takes.
const encLimit = 5 << 20

func (p *Platform) signCertificate(c *certificate) *problem {
	keyID := c.design.KeyID
	if keyID == "" {
		return nil
	}
	plain := encode(c.assertion())
	entity, err := decodeAny(plain)
	if err == nil && len(plain) > encLimit {
		err = errUnknownKey // both make enc-service answer with a page of HTML
	}
	if err == nil {
		c.Signature, err = p.keys.sign(keyID, asSent(entity))
		c.Created = javaInstant(time.Now())
	}
	switch {
	case err == nil:
		return nil
	case p.cfg.Era == Era100:
		return generic
	}
	return &problem{500, "Unable to create signature: Unexpected character ('<' (code 60)): expected a valid value " +
		"(JSON String, Number, Array, Object or token 'null', 'true' or 'false')\n" +
		" at [Source: (org.apache.http.conn.EofSensorInputStream); line: 1, column: 2]"}
}

// printCertificate says what becomes of a certificate with this template. The drawing itself waits until somebody
// downloads it.
func (p *Platform) printCertificate(ctx context.Context, template string) (bad *problem, silent bool) {
	verdict := p.templates.check(ctx, template)
	if p.cfg.Era == Era100 {
		if verdict == templateSilent {
			p.faults.sleep(min(deadline100, p.cfg.IdleTimeout) - fetchPatience)
		}
		if verdict != templateGood {
			return generic, false
		}
		return nil, false
	}
	switch verdict {
	case templateGood, templateBadVariables: // variables nobody knows are not looked at
	case templateNotURL, templateRefused, templateSilent:
		p.printQueue.hang()
		return nil, true
	case templateMissing, templateBroken:
		return &problem{500, "print-service:5000 failed to respond"}, false
	case templateNoIndex:
		return &problem{500, `Cannot invoke "java.util.Map.get(Object)" because "printResponse" is null`}, false
	}
	return nil, !p.printQueue.pass()
}

// deadline100 is after how long 1.0.0 gives up.
const deadline100 = 30 * time.Second

type downloadResult struct {
	Response  string `json:"response"`
	SignedURL string `json:"signedUrl"`
}

// downloadURL signs any address it is given: success does not mean that the file exists.
func (p *Platform) downloadURL(x *exchange) func() reply {
	request, refused := p.certBody(x)
	if refused != nil {
		return answer(*refused)
	}
	result := downloadResult{Response: "failure"}
	if path, given := request["pdfUrl"].(string); given {
		result = downloadResult{"success", p.signedURL(path)}
		if c := p.certs.byPath(path); c != nil {
			x.certificateID = c.ID
		}
	}
	return answer(p.certReply(x, 200, "OK", result, true))
}

// signedURL keeps the last two segments of an absolute address, as the real service does.
func (p *Platform) signedURL(path string) string {
	if strings.HasPrefix(path, "http") {
		parts := strings.Split(path, "/")
		path = strings.Join(parts[max(0, len(parts)-2):], "/")
	}
	if path != "" {
		path = "/" + strings.TrimPrefix(path, "/")
	}
	query := url.Values{"se": {time.Now().UTC().Add(10 * time.Minute).Format(isoForm)}}
	return p.URLs().Files + "/certs" + path + "?sv=2017-04-17&" + query.Encode() + "&sr=b&sp=r&sig=" +
		url.QueryEscape(newID())
}
