package certsvc_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

// TestRecordedVerdicts gives the verdict on what the real services answered.
func TestRecordedVerdicts(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		verdict issue.Verdict
		reason  issue.Reason
	}{
		"v1-no-recipientName":        {issue.Permanent, issue.ReasonBadRequest},
		"v1-data-empty":              {issue.Permanent, issue.ReasonBadRequest},
		"r100-no-orgId":              {issue.Permanent, issue.ReasonBadRequest},
		"v1-no-htmlTemplate":         {issue.Permanent, issue.ReasonTemplate},
		"v1-no-signatoryList":        {issue.Permanent, issue.ReasonTemplate},
		"v1-keys-id-blank":           {issue.Permanent, issue.ReasonTemplate},
		"r100-no-issuer-url":         {issue.Permanent, issue.ReasonTemplate},
		"v1-publicKey-other":         {issue.Permanent, issue.ReasonSigningKey},
		"v1-tag-dash":                {issue.Permanent, issue.ReasonRejected},
		"v1-basePath-nohost":         {issue.Permanent, issue.ReasonRejected},
		"no-certificate":             {issue.Permanent, issue.ReasonRejected},
		"array-body":                 {issue.Permanent, issue.ReasonRejected},
		"malformed":                  {issue.Permanent, issue.ReasonRejected},
		"get":                        {issue.Permanent, issue.ReasonRejected},
		"body-51MB":                  {issue.Permanent, issue.ReasonTooLarge},
		"v1-keys-unknown":            {issue.Permanent, issue.ReasonSigningKey},
		"v1-keys-master":             {issue.Permanent, issue.ReasonSigningKey},
		"v1-date-word":               {issue.Permanent, issue.ReasonRejected},
		"v1-expiry-date-only":        {issue.Permanent, issue.ReasonRejected},
		"v1-enc-down":                {issue.Transient, issue.ReasonUnavailable},
		"v1-blob-down":               {issue.Transient, issue.ReasonUnavailable},
		"v1-print-down":              {issue.Transient, issue.ReasonUnavailable},
		"v1-template-404":            {issue.Transient, issue.ReasonUnavailable},
		"v1-template-noindex":        {issue.Transient, issue.ReasonOther},
		"r100-template-404":          {issue.Transient, issue.ReasonOther},
		"v1-criteria-unknown-member": {issue.Transient, issue.ReasonOther},
		"v1-timeout-1":               {issue.Transient, issue.ReasonTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reply := sunbirdtest.Recorded(t, name)
			_, err := newClient(t, sunbirdtest.Serve(t, reply).URL, "").Generate(t.Context(), request())
			failure := issue.AsFailure(err)
			assert.Equal(t, want.verdict, failure.Verdict)
			assert.Equal(t, want.reason, failure.Reason)
			assert.Equal(t, reply.Status, failure.HTTPStatus)
			assert.NotEmpty(t, failure.Message)
			assert.NotRegexp(t, "<[a-z!/]", failure.Message)
		})
	}
}

// TestOtherVerdicts are texts and statuses that were not recorded.
func TestOtherVerdicts(t *testing.T) {
	t.Parallel()
	message := func(text string) string { return `{"params":null,"result":{"message":` + text + `}}` }
	for name, tt := range map[string]struct {
		reply   sunbirdtest.Reply
		verdict issue.Verdict
		reason  issue.Reason
	}{
		"template object of 1.2": {
			sunbirdtest.JSON(400, message(`"Invalid value https://h/certificate.data for parameter htmlTemplate."`)),
			issue.Permanent, issue.ReasonTemplate,
		},
		"value with our own words in it": {
			sunbirdtest.JSON(400, message(`"Invalid value x for parameter certificate.data y for parameter tag."`)),
			issue.Permanent, issue.ReasonRejected,
		},
		"a date, as 1.1 says it":         {sunbirdtest.JSON(500, message(`"Issued date is not in a given format"`)), issue.Permanent, issue.ReasonRejected},
		"upload of 1.2":                  {sunbirdtest.JSON(500, message(`"ERROR_UPLOADING_CERTIFICATE"`)), issue.Transient, issue.ReasonUnavailable},
		"null text":                      {sunbirdtest.JSON(500, message(`null`)), issue.Transient, issue.ReasonOther},
		"no body":                        {sunbirdtest.JSON(500, ``), issue.Transient, issue.ReasonOther},
		"unknown 400":                    {sunbirdtest.JSON(400, message(`"Something new"`)), issue.Permanent, issue.ReasonRejected},
		"the key's text on another 5xx":  {sunbirdtest.JSON(503, message(`"Unable to create signature: Unexpected character ('<'"`)), issue.Outage, issue.ReasonUnavailable},
		"rate limited":                   {sunbirdtest.JSON(429, ``), issue.Transient, issue.ReasonRateLimited},
		"credentials refused by gateway": {sunbirdtest.JSON(401, `{"message":"Unauthorized"}`), issue.Outage, issue.ReasonCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newClient(t, sunbirdtest.Serve(t, tt.reply).URL, "").Generate(t.Context(), request())
			failure := issue.AsFailure(err)
			assert.Equal(t, tt.verdict, failure.Verdict)
			assert.Equal(t, tt.reason, failure.Reason)
		})
	}
}

// TestFailuresNameNobody: a service may repeat the name that we sent.
func TestFailuresNameNobody(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.ServeFunc(t, func(r sunbirdtest.Request) sunbirdtest.Reply {
		text := "cannot print ASHA RAO, Rao (95E4942D-CBE8-477D-AEBD-AD8E6DE4BFC8)"
		return sunbirdtest.JSON(500, `{"result":{"message":"`+text+strings.Repeat(" and so on", 1000)+`"}}`)
	})
	_, err := newClient(t, server.URL, "").Generate(t.Context(), request())
	failure := issue.AsFailure(err)
	assert.Contains(t, failure.Message, "cannot print …, … (…) and so on")
	assert.LessOrEqual(t, len(failure.Message), 2048)
}
