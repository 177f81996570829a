package content

import (
	"net/http"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// classify gives the verdict on an answer that is not 200. A 404 means that
// there is no such course only when the service itself says so, in its
// envelope: a page comes from a gateway or a wrong address, and must not be
// taken for "no course".
func classify(answer sunbird.Answer) *issue.Failure {
	failure := answer.Failure()
	if answer.Status != http.StatusNotFound {
		return failure
	}
	envelope, err := answer.Envelope()
	if err == nil && (envelope.Params.Err != "" || envelope.ResponseCode != "") {
		failure.Reason = issue.ReasonUnknownCourse
	}
	return failure
}

// unreadable is the failure of a course whose templates make no sense.
func unreadable(what string) *issue.Failure {
	return &issue.Failure{
		Verdict: issue.Permanent, Reason: issue.ReasonTemplate, HTTPStatus: http.StatusOK, Message: what,
	}
}
