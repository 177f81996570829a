package notify

import (
	"net/http"
	"strings"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// accepted gives the verdict on an answer of the notification call.
func accepted(answer sunbird.Answer) error {
	if answer.Status == http.StatusOK {
		return answer.Accepted()
	}
	failure := answer.Failure()
	if answer.Status != http.StatusBadRequest {
		return failure
	}
	words := answer.Words()
	switch {
	case answer.Code() == "NO_EMAIL_RECIPIENTS", strings.Contains(words, "number of recipients is zero"):
		failure.Reason = issue.ReasonNoAddress
	case strings.Contains(words, " for parameter recipientUserIds"):
		failure.Reason = issue.ReasonUnknownUser
	}
	return failure
}
