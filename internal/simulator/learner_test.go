package simulator

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

var learnerData = Dataset{
	Organisations: []Organisation{{ID: "0123", Name: "Org", SignKeys: []string{"2"}}},
	Users: []User{
		{ID: "u1", FirstName: "Asha", LastName: "Rao", UserName: "asha", RootOrgID: "0123", Email: "asha@x.example", Phone: "9812345678"},
		{ID: "u2", FirstName: "Ravi", LastName: "null", UserName: "ravi", RootOrgID: "0123", Email: "ravi@x.example"},
		{ID: "u3", FirstName: "Nobody", UserName: "u3", RootOrgID: "0124"},
		{ID: "u4", FirstName: "Blocked", UserName: "u4", Blocked: true},
		{ID: "u5", FirstName: "Late", UserName: "u5", Unindexed: true},
	},
}

func TestLearnerRefusals(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(learnerData))
	const add, search, mail = "/private/user/v1/certs/add", "/private/user/v1/search", "/v1/notification/email"
	rows := []struct {
		name, path, request string
		status              int
		code, text          string
	}{
		{"add: request empty", add, `{}`, 400, "INVALID_REQUESTED_DATA", invalidRequest},
		{"add: no id", add, `{"accessCode":"A"}`, 400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter id is missing."},
		{"add: id first of all", add, `{"jsonData":{}}`, 400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter id is missing."},
		{"add: access code blank", add, `{"id":"c","accessCode":" "}`, 400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter accessCode is missing."},
		{"add: pdfUrl is not pdfURL", add, `{"id":"c","accessCode":"A","pdfUrl":"p","userId":"u1","jsonData":{}}`, 400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter pdfURL is missing."},
		{"add: no user", add, `{"id":"c","accessCode":"A","pdfURL":"p"}`, 400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter userId is missing."},
		{"add: json data null", add, `{"id":"c","accessCode":"A","pdfURL":"p","userId":"u1","jsonData":null}`, 400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter jsonData is missing."},
		{"add: json data text", add, `{"id":"c","accessCode":"A","pdfURL":"p","userId":"u1","jsonData":"x"}`, 400, "DATA_TYPE_ERROR", "Data type of jsonData should be MAP."},
		{"add: id a number", add, `{"id":1,"accessCode":"A","pdfURL":"p","userId":"u1","jsonData":{}}`, 500, "INTERNAL_ERROR", genericMessage},
		{"add: unknown user", add, `{"id":"c","accessCode":"A","pdfURL":"p","userId":"nope","jsonData":{}}`, 404, "USER_NOT_FOUND", "user not found."},
		{"search: no filters", search, `{"fields":["firstName"]}`, 400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter filters is missing."},
		{"search: filters text", search, `{"filters":"x"}`, 400, "DATA_TYPE_ERROR", "Data type of filters should be Map."},
		{"search: fields text", search, `{"filters":{"id":"u1"},"fields":"x"}`, 400, "DATA_TYPE_ERROR", "Data type of fields should be List."},
		{"search: fields numbers", search, `{"filters":{"id":"u1"},"fields":[1]}`, 400, "DATA_TYPE_ERROR", "Data type of fields should be List of String."},
		{"search: filter null", search, `{"filters":{"identifier":null}}`, 400, "INVALID_PARAMETER_VALUE", "Invalid value null for parameter identifier. Please provide a valid value."},
		{"mail: no subject", mail, `{"body":"b"}`, 400, "EMAIL_SUBJECT_ERROR", "Email Subject is mandatory."},
		{"mail: no body", mail, `{"subject":"s"}`, 400, "EMAIL_BODY_ERROR", "Email Body is mandatory."},
		{"mail: nobody", mail, `{"subject":"s","body":"b"}`, 400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter recipientEmails, recipientUserIds, recipientPhones or recipientSearchQuery is missing."},
		{"mail: unknown user", mail, `{"subject":"s","body":"b","recipientUserIds":["nope"]}`, 400, "INVALID_PARAMETER_VALUE", "Invalid value nope for parameter recipientUserIds. Please provide a valid value."},
		{"mail: no e-mail", mail, `{"subject":"s","body":"b","recipientUserIds":["u3"]}`, 400, "NO_EMAIL_RECIPIENTS", "Email notification is not sent as the number of recipients is zero."},
		{"sms: no phone", mail, `{"subject":"s","body":"b","mode":"SMS","recipientUserIds":["u2"]}`, 400, "NO_EMAIL_RECIPIENTS", "Email notification is not sent as the number of recipients is zero."},
		{"mail: template unknown", mail, `{"subject":"s","body":"b","emailTemplateType":"x","recipientUserIds":["u1"]}`, 400, "INVALID_PARAMETER_VALUE", "Invalid value x for parameter emailTemplateType. Please provide a valid value."},
		{"validate: unknown", "/private/user/v1/certs/validate", `{"certId":"x","accessCode":"A"}`, 400, "INVALID_PARAMETER", "Please provide valid certId."},
		{"org: unknown", "/v1/org/read", `{"organisationId":"9"}`, 404, "RESOURCE_NOT_FOUND", "Requested organisation resource not found"},
		{"org: no id", "/v1/org/read", `{"x":1}`, 400, "MANDATORY_PARAMETER_MISSING", "Mandatory parameter organisationId is missing."},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			status, body := call(t, "POST", p.URLs().LearnerService+row.path, `{"request":`+row.request+`}`)
			requireRefused(t, row.status, row.code, row.text, status, body)
		})
	}
	require.Empty(t, p.Outbox())
}

func requireRefused(t *testing.T, wantStatus int, code, text string, status int, body []byte) {
	t.Helper()
	var answer sunbirdEnvelope
	require.NoError(t, json.Unmarshal(body, &answer), string(body))
	require.Equal(t, wantStatus, status)
	require.Equal(t, code, *answer.Params.Err)
	require.Equal(t, code, answer.Params.Status)
	require.Equal(t, text, *answer.Params.ErrMsg)
	require.NotEqual(t, "OK", answer.ResponseCode)
}

func addCertificate(t *testing.T, p *Platform, id, oldID string) (int, []byte) {
	t.Helper()
	return call(t, "POST", p.URLs().LearnerService+"/private/user/v1/certs/add", fmt.Sprintf(
		`{"request":{"id":%q,"accessCode":"E6P2R8","pdfURL":"a/b.pdf","jsonUrl":"a/b.json","userId":"u1","jsonData":{"n":1.50},"courseId":"do_1","batchId":"0127","oldId":%q}}`, id, oldID))
}

func TestRegisteringIsKeyedByID(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(learnerData))
	status, body := addCertificate(t, p, "c1", "")
	require.Equal(t, 200, status, string(body))
	require.Contains(t, string(body), `"result":{"response":"SUCCESS"}`)
	status, body = addCertificate(t, p, "c1", "")
	requireRefused(t, 400, "INVALID_PARAMETER", "data already exist.", status, body)
	status, _ = addCertificate(t, p, "c2", "unknown")
	require.Equal(t, 200, status, "2.3.5 ignores oldId")
	rows := p.Registered()
	require.Len(t, rows, 2)
	require.JSONEq(t, `{"n":1.50}`, string(rows[0].JSONData))
	require.Equal(t, "u1", rows[0].UserID)
	validate := p.URLs().LearnerService + "/private/user/v1/certs/validate"
	_, body = call(t, "POST", validate, `{"request":{"certId":"c1","accessCode":"E6P2R8"}}`)
	require.Contains(t, string(body), `{"response":{"json":{"n":1.50},"pdf":"a/b.pdf","courseId":"do_1","batchId":"0127"}}`)
	status, body = call(t, "POST", validate, `{"request":{"certId":"c1","accessCode":"e6p2r8"}}`)
	requireRefused(t, 400, "INVALID_PARAMETER", "Please provide valid accessCode.", status, body)
}

func TestOldIDFrom25On(t *testing.T) {
	t.Parallel()
	p := start(t, Config{LearnerEra25: true})
	require.NoError(t, p.Load(learnerData))
	status, body := addCertificate(t, p, "c2", "c1")
	requireRefused(t, 400, "INVALID_PARAMETER", "Please provide valid certId.", status, body)
	for _, pair := range [][2]string{{"c1", ""}, {"c2", "c1"}} {
		status, _ = addCertificate(t, p, pair[0], pair[1])
		require.Equal(t, 200, status)
	}
	status, body = addCertificate(t, p, "c3", "c1")
	requireRefused(t, 400, "ERROR_UNAVAILABLE_CERTIFICATE", "Certificate is unavailable", status, body)
	require.True(t, p.Registered()[0].Deleted)
}

func TestUserSearch(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(learnerData))
	search := func(request string) userHits {
		status, body := call(t, "POST", p.URLs().LearnerService+"/private/user/v1/search", `{"request":`+request+`}`)
		require.Equal(t, 200, status, string(body))
		var answer struct{ Result struct{ Response userHits } }
		require.NoError(t, json.Unmarshal(body, &answer))
		return answer.Result.Response
	}
	one := search(`{"filters":{"identifier":"u1"},"fields":["firstName","lastName","maskedPhone","rootOrgId"]}`)
	require.Equal(t, userHits{1, []map[string]any{{"firstName": "Asha", "lastName": "Rao", "maskedPhone": "******5678", "rootOrgId": "0123"}}}, one)
	require.Equal(t, userHits{0, []map[string]any{}}, search(`{"filters":{"identifier":"nope"}}`), "nobody is no error")
	require.Zero(t, search(`{"filters":{"identifier":"u5"}}`).Count, "the index lags behind")
	many := search(`{"filters":{"identifier":["u3","u2","u1","u1","nope"]},"fields":["id","identifier","lastName"],"limit":2}`)
	require.Equal(t, 3, many.Count)
	require.Equal(t, []map[string]any{{"id": "u1", "identifier": "u1", "lastName": "Rao"}, {"id": "u2", "identifier": "u2", "lastName": "null"}}, many.Content)
	require.Equal(t, 2, search(`{"filters":{"rootOrgId":"0123"}}`).Count)
	require.Zero(t, search(`{"filters":{"shoeSize":"9"}}`).Count, "an unknown filter finds nobody rather than everybody")
}

func TestUserRead(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(learnerData))
	read := func(id string) (int, []byte) {
		return call(t, "GET", p.URLs().LearnerService+"/private/user/v1/read/"+id, nil)
	}
	status, body := read("u5")
	require.Equal(t, 200, status)
	require.Contains(t, string(body), `"firstName":"Late"`)
	status, body = read("nope")
	requireRefused(t, 404, "USER_NOT_FOUND", "user not found.", status, body)
	status, body = read("u4")
	requireRefused(t, 400, "USER_ACCOUNT_BLOCKED", "User account has been blocked .", status, body)
}

func TestNotificationsAreNeverDeduplicated(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(learnerData))
	for _, mode := range []string{"", "", "sms"} {
		status, body := call(t, "POST", p.URLs().LearnerService+"/v1/notification/email", map[string]any{"request": map[string]any{
			"subject": "S", "body": "B", "mode": mode, "recipientUserIds": []string{"u1"}, "firstName": "Asha",
			"TraningName": "Course one", "heldDate": "21-08-2019", "emailTemplateType": "defaultCertTemp", "regards": "Team",
		}})
		require.Equal(t, 200, status, string(body))
	}
	out := p.Outbox()
	require.Len(t, out, 3)
	require.Equal(t, "email asha@x.example Course one", out[0].Mode+" "+out[0].To+" "+out[0].TrainingName)
	require.Equal(t, "sms 9812345678 B", out[2].Mode+" "+out[2].To+" "+out[2].Body)
	require.Len(t, p.Calls(OfOperation("email")), 2)
	require.Len(t, p.Calls(OfOperation("sms"), OfUser("u1")), 1)
}

func TestRecipientLimit(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	d, ids := Dataset{}, []string{}
	for i := range recipientLimit + 1 {
		ids = append(ids, fmt.Sprint("u", i))
		d.Users = append(d.Users, User{ID: ids[i], Email: "a@b.example"})
	}
	require.NoError(t, p.Load(d))
	status, body := call(t, "POST", p.URLs().LearnerService+"/v1/notification/email", map[string]any{"request": map[string]any{
		"subject": "S", "body": "B", "recipientUserIds": ids,
	}})
	requireRefused(t, 400, "EMAIL_RECIPIENTS_EXCEEDS_MAX_LIMIT", "Email notification is not sent as the number of recipients exceeded configured limit (100).", status, body)
}

func TestContentRead(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(Dataset{Courses: []Course{
		{ID: "do_1", Name: "Course one", Templates: []Template{{Name: "A", HTMLTemplate: "http://h/t.zip", KeyID: "2", Narrative: "n", Notify: map[string]string{"subject": "s"}}}},
		{ID: "do_2", Name: "Course two", RawCertTemplate: json.RawMessage(`{"name":"A"}`)},
		{ID: "do_3", Name: "Course three"},
	}}))
	content := func(path string) map[string]json.RawMessage {
		status, body := call(t, "GET", p.URLs().ContentService+path, nil)
		require.Equal(t, 200, status, string(body))
		var answer struct {
			Result struct{ Content map[string]json.RawMessage }
		}
		require.NoError(t, json.Unmarshal(body, &answer))
		return answer.Result.Content
	}
	one := content("/content/v3/read/do_1")
	require.JSONEq(t, `[{"name":"A","htmlTemplate":"http://h/t.zip","issuer":{"name":"","url":""},"keys":{"id":"2"},"criteria":{"narrative":"n"},"notifyTemplate":{"subject":"s"}}]`, string(one["certTemplate"]))
	require.Len(t, content("/learning-service/content/v3/read/do_1?fields=name"), 3, "name, identifier and languageCode")
	require.JSONEq(t, `{"name":"A"}`, string(content("/content/v3/read/do_2")["certTemplate"]))
	require.NotContains(t, content("/content/v3/read/do_3"), "certTemplate")
	status, body := call(t, "GET", p.URLs().ContentService+"/content/v3/read/do_9", nil)
	require.Equal(t, 404, status)
	require.Contains(t, string(body), `"err":"ERR_CONTENT_NOT_FOUND","status":"failed","errmsg":"Content not found with id: do_9"},"responseCode":"RESOURCE_NOT_FOUND"`)
}
