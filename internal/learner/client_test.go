package learner_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/learner"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ issue.Registrar  = (*learner.Client)(nil)
	_ issue.Validator  = (*learner.Client)(nil)
	_ issue.Recipients = (*learner.Recipients)(nil)
)

func newClient(t *testing.T, url string) *learner.Client {
	t.Helper()
	client, err := learner.New(learner.Config{URL: url, HTTP: sunbirdtest.HTTPClient(t)})
	require.NoError(t, err)
	return client
}

const success = `{"id":"","ver":"private","params":{"status":"success"},"responseCode":"OK","result":{"response":"SUCCESS"}}`

// assertion is printed as no encoder here would print it.
const assertion = "{ \"id\":\"https://dev.sunbirded.org/certs/<x>&y\",\"type\" : [\"Assertion\"],\n\"n\":1.50,\"big\":12345678901234567890," +
	"\"recipient\":{\"identity\":\"u1\",\"name\":\"Asha \\u0906\"},\"sig\":\"a\\/b==\" }"

func registration() issue.Registration {
	return issue.Registration{
		Learner: "95e4942d-cbe8-477d-aebd-ad8e6de4bfc8", Course: "do_1", Batch: "0128821148183429120",
		Certificate: issue.Certificate{
			ID: "2ee1ee2d-f96f-4e9d-bd54-2d4a1e2a5c11", AccessCode: "E6P2R8",
			PDFURL: "0123/0128/2ee1ee2d.pdf?a=1&b=<2>", JSONURL: "0123/0128/2ee1ee2d.json",
			JSONData: json.RawMessage(assertion),
		},
	}
}

// repeated is a registration that was sent before.
func repeated() issue.Registration {
	r := registration()
	r.Repeated = true
	return r
}

// TestRegisterBody holds every byte of what is sent, twice: a repetition must be
// the same.
func TestRegisterBody(t *testing.T) {
	t.Parallel()
	for name, oldID := range map[string]string{"first": "", "reissue": "aaaa-old"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, success))
			client := newClient(t, server.URL)
			r := registration()
			r.OldID = oldID
			require.NoError(t, client.Register(t.Context(), r))
			require.NoError(t, client.Register(t.Context(), r))
			got := server.Requests()
			assert.Equal(t, "POST", got[0].Method)
			assert.Equal(t, "/private/user/v1/certs/add", got[0].URI)
			assert.Equal(t, got[0].Body, got[1].Body)
			assert.Contains(t, got[0].Body, `"jsonData":`+assertion+`,"`)
			assert.True(t, json.Valid([]byte(got[0].Body)))
			assert.Equal(t, oldID != "", strings.Contains(got[0].Body, "oldId"))
			sunbirdtest.Golden(t, "register-"+name+".json", []byte(got[0].Body))
		})
	}
}

func TestRegisterVerdicts(t *testing.T) {
	t.Parallel()
	refusal := func(status int, code, text string) sunbirdtest.Reply {
		return sunbirdtest.JSON(status, `{"params":{"err":"`+code+`","status":"`+code+`","errmsg":"`+text+`"},"responseCode":"X","result":{}}`)
	}
	for name, tt := range map[string]struct {
		reply   sunbirdtest.Reply
		verdict issue.Verdict
		reason  issue.Reason
	}{
		"success":                   {reply: sunbirdtest.JSON(200, success), verdict: issue.Done},
		"success in small letters":  {reply: sunbirdtest.JSON(200, `{"result":{"response":"success"}}`), verdict: issue.Done},
		"there already":             {reply: refusal(400, "INVALID_PARAMETER", "data already exist."), verdict: issue.Done},
		"there already, later code": {reply: refusal(400, "UOS_CRTADD0019", "Data already exist"), verdict: issue.Done},
		"those words in a 500":      {reply: refusal(500, "X", "data already exist."), verdict: issue.Transient, reason: issue.ReasonOther},
		"empty 200":                 {reply: sunbirdtest.JSON(200, ""), verdict: issue.Transient, reason: issue.ReasonBadAnswer},
		"200 without SUCCESS":       {reply: sunbirdtest.JSON(200, `{"result":{}}`), verdict: issue.Transient, reason: issue.ReasonBadAnswer},
		"200 saying FAILED":         {reply: sunbirdtest.JSON(200, `{"result":{"response":"FAILED"}}`), verdict: issue.Transient, reason: issue.ReasonBadAnswer},
		"204":                       {reply: sunbirdtest.Reply{Status: 204}, verdict: issue.Transient, reason: issue.ReasonBadAnswer},
		"unknown user":              {reply: refusal(404, "USER_NOT_FOUND", "user not found."), verdict: issue.Permanent, reason: issue.ReasonUnknownUser},
		"no such route":             {reply: sunbirdtest.Reply{Status: 404, Body: "<html><title>Not Found</title></html>"}, verdict: issue.Permanent, reason: issue.ReasonRejected},
		"oldId unknown":             {reply: refusal(400, "INVALID_PARAMETER", "Please provide valid certId."), verdict: issue.Permanent, reason: issue.ReasonConflict},
		"oldId gone":                {reply: refusal(400, "ERROR_UNAVAILABLE_CERTIFICATE", "Certificate is unavailable"), verdict: issue.Permanent, reason: issue.ReasonConflict},
		"a member missing":          {reply: refusal(400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter pdfURL is missing."), verdict: issue.Permanent, reason: issue.ReasonBadRequest},
		"store away":                {reply: refusal(500, "DB_INSERTION_FAIL", "DB insert operation failed."), verdict: issue.Transient, reason: issue.ReasonUnavailable},
		"generic":                   {reply: refusal(500, "INTERNAL_ERROR", "Process failed,please try again later."), verdict: issue.Transient, reason: issue.ReasonOther},
		"unhealthy":                 {reply: refusal(503, "SERVICE_UNAVAILABLE", ""), verdict: issue.Outage, reason: issue.ReasonUnavailable},
		"not authorised":            {reply: refusal(401, "UNAUTHORIZED_USER", "You are not authorized."), verdict: issue.Outage, reason: issue.ReasonCredentials},
		"closed":                    {reply: sunbirdtest.Reply{}, verdict: issue.Outage, reason: issue.ReasonUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := newClient(t, sunbirdtest.Serve(t, tt.reply).URL).Register(t.Context(), repeated())
			if tt.verdict == issue.Done {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			failure := issue.AsFailure(err)
			assert.Equal(t, tt.verdict, failure.Verdict)
			assert.Equal(t, tt.reason, failure.Reason)
			assert.Equal(t, tt.reply.Status, failure.HTTPStatus)
		})
	}
}

// An id that is there at the first try may be somebody else's.
func TestRegisterLooksWhoseCertificateItIs(t *testing.T) {
	t.Parallel()
	there := sunbirdtest.JSON(400, `{"params":{"err":"INVALID_PARAMETER","errmsg":"data already exist."},"responseCode":"CLIENT_ERROR","result":{}}`)
	valid := func(course, batch string) sunbirdtest.Reply {
		return sunbirdtest.JSON(200, `{"result":{"response":{"json":{},"pdf":"x","courseId":"`+course+`","batchId":"`+batch+`"}}}`)
	}
	refused := func(text string) sunbirdtest.Reply {
		return sunbirdtest.JSON(400, `{"params":{"err":"INVALID_PARAMETER","errmsg":"`+text+`"},"responseCode":"CLIENT_ERROR","result":{}}`)
	}
	for name, tt := range map[string]struct {
		reply   sunbirdtest.Reply
		verdict issue.Verdict
		reason  issue.Reason
	}{
		"it is ours":              {valid("do_1", "0128821148183429120"), issue.Done, ""},
		"of another batch":        {valid("do_1", "b2"), issue.Permanent, issue.ReasonConflict},
		"of another course":       {valid("do_2", "0128821148183429120"), issue.Permanent, issue.ReasonConflict},
		"with another code":       {refused("Please provide valid accessCode."), issue.Permanent, issue.ReasonConflict},
		"gone meanwhile":          {refused("Please provide valid certId."), issue.Permanent, issue.ReasonConflict},
		"replaced":                {refused("Certificate is unavailable"), issue.Permanent, issue.ReasonConflict},
		"an answer without one":   {sunbirdtest.JSON(200, `{"result":{}}`), issue.Transient, issue.ReasonBadAnswer},
		"it cannot be told":       {sunbirdtest.JSON(500, `{}`), issue.Transient, issue.ReasonOther},
		"the service is away now": {sunbirdtest.JSON(503, `{}`), issue.Outage, issue.ReasonUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sunbirdtest.ServeFunc(t, func(r sunbirdtest.Request) sunbirdtest.Reply {
				if strings.HasSuffix(r.URI, "/certs/add") {
					return there
				}
				return tt.reply
			})
			err := newClient(t, server.URL).Register(t.Context(), registration())
			requests := server.Requests()
			require.Len(t, requests, 2)
			assert.Equal(t, "/private/user/v1/certs/validate", requests[1].URI)
			assert.JSONEq(t, `{"request":{"certId":"2ee1ee2d-f96f-4e9d-bd54-2d4a1e2a5c11","accessCode":"E6P2R8"}}`, requests[1].Body)
			if tt.verdict == issue.Done {
				require.NoError(t, err)
				return
			}
			failure := issue.AsFailure(err)
			assert.Equal(t, tt.verdict, failure.Verdict)
			assert.Equal(t, tt.reason, failure.Reason)
			require.NotErrorIs(t, err, issue.ErrOldID)
			assert.Equal(t, tt.reason == issue.ReasonConflict, errors.Is(err, issue.ErrUnconfirmed))
		})
	}
}

func TestRegisterRefusesWhatIsNoAssertion(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{"none": "", "blank": " ", "cut off": `{"a":`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, success))
			r := registration()
			r.Certificate.JSONData = json.RawMessage(data)
			failure := issue.AsFailure(newClient(t, server.URL).Register(t.Context(), r))
			assert.Equal(t, issue.Permanent, failure.Verdict)
			assert.Equal(t, issue.ReasonBadRequest, failure.Reason)
			assert.Empty(t, server.Requests())
		})
	}
}

func TestRegisterNamesNobody(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(400, `{"params":{"errmsg":"bad E6P2R8 of Asha आ"}}`))
	failure := issue.AsFailure(newClient(t, server.URL).Register(t.Context(), registration()))
	assert.Equal(t, "bad … of …", failure.Message)
}

func TestRegisterCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, newClient(t, "http://127.0.0.1:9").Register(ctx, registration()), context.Canceled)
}

// TestSearch goes over the wire: a single lookup asks as the platform's consumer
// does.
func TestSearch(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reply   sunbirdtest.Reply
		want    issue.Recipient
		full    string
		verdict issue.Verdict
		reason  issue.Reason
	}{
		"found": {
			reply: sunbirdtest.JSON(200, `{"result":{"response":{"count":1,"content":[{"id":"u1","identifier":"u1","firstName":"Asha","lastName":"Rao","rootOrgId":"0123","maskedPhone":"******1234"}]}}}`),
			want:  issue.Recipient{ID: "u1", FirstName: "Asha", LastName: "Rao", RootOrg: "0123", HasPhone: true}, full: "Asha Rao",
		},
		"old data": {
			reply: sunbirdtest.JSON(200, `{"result":{"response":{"count":1,"content":[{"firstName":"आशा","lastName":"null","rootOrgId":null,"maskedPhone":"NULL"}]}}}`),
			want:  issue.Recipient{ID: "u1", FirstName: "आशा", LastName: "null"}, full: "आशा",
		},
		"members absent": {
			reply: sunbirdtest.JSON(200, `{"result":{"response":{"count":1,"content":[{"identifier":"u1"}]}}}`),
			want:  issue.Recipient{ID: "u1"},
		},
		"nobody": {
			reply:   sunbirdtest.JSON(200, `{"result":{"response":{"count":0,"content":[]}}}`),
			verdict: issue.Transient, reason: issue.ReasonUnknownUser,
		},
		"somebody else": {
			reply:   sunbirdtest.JSON(200, `{"result":{"response":{"count":1,"content":[{"id":"u2","firstName":"Ravi"}]}}}`),
			verdict: issue.Transient, reason: issue.ReasonUnknownUser,
		},
		"empty 200":   {reply: sunbirdtest.JSON(200, ``), verdict: issue.Transient, reason: issue.ReasonBadAnswer},
		"no response": {reply: sunbirdtest.JSON(200, `{"result":{}}`), verdict: issue.Transient, reason: issue.ReasonBadAnswer},
		"wrong shape": {reply: sunbirdtest.JSON(200, `{"result":{"response":[]}}`), verdict: issue.Transient, reason: issue.ReasonBadAnswer},
		"bad filter":  {reply: sunbirdtest.JSON(400, `{"params":{"err":"INVALID_PARAMETER_VALUE"}}`), verdict: issue.Permanent, reason: issue.ReasonBadRequest},
		"away":        {reply: sunbirdtest.JSON(503, ``), verdict: issue.Outage, reason: issue.ReasonUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sunbirdtest.Serve(t, tt.reply)
			recipients := learner.NewRecipients(newClient(t, server.URL))
			t.Cleanup(recipients.Close)
			got, err := recipients.Recipient(t.Context(), "u1")
			assert.Equal(t, "/private/user/v1/search", server.Requests()[0].URI)
			sunbirdtest.Golden(t, "search-one.json", []byte(server.Requests()[0].Body))
			if tt.verdict != "" {
				failure := issue.AsFailure(err)
				assert.Equal(t, tt.verdict, failure.Verdict)
				assert.Equal(t, tt.reason, failure.Reason)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.full, got.FullName())
		})
	}
}
