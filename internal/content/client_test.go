package content_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ecreds/issuer/internal/content"
	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T, url string) *content.Client {
	t.Helper()
	client, err := content.New(content.Config{URL: url, HTTP: sunbirdtest.HTTPClient(t)})
	require.NoError(t, err)
	return client
}

// read gives the course whose certTemplate is this JSON; "" = absent.
func read(t *testing.T, certTemplate string) (issue.Course, error) {
	t.Helper()
	member := ""
	if certTemplate != "" {
		member = `,"certTemplate":` + certTemplate
	}
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, `{"id":"ekstep.content.find","ver":"3.0","ts":"2019-10-04T10:00:00Z+05:30",
		"params":{"resmsgid":"uuid","msgid":null,"err":null,"status":"successful","errmsg":null},"responseCode":"OK",
		"result":{"content":{"identifier":"do_1","name":"Course one","languageCode":"en"`+member+`}}}`))
	return newClient(t, server.URL).Course(t.Context(), "do_1")
}

const one = `{"name":"100PercentCompletionCertificate","htmlTemplate":"https://host/container/template.zip",
	"issuer":{"name":"Council","url":"https://council.example","publicKey":["2",3]},
	"signatoryList":[{"name":"CEO","id":"CEO","designation":"Chief","image":"https://host/sign.png"}],
	"keys":{"id":"2"},"criteria":{"narrative":"done"},
	"notifyTemplate":{"subject":"Completion certificate","regards":"R","n":1.50}}`

func full() issue.Template {
	return issue.Template{
		Name: "100PercentCompletionCertificate", HTMLTemplate: "https://host/container/template.zip",
		Issuer:      issue.Issuer{Name: "Council", URL: "https://council.example", PublicKeys: []string{"2", "3"}},
		Signatories: []issue.Signatory{{Name: "CEO", ID: "CEO", Designation: "Chief", Image: "https://host/sign.png"}},
		KeyID:       "2", Narrative: "done",
		Notify: map[string]json.RawMessage{
			"subject": json.RawMessage(`"Completion certificate"`), "regards": json.RawMessage(`"R"`), "n": json.RawMessage(`1.50`),
		},
	}
}

// asText is JSON as JSON text.
func asText(t *testing.T, value string) string {
	t.Helper()
	text, err := sunbird.JSON(value)
	require.NoError(t, err)
	return string(text)
}

func TestFormsOfCertTemplate(t *testing.T) {
	t.Parallel()
	nested := `[{"name":"100PercentCompletionCertificate","htmlTemplate":"https://host/container/template.zip",` +
		`"issuer":` + asText(t, `{"name":"Council","url":"https://council.example","publicKey":["2","3"]}`) + `,` +
		`"signatoryList":` + asText(t, `[{"name":"CEO","id":"CEO","designation":"Chief","image":"https://host/sign.png"}]`) + `,` +
		`"keys":` + asText(t, `{"id":2}`) + `,"criteria":` + asText(t, `{"narrative":"done"}`) + `,` +
		`"notifyTemplate":` + asText(t, `{"subject":"Completion certificate","regards":"R","n":1.50}`) + `}]`
	for name, tt := range map[string]struct {
		certTemplate string
		want         []issue.Template
	}{
		"list":              {"[" + one + `,{"name":"Other"}]`, []issue.Template{full(), {Name: "Other"}}},
		"single map":        {one, []issue.Template{full()}},
		"list as text":      {asText(t, "["+one+"]"), []issue.Template{full()}},
		"map as text":       {asText(t, one), []issue.Template{full()}},
		"members as text":   {nested, []issue.Template{full()}},
		"absent":            {"", nil},
		"null":              {"null", nil},
		"empty list":        {"[]", nil},
		"empty text":        {`" "`, nil},
		"entries of no use": {`[null,7,"x",[],{"htmlTemplate":"h"},{"name":""},{"name":" c "}]`, []issue.Template{{Name: "c"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := read(t, tt.certTemplate)
			require.NoError(t, err)
			assert.Equal(t, issue.Course{ID: "do_1", Name: "Course one", Templates: tt.want}, got)
		})
	}
}

// TestOddMembers: what has an unexpected type counts as missing, which
// cert-service then says in so many words.
func TestOddMembers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		entry string
		want  issue.Template
	}{
		"issuer":             {`"issuer":"Council"`, issue.Template{}},
		"a single key":       {`"issuer":{"publicKey":"2"}`, issue.Template{Issuer: issue.Issuer{PublicKeys: []string{"2"}}}},
		"keys of odd types":  {`"issuer":{"publicKey":[null,{},"2"]}`, issue.Template{Issuer: issue.Issuer{PublicKeys: []string{"2"}}}},
		"no keys at all":     {`"issuer":{"publicKey":[]}`, issue.Template{}},
		"one signatory":      {`"signatoryList":{"name":"n"}`, issue.Template{Signatories: []issue.Signatory{{Name: "n"}}}},
		"signatory a text":   {`"signatoryList":["n"]`, issue.Template{}},
		"numbers for text":   {`"htmlTemplate":7,"criteria":{"narrative":8}`, issue.Template{HTMLTemplate: "7", Narrative: "8"}},
		"criteria a list":    {`"criteria":[]`, issue.Template{}},
		"notify nothing":     {`"notifyTemplate":{}`, issue.Template{}},
		"notify a text":      {`"notifyTemplate":"x"`, issue.Template{}},
		"key as a number":    {`"keys":{"id":2}`, issue.Template{KeyID: "2"}},
		"bare key":           {`"keys":"2"`, issue.Template{KeyID: "2"}},
		"bare key, a number": {`"keys":12`, issue.Template{KeyID: "12"}},
		"keys null":          {`"keys":null`, issue.Template{}},
		"keys empty":         {`"keys":{}`, issue.Template{}},
		"key blank":          {`"keys":{"id":" "}`, issue.Template{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := read(t, `[{"name":"c",`+tt.entry+`}]`)
			require.NoError(t, err)
			tt.want.Name = "c"
			assert.Equal(t, []issue.Template{tt.want}, got.Templates)
		})
	}
}

// TestUnreadable: an unsigned certificate must not come from a key that could
// not be read, and no certificate from something else than templates.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	for name, certTemplate := range map[string]string{
		"a number": `7`, "some words": `"none yet"`, "true": `true`,
		"keys a list": `[{"name":"c","keys":["2"]}]`, "key an object": `[{"name":"c","keys":{"id":{}}}]`,
		"key true": `[{"name":"c","keys":true}]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := read(t, certTemplate)
			failure := issue.AsFailure(err)
			assert.Equal(t, issue.Permanent, failure.Verdict)
			assert.Equal(t, issue.ReasonTemplate, failure.Reason)
		})
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reply   sunbirdtest.Reply
		verdict issue.Verdict
		reason  issue.Reason
	}{
		"unknown course": {
			sunbirdtest.JSON(404, `{"params":{"err":"ERR_CONTENT_NOT_FOUND","status":"failed","errmsg":"Content not found with id: do_1"},"responseCode":"RESOURCE_NOT_FOUND","result":{}}`),
			issue.Permanent, issue.ReasonUnknownCourse,
		},
		"a page of 404":       {sunbirdtest.Reply{Status: 404, Body: "<html></html>"}, issue.Permanent, issue.ReasonRejected},
		"a gateway's 404":     {sunbirdtest.JSON(404, `{"message":"no Route matched"}`), issue.Permanent, issue.ReasonRejected},
		"server error":        {sunbirdtest.JSON(500, `{"params":{"err":"SYSTEM_ERROR"}}`), issue.Transient, issue.ReasonOther},
		"away":                {sunbirdtest.JSON(503, ``), issue.Outage, issue.ReasonUnavailable},
		"empty 200":           {sunbirdtest.JSON(200, ``), issue.Transient, issue.ReasonBadAnswer},
		"200 without content": {sunbirdtest.JSON(200, `{"result":{}}`), issue.Transient, issue.ReasonBadAnswer},
		"200 without result":  {sunbirdtest.JSON(200, `{}`), issue.Transient, issue.ReasonBadAnswer},
		"content a list":      {sunbirdtest.JSON(200, `{"result":{"content":[]}}`), issue.Transient, issue.ReasonBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newClient(t, sunbirdtest.Serve(t, tt.reply).URL).Course(t.Context(), "do_1")
			failure := issue.AsFailure(err)
			assert.Equal(t, tt.verdict, failure.Verdict)
			assert.Equal(t, tt.reason, failure.Reason)
		})
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, `{"result":{"content":{"name":"n"}}}`))
	course, err := newClient(t, server.URL+"/learning-service/").Course(t.Context(), "do 1/../x?y#z%")
	require.NoError(t, err)
	assert.Equal(t, issue.CourseID("do 1/../x?y#z%"), course.ID)
	got := server.Requests()[0]
	assert.Equal(t, "GET", got.Method)
	assert.Equal(t, "/learning-service/content/v3/read/do%201%2F..%2Fx%3Fy%23z%25?fields=name,certTemplate", got.URI)
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := newClient(t, "http://127.0.0.1:9").Course(ctx, "do_1")
	require.ErrorIs(t, err, context.Canceled)
}
