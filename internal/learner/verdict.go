package learner

import (
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

// registered gives the verdict on an answer of certs/add.
func registered(answer sunbird.Answer) error {
	if answer.Status == http.StatusOK {
		return answer.Accepted()
	}
	failure := answer.Failure()
	if answer.HTML() {
		return failure // of the framework or a gateway
	}
	words := strings.ToLower(strings.TrimRight(strings.TrimSpace(answer.Words()), ". "))
	switch answer.Status {
	case http.StatusBadRequest:
		switch words {
		case "data already exist":
			return nil // an earlier try arrived, though its reply did not
		case "please provide valid certid", "certificate is unavailable":
			failure.Reason = issue.ReasonConflict // the oldId is unknown, or replaced already
		}
	case http.StatusNotFound:
		if strings.Contains(words, "user not found") || answer.Code() == "USER_NOT_FOUND" {
			failure.Reason = issue.ReasonUnknownUser
		}
	case http.StatusInternalServerError:
		if answer.Code() == "DB_INSERTION_FAIL" {
			failure.Reason = issue.ReasonUnavailable
		}
	}
	return failure
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
