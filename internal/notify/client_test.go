package notify_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/notify"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const success = `{"result":{"response":"SUCCESS"}}`

func newClient(t *testing.T, url, smsText string) *notify.Client {
	t.Helper()
	client, err := notify.New(notify.Config{URL: url, HTTP: sunbirdtest.HTTPClient(t), SMSText: smsText})
	require.NoError(t, err)
	return client
}

func notification() issue.Notification {
	return issue.Notification{
		Learner: "u1", GivenName: "आशा <&>",
		Course: issue.Course{ID: "do_1", Name: `Sums $1 \1 @@HELD_DATE@@ & "more"`},
		Template: issue.Template{Name: "c", Notify: map[string]json.RawMessage{
			"subject": json.RawMessage(`"Completion <certificate>"`), "emailTemplateType": json.RawMessage(`"defaultCertTemp"`),
			"stateImgUrl": json.RawMessage(`"https://host.example/a.png?x=1&y=2"`), "regards": json.RawMessage(`"Team"`),
			"orgs": json.RawMessage(`[1.50, {"b":1,"a":null}]`),
			// What is ours stays ours.
			"firstName": json.RawMessage(`"Somebody"`), "mode": json.RawMessage(`"sms"`),
		}},
		IssuedOn: time.Date(2019, 8, 2, 23, 59, 0, 0, time.FixedZone("IST", 5*3600+1800)),
	}
}

// TestBodies holds every byte of what is sent.
func TestBodies(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, success))
	client := newClient(t, server.URL, "")
	custom := newClient(t, server.URL, "@@HELD_DATE@@: @@TRAINING_NAME@@, @@TRAINING_NAME@@ @@OTHER@@")
	for name, send := range map[string]func(context.Context, issue.Notification) error{
		"email": client.Email, "sms": client.SMS, "sms-custom": custom.SMS,
	} {
		for range 3 { // maps have no order, bodies do
			before := len(server.Requests())
			require.NoError(t, send(t.Context(), notification()))
			got := server.Requests()[before]
			assert.Equal(t, "POST", got.Method)
			assert.Equal(t, "/v1/notification/email", got.URI)
			sunbirdtest.Golden(t, name+".json", []byte(got.Body))
		}
	}
}

func TestDefaultSMSTextHasBothPlaceholders(t *testing.T) {
	t.Parallel()
	assert.Equal(t, 1, strings.Count(notify.DefaultSMSText, "@@TRAINING_NAME@@"))
	assert.Equal(t, 1, strings.Count(notify.DefaultSMSText, "@@HELD_DATE@@"))
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	refusal := func(status int, code, text string) sunbirdtest.Reply {
		return sunbirdtest.JSON(status, `{"params":{"err":"`+code+`","status":"`+code+`","errmsg":"`+text+`"},"result":{}}`)
	}
	const invalid = "INVALID_PARAMETER_VALUE"
	for name, tt := range map[string]struct {
		reply   sunbirdtest.Reply
		verdict issue.Verdict
		reason  issue.Reason
	}{
		"success":              {reply: sunbirdtest.JSON(200, success), verdict: issue.Done},
		"success, later era":   {reply: sunbirdtest.JSON(200, `{"params":{"status":"SUCCESS"},"result":{"response":"success"}}`), verdict: issue.Done},
		"empty 200":            {reply: sunbirdtest.JSON(200, ""), verdict: issue.Transient, reason: issue.ReasonBadAnswer},
		"no address":           {reply: refusal(400, "NO_EMAIL_RECIPIENTS", "Email notification is not sent as the number of recipients is zero."), verdict: issue.Permanent, reason: issue.ReasonNoAddress},
		"no address, in words": {reply: refusal(400, "UOS_EMAILNOTI0019", "Email notification is not sent as the number of recipients is zero."), verdict: issue.Permanent, reason: issue.ReasonNoAddress},
		"unknown user":         {reply: refusal(400, invalid, "Invalid value u1 for parameter recipientUserIds. Please provide a valid value."), verdict: issue.Permanent, reason: issue.ReasonUnknownUser},
		"unknown user, later":  {reply: refusal(400, "UOS_EMAILNOTI0017", "Invalid value u1 for parameter recipientUserIds. Please provide a valid value."), verdict: issue.Permanent, reason: issue.ReasonUnknownUser},
		"unknown mail":         {reply: refusal(400, invalid, "Invalid value x for parameter emailTemplateType. Please provide a valid value."), verdict: issue.Permanent, reason: issue.ReasonBadRequest},
		"no subject":           {reply: refusal(400, "EMAIL_SUBJECT_ERROR", "Email Subject is mandatory."), verdict: issue.Permanent, reason: issue.ReasonBadRequest},
		"no such route":        {reply: sunbirdtest.Reply{Status: 404, Body: "<html></html>"}, verdict: issue.Permanent, reason: issue.ReasonRejected},
		"generic":              {reply: refusal(500, "INTERNAL_ERROR", "Process failed,please try again later."), verdict: issue.Transient, reason: issue.ReasonOther},
		"rate limited":         {reply: sunbirdtest.JSON(429, ""), verdict: issue.Transient, reason: issue.ReasonRateLimited},
		"away":                 {reply: sunbirdtest.JSON(503, ""), verdict: issue.Outage, reason: issue.ReasonUnavailable},
		"closed":               {reply: sunbirdtest.Reply{}, verdict: issue.Outage, reason: issue.ReasonUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sunbirdtest.Serve(t, tt.reply)
			client := newClient(t, server.URL, "")
			for _, send := range []func(context.Context, issue.Notification) error{client.Email, client.SMS} {
				err := send(t.Context(), notification())
				if tt.verdict == issue.Done {
					require.NoError(t, err)
					continue
				}
				failure := issue.AsFailure(err)
				assert.Equal(t, tt.verdict, failure.Verdict)
				assert.Equal(t, tt.reason, failure.Reason)
				assert.Equal(t, tt.reply.Status, failure.HTTPStatus)
				assert.NotContains(t, failure.Message, "value u1 ")
			}
			assert.Len(t, server.Requests(), 2, "every accepted call sends: none is repeated")
		})
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, newClient(t, "http://127.0.0.1:9", "").Email(ctx, notification()), context.Canceled)
}
