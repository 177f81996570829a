package sunbird_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// TestClassify gives the verdict on every status there is.
func TestClassify(t *testing.T) {
	t.Parallel()
	named := map[int]struct {
		verdict issue.Verdict
		reason  issue.Reason
	}{
		400: {issue.Permanent, issue.ReasonBadRequest},
		401: {issue.Outage, issue.ReasonCredentials},
		403: {issue.Outage, issue.ReasonCredentials},
		408: {issue.Transient, issue.ReasonTimeout},
		409: {issue.Permanent, issue.ReasonConflict},
		413: {issue.Permanent, issue.ReasonTooLarge},
		422: {issue.Permanent, issue.ReasonBadRequest},
		425: {issue.Transient, issue.ReasonOther},
		429: {issue.Transient, issue.ReasonRateLimited},
		502: {issue.Outage, issue.ReasonUnavailable},
		503: {issue.Outage, issue.ReasonUnavailable},
		504: {issue.Outage, issue.ReasonTimeout},
	}
	for status := range 700 {
		t.Run(fmt.Sprintf("%d %s", status, http.StatusText(status)), func(t *testing.T) {
			t.Parallel()
			want, ok := named[status]
			if !ok {
				switch status / 100 {
				case 2:
					want.verdict = issue.Done
				case 4:
					want.verdict, want.reason = issue.Permanent, issue.ReasonRejected
				case 5:
					want.verdict, want.reason = issue.Transient, issue.ReasonOther
				default:
					want.verdict, want.reason = issue.Transient, issue.ReasonBadAnswer
				}
			}
			verdict, reason := sunbird.Classify(status)
			assert.Equal(t, want.verdict, verdict)
			assert.Equal(t, want.reason, reason)
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tt := range map[string]struct {
		text string
		want time.Duration
	}{
		"absent":         {"", 0},
		"seconds":        {" 120 ", 2 * time.Minute},
		"zero":           {"0", 0},
		"negative":       {"-5", 0},
		"capped":         {"86400", sunbird.MaxRetryAfter},
		"beyond numbers": {"99999999999999999999999", 0},
		"huge":           {"9223372036854775807", sunbird.MaxRetryAfter},
		"date":           {"Fri, 02 Jan 2026 03:05:05 GMT", time.Minute},
		"date long past": {"Fri, 02 Jan 2025 03:05:05 GMT", 0},
		"date far away":  {"Sat, 03 Jan 2026 03:05:05 GMT", sunbird.MaxRetryAfter},
		"words":          {"soon", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{}
			h.Set("Retry-After", tt.text)
			assert.Equal(t, tt.want, sunbird.RetryAfter(h, now))
		})
	}
}
