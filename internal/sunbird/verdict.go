package sunbird

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

// Classify is the table of what an HTTP status means for a call. Only a service
// that cannot be reached or refuses our credentials is an outage: it stops the
// work for everybody. A 500 is one call that went wrong.
func Classify(status int) (issue.Verdict, issue.Reason) {
	switch {
	case status >= 200 && status < 300:
		return issue.Done, ""
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return issue.Outage, issue.ReasonCredentials
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable:
		return issue.Outage, issue.ReasonUnavailable
	case status == http.StatusGatewayTimeout:
		return issue.Outage, issue.ReasonTimeout
	case status == http.StatusTooManyRequests:
		return issue.Transient, issue.ReasonRateLimited
	case status == http.StatusRequestTimeout:
		return issue.Transient, issue.ReasonTimeout
	case status == http.StatusTooEarly:
		return issue.Transient, issue.ReasonOther
	case status == http.StatusBadRequest, status == http.StatusUnprocessableEntity:
		return issue.Permanent, issue.ReasonBadRequest
	case status == http.StatusConflict:
		return issue.Permanent, issue.ReasonConflict
	case status == http.StatusRequestEntityTooLarge:
		return issue.Permanent, issue.ReasonTooLarge
	case status >= 400 && status < 500:
		return issue.Permanent, issue.ReasonRejected
	case status >= 500 && status < 600:
		return issue.Transient, issue.ReasonOther
	default:
		// A redirect, or a number that is no status: somebody else answered, and
		// it is no fault of the learner.
		return issue.Transient, issue.ReasonBadAnswer
	}
}

// MaxRetryAfter caps what a service may ask us to wait: an hour is the longest
// of our own delays, and a mistaken header must not park an event for days.
const MaxRetryAfter = time.Hour

// RetryAfter reads the header of that name, seconds or an HTTP date, as the
// time to wait from now, capped; 0 when there is none to read or it has passed.
func RetryAfter(h http.Header, from time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(text, 10, 63); err == nil {
		if seconds > uint64(MaxRetryAfter/time.Second) {
			return MaxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(from), 0), MaxRetryAfter)
}
