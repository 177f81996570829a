package simulator

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

type verifyResult struct {
	Valid      bool     `json:"valid"`
	Messages   []string `json:"messages"`
	ErrorCount int      `json:"errorCount"`
}

// verify judges an assertion: its own body, or the file at the address given.
func (p *Platform) verify(x *exchange) func() reply {
	request, refused := p.certBody(x)
	if refused != nil {
		return answer(*refused)
	}
	data, bad := p.assertionOf(request)
	if bad != nil {
		return answer(p.certProblem(x, bad))
	}
	return func() reply {
		result, bad := p.judge(data)
		if bad != nil {
			return p.certProblem(x, bad)
		}
		return p.certReply(x, 200, "OK", map[string]any{"response": result}, true)
	}
}

func (p *Platform) assertionOf(request map[string]any) (map[string]any, *problem) {
	f := &fields{blankIsMissing: true}
	member := f.object(request, "certificate")
	if f.bad != nil {
		return nil, missing("")
	}
	if _, given := member["data"]; given {
		data := f.object(member, "data")
		return data, f.bad
	}
	if _, given := member["id"]; !given {
		return nil, &problem{400, "INVALID_REQUESTED_DATA"}
	}
	id := f.optional(member, "id")
	if id == "" {
		return nil, missing(".uuid")
	}
	c := p.certs.byPath(id)
	if c == nil {
		return nil, invalidValue(id, "id")
	}
	data, err := decodeAny(encode(c.assertion()))
	if err != nil {
		return nil, generic
	}
	return data.(map[string]any), nil
}

var errVerify = &problem{500, "Unable to verify signature "}

func (p *Platform) judge(data map[string]any) (verifyResult, *problem) {
	result := verifyResult{Messages: []string{}}
	valid, bad := p.signatureValid(data)
	if bad != nil {
		return result, bad
	}
	if !valid {
		result.Messages = append(result.Messages,
			"ERROR: Assertion.signature - certificate is not valid , signature verification failed")
	}
	if end, _ := data["expires"].(string); end != "" {
		// An end that cannot be read is passed over.
		if t, err := time.Parse(isoForm, end); err == nil && t.Before(time.Now()) {
			result.Messages = append(result.Messages, "ERROR: Assertion.expires - certificate has been expired")
		}
	}
	result.ErrorCount = len(result.Messages)
	result.Valid = result.ErrorCount == 0
	return result, nil
}

// signatureValid judges the signature of the data without it. Members of the wrong kind are what the service falls
// over: the generic 500.
func (p *Platform) signatureValid(data map[string]any) (bool, *problem) {
	verification, isObject := data["verification"].(map[string]any)
	if !isObject {
		return false, generic
	}
	if kinds, _ := verification["type"].([]any); len(kinds) == 1 && kinds[0] == "hosted" {
		return true, nil
	}
	signature, isObject := data["signature"].(map[string]any)
	value, isText := signature["signatureValue"].(string)
	keyID, known := keyIDOf(verification["creator"])
	if !isObject || !isText || !known {
		return false, generic
	}
	claim := make(map[string]any, len(data))
	for name, member := range data {
		if name != "signature" {
			claim[name] = member
		}
	}
	valid, err := p.keys.verify(keyID, asSent(claim), value)
	switch {
	case err == nil:
		return valid, nil
	case errors.Is(err, errNull):
		return false, generic
	}
	return false, errVerify
}

// keyIDOf reads the key's number from …/2_publicKey.json.
func keyIDOf(creator any) (string, bool) {
	text, _ := creator.(string)
	id, _, _ := strings.Cut(text[strings.LastIndexByte(text, '/')+1:], "_")
	_, err := strconv.Atoi(id)
	return id, err == nil
}
