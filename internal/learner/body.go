package learner

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// registerBody writes the body of certs/add by hand: encoding/json would compact
// and escape the signed assertion, which has to arrive byte for byte. The PDF's
// member really is pdfURL, beside jsonUrl.
func registerBody(r issue.Registration) ([]byte, error) {
	if assertion := bytes.TrimSpace(r.Certificate.JSONData); len(assertion) == 0 || !json.Valid(assertion) {
		return nil, &issue.Failure{
			Verdict: issue.Permanent, Reason: issue.ReasonBadRequest,
			Message: "the certificate has no assertion that could be registered",
			Err:     errors.New("jsonData is not JSON"),
		}
	}
	var b bytes.Buffer
	b.WriteString(`{"request":{`)
	text := func(name, value string) {
		encoded, _ := sunbird.JSON(value) // text always encodes
		b.WriteString(`"` + name + `":`)
		b.Write(encoded)
	}
	for _, member := range [][2]string{
		{"userId", string(r.Learner)},
		{"id", r.Certificate.ID},
		{"accessCode", r.Certificate.AccessCode},
		{"pdfURL", r.Certificate.PDFURL},
		{"jsonUrl", r.Certificate.JSONURL},
	} {
		text(member[0], member[1])
		b.WriteByte(',')
	}
	b.WriteString(`"jsonData":`)
	b.Write(r.Certificate.JSONData)
	for _, member := range [][2]string{
		{"courseId", string(r.Course)}, {"batchId", string(r.Batch)}, {"oldId", r.OldID},
	} {
		if member[0] == "oldId" && member[1] == "" {
			continue
		}
		b.WriteByte(',')
		text(member[0], member[1])
	}
	b.WriteString(`}}`)
	return b.Bytes(), nil
}

func validateBody(c issue.Certificate) ([]byte, error) {
	var body struct {
		Request struct {
			ID         string `json:"certId"`
			AccessCode string `json:"accessCode"`
		} `json:"request"`
	}
	body.Request.ID, body.Request.AccessCode = c.ID, c.AccessCode
	return sunbird.JSON(body)
}

// nameInside is the learner's name in the assertion, so that it can be struck
// out of an error.
func nameInside(assertion json.RawMessage) string {
	var a struct {
		Recipient struct {
			Name string `json:"name"`
		} `json:"recipient"`
	}
	_ = json.Unmarshal(assertion, &a) // of another shape: it has no name
	return a.Recipient.Name
}

// searchFields are those of the platform's own consumer, and the two by which
// an answer to several lookups tells its rows apart.
var searchFields = []string{
	"id", "identifier", "firstName", "lastName", "userName", "rootOrgName", "rootOrgId", "maskedPhone",
}

// searchRequest is the body of a user search. Identifier is a list of ids, or
// one id as text, which is how the platform's consumer asks.
type searchRequest struct {
	Request struct {
		Filters struct {
			Identifier any `json:"identifier"`
		} `json:"filters"`
		Fields []string `json:"fields"`
		Limit  int      `json:"limit"`
	} `json:"request"`
}

func searchBody(ids []issue.LearnerID) ([]byte, error) {
	var body searchRequest
	body.Request.Filters.Identifier = ids
	if len(ids) == 1 {
		body.Request.Filters.Identifier = ids[0]
	}
	body.Request.Fields = searchFields
	body.Request.Limit = len(ids)
	return sunbird.JSON(body)
}

// user is a row of a search answer; every member may be missing or null.
type user struct {
	ID          sunbird.Text `json:"id"`
	Identifier  sunbird.Text `json:"identifier"`
	FirstName   sunbird.Text `json:"firstName"`
	LastName    sunbird.Text `json:"lastName"`
	RootOrgID   sunbird.Text `json:"rootOrgId"`
	MaskedPhone sunbird.Text `json:"maskedPhone"`
}

func (u user) id() issue.LearnerID {
	if u.ID != "" {
		return issue.LearnerID(u.ID)
	}
	return issue.LearnerID(u.Identifier)
}

// recipient is the row as the core has it, under the id that was asked for.
func (u user) recipient(id issue.LearnerID) issue.Recipient {
	return issue.Recipient{
		ID: id, FirstName: string(u.FirstName), LastName: string(u.LastName),
		RootOrg: present(u.RootOrgID), HasPhone: present(u.MaskedPhone) != "",
	}
}

func readUsers(answer sunbird.Answer) ([]user, error) {
	envelope, err := answer.Envelope()
	if err != nil {
		return nil, answer.Bad(err)
	}
	var result struct {
		Response *struct {
			Content []user `json:"content"`
		} `json:"response"`
	}
	if err := json.Unmarshal(envelope.Result, &result); err != nil {
		return nil, answer.Bad(err)
	}
	if result.Response == nil {
		return nil, answer.Bad(&sunbird.BadAnswerError{What: "an answer without result.response"})
	}
	return result.Response.Content, nil
}
