package learner

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// present is the text of a member, where the text "null" is old data for none.
func present(t sunbird.Text) string {
	text := strings.TrimSpace(string(t))
	if strings.EqualFold(text, "null") {
		return ""
	}
	return text
}

// registered gives the verdict on an answer of certs/add, and says whether the
// certificate was there already.
func registered(answer sunbird.Answer) (there bool, err error) {
	if answer.Status == http.StatusOK {
		return false, answer.Accepted()
	}
	failure := answer.Failure()
	if answer.HTML() {
		return false, failure // of the framework or a gateway
	}
	switch answer.Status {
	case http.StatusBadRequest:
		switch said(answer) {
		case "data already exist":
			return true, nil // an earlier try arrived, though its reply did not
		case unknownID, unavailable:
			failure.Reason, failure.Err = issue.ReasonConflict, issue.ErrOldID
		}
	case http.StatusNotFound:
		if strings.Contains(said(answer), "user not found") || answer.Code() == "USER_NOT_FOUND" {
			failure.Reason = issue.ReasonUnknownUser
		}
	case http.StatusInternalServerError:
		if answer.Code() == "DB_INSERTION_FAIL" {
			failure.Reason = issue.ReasonUnavailable
		}
	}
	return false, failure
}

// What the service says of a certificate id or an access code that it does not
// take.
const (
	unknownID   = "please provide valid certid"
	unknownCode = "please provide valid accesscode"
	unavailable = "certificate is unavailable"
)

// said are the service's words, whatever their case and last full stop.
func said(answer sunbird.Answer) string {
	return strings.ToLower(strings.TrimRight(strings.TrimSpace(answer.Words()), ". "))
}

// validated gives the verdict on an answer of certs/validate: nil when the
// certificate that is there is the one that was to be registered.
func validated(answer sunbird.Answer, r issue.Registration) error {
	if answer.Status != http.StatusOK {
		failure := answer.Failure()
		if words := said(answer); answer.Status == http.StatusBadRequest &&
			(words == unknownID || words == unknownCode || words == unavailable) {
			failure.Reason, failure.Err = issue.ReasonConflict, issue.ErrUnconfirmed
		}
		return failure
	}
	envelope, err := answer.Envelope()
	if err != nil {
		return answer.Bad(err)
	}
	var result struct {
		Response *struct {
			Course sunbird.Text `json:"courseId"`
			Batch  sunbird.Text `json:"batchId"`
		} `json:"response"`
	}
	if err := json.Unmarshal(envelope.Result, &result); err != nil || result.Response == nil {
		return answer.Bad(err)
	}
	if string(result.Response.Batch) != string(r.Batch) || string(result.Response.Course) != string(r.Course) {
		return &issue.Failure{
			Verdict: issue.Permanent, Reason: issue.ReasonConflict, HTTPStatus: answer.Status,
			Message: "learner-service has a certificate of this id for another course or batch", Err: issue.ErrUnconfirmed,
		}
	}
	return nil
}

// unknown is the failure of a search that shows nobody of the id. The index
// behind the search lags, so the learner may show later: the core tries again
// before it gives up.
func unknown() *issue.Failure {
	return &issue.Failure{
		Verdict: issue.Transient, Reason: issue.ReasonUnknownUser, HTTPStatus: http.StatusOK,
		Message: "learner-service finds no user of this id",
	}
}
