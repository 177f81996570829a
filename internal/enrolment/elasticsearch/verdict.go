package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// unavailable makes a failed call the source's unavailability, which callers
// must not take for "nobody". The end of the caller's own context stays what it
// is.
func unavailable(err error) error {
	var failure *issue.Failure
	if !errors.As(err, &failure) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return err
	}
	// Refusing a search says nothing about a learner, so it is never permanent:
	// an index may be missing for a moment.
	if failure != nil && failure.Verdict == issue.Permanent {
		transient := *failure
		transient.Verdict, transient.Reason = issue.Transient, issue.ReasonUnavailable
		err = &transient
	}
	return fmt.Errorf("elasticsearch is %w: %w", issue.ErrUnavailable, err)
}

// failed gives the failure of an answer that is an error, with the words that
// stand in error.reason.
func failed(answer sunbird.Answer) error {
	failure := answer.Failure()
	var body struct {
		Error struct {
			Type   sunbird.Text `json:"type"`
			Reason sunbird.Text `json:"reason"`
		} `json:"error"`
	}
	if sunbird.Decode(answer.Body, &body) == nil && body.Error.Type != "" {
		failure.Message = sunbird.Scrub(strings.TrimSpace(string(body.Error.Type + " " + body.Error.Reason)))
	}
	return unavailable(failure)
}

// partial is the failure of a search that did not look everywhere.
func partial(answer sunbird.Answer, what string) error {
	failure := answer.As(issue.Transient, issue.ReasonUnavailable)
	failure.Message = what
	return unavailable(failure)
}
