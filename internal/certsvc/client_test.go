package certsvc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ecreds/issuer/internal/certsvc"
	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ issue.Generator = (*certsvc.Client)(nil)

const learner = "95e4942d-cbe8-477d-aebd-ad8e6de4bfc8"

func newClient(t *testing.T, url, basePath string) *certsvc.Client {
	t.Helper()
	client, err := certsvc.New(certsvc.Config{URL: url, HTTP: sunbirdtest.HTTPClient(t), BasePath: basePath})
	require.NoError(t, err)
	return client
}

func request() issue.GenerateRequest {
	india := time.FixedZone("IST", 5*3600+1800)
	return issue.GenerateRequest{
		Course: issue.Course{ID: "do_1", Name: "Course one"},
		Template: issue.Template{
			Name: "100PercentCompletionCertificate", HTMLTemplate: "https://host.example/template.zip",
			Issuer:      issue.Issuer{Name: "Gujarat Council", URL: "https://gcert.example.in", PublicKeys: []string{"2"}},
			Signatories: []issue.Signatory{{Name: "CEO", ID: "CEO", Designation: "CEO", Image: "https://host.example/sign.png"}},
			KeyID:       "2",
		},
		Batch:     "0128821148183429120",
		Recipient: issue.Recipient{ID: learner, FirstName: "Asha", LastName: "Rao", RootOrg: "0123456789"},
		// 20 August in UTC: the day is that of the zone of certificates.
		IssuedOn: time.Date(2019, 8, 21, 2, 0, 0, 0, india),
	}
}

// TestBody holds every byte of what is sent.
func TestBody(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		basePath string
		change   func(r *issue.GenerateRequest)
	}{
		"full":     {basePath: "https://dev.sunbirded.org/certs/", change: func(*issue.GenerateRequest) {}},
		"unsigned": {change: func(r *issue.GenerateRequest) { r.Template.KeyID, r.Template.Issuer.PublicKeys = "", nil }},
		"bare": {change: func(r *issue.GenerateRequest) {
			r.Template = issue.Template{Name: "c"}
			r.Recipient = issue.Recipient{ID: learner, FirstName: "null", LastName: "NULL"}
			r.Batch = "b-1 ü"
		}},
		"hindi": {change: func(r *issue.GenerateRequest) {
			r.Course.Name = "गणित <कक्षा ८> & \"और\""
			r.Template.Narrative = "पाठ्यक्रम पूरा किया"
			r.Recipient.FirstName, r.Recipient.LastName = "आशा", "राव"
		}},
		"tamil and marks": {change: func(r *issue.GenerateRequest) {
			r.Recipient.FirstName, r.Recipient.LastName = " <b>ஆஷா</b> ", "O'Brien & Söhne\u2028"
			r.Recipient.RootOrg = "org-7.x"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, `{"result":{"response":[{"id":"c1"}]}}`))
			r := request()
			tt.change(&r)
			_, err := newClient(t, server.URL, tt.basePath).Generate(t.Context(), r)
			require.NoError(t, err)
			got := server.Requests()[0]
			assert.Equal(t, "POST", got.Method)
			assert.Equal(t, "/v1/certs/generate", got.URI)
			assert.Equal(t, "application/json", got.Header.Get("Content-Type"))
			assert.NotContains(t, got.Body, "null")
			sunbirdtest.Golden(t, strings.ReplaceAll(name, " ", "-")+".json", []byte(got.Body))
		})
	}
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ recorded, id, code, pdf string }{
		"3.9.0": {
			"v1-ok", "5c6c2075-d372-4577-95f8-268f8c94466a", "S6U7Q4",
			"https://dev.sunbirded.org/certs/0123456789_0128821148183429120/a1cb8870-e74b-11f1-948a-8b33e1f292fd.pdf",
		},
		"1.0.0": {
			"r100-ok-consumerA", "c5d5db28-0329-4dbd-b69a-77d39c117090", "Q4T6C7",
			"0123456789/0128821148183429120/c5d5db28-0329-4dbd-b69a-77d39c117090.pdf",
		},
		"another script":           {"v1-ok-unicode", "151ea3da-0014-4c96-873b-a6a47b3baa1e", "X5Z1D5", ""},
		"3.9.0 names no recipient": {"v1-ok-no-recipientId", "7401c6a4-d6ab-48b3-9824-61f93dc94c56", "B5P4S3", ""},
		"1.0.0 names null":         {"r100-no-recipientId", "66d9d3b2-8ee8-45ea-ae84-7f13142c3bd7", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reply := sunbirdtest.Recorded(t, tt.recorded)
			server := sunbirdtest.Serve(t, reply)
			got, err := newClient(t, server.URL, "").Generate(t.Context(), request())
			require.NoError(t, err)
			assert.Equal(t, tt.id, got.ID)
			assert.NotEmpty(t, got.AccessCode)
			if tt.code != "" {
				assert.Equal(t, tt.code, got.AccessCode)
			}
			if tt.pdf != "" {
				assert.Equal(t, tt.pdf, got.PDFURL)
			}
			assert.Contains(t, got.JSONURL, tt.id)
			// Byte for byte: what stands in the answer stands in the certificate.
			assert.Contains(t, reply.Body, `"jsonData":`+string(got.JSONData)+`,"`)
			assert.True(t, json.Valid(got.JSONData))
		})
	}
}

// TestAssertionIsNotTouched: number forms, order, escapes and white space of
// the signed assertion survive.
func TestAssertionIsNotTouched(t *testing.T) {
	t.Parallel()
	const assertion = "{ \"z\":1.50,\"a\":1E2 ,\"n\":12345678901234567890,\n\"u\":\"\\u003cआ\\/\" }"
	server := sunbirdtest.Serve(t, sunbirdtest.JSON(200, `{"result":{"response":[{"id":"c1","jsonData": `+assertion+` }]}}`))
	got, err := newClient(t, server.URL, "").Generate(t.Context(), request())
	require.NoError(t, err)
	assert.True(t, bytes.Equal([]byte(assertion), got.JSONData), "got %s", got.JSONData)
}

func TestNoCertificateIsNoSuccess(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]sunbirdtest.Reply{
		"empty body":      sunbirdtest.JSON(200, ""),
		"empty object":    sunbirdtest.JSON(200, "{}"),
		"null result":     sunbirdtest.JSON(200, `{"result":null}`),
		"null response":   sunbirdtest.JSON(200, `{"result":{"response":null}}`),
		"empty list":      sunbirdtest.JSON(200, `{"result":{"response":[]}}`),
		"no id":           sunbirdtest.JSON(200, `{"result":{"response":[{"accessCode":"A1B2C3"}]}}`),
		"blank id":        sunbirdtest.JSON(200, `{"result":{"response":[{"id":" "}]}}`),
		"somebody else":   sunbirdtest.JSON(200, `{"result":{"response":[{"id":"c1","recipientId":"u2"}]}}`),
		"not a list":      sunbirdtest.JSON(200, `{"result":{"response":"SUCCESS"}}`),
		"cut off":         sunbirdtest.JSON(200, `{"result":{"response":[{"id":"c1"`),
		"a page":          {Status: 200, ContentType: "text/html", Body: "<html></html>"},
		"another success": sunbirdtest.JSON(202, `{"result":{"response":[{"id":"c1"}]}}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newClient(t, sunbirdtest.Serve(t, reply).URL, "").Generate(t.Context(), request())
			failure := issue.AsFailure(err)
			assert.Equal(t, issue.Transient, failure.Verdict)
			assert.Equal(t, issue.ReasonBadAnswer, failure.Reason)
			assert.Equal(t, reply.Status, failure.HTTPStatus)
			assert.NotContains(t, failure.Error(), "u2")
		})
	}
}

func TestWithoutReply(t *testing.T) {
	t.Parallel()
	t.Run("closed after the service's idle time-out", func(t *testing.T) {
		t.Parallel()
		server := sunbirdtest.Serve(t, sunbirdtest.Recorded(t, "v1-template-slow"))
		_, err := newClient(t, server.URL, "").Generate(t.Context(), request())
		failure := issue.AsFailure(err)
		assert.Equal(t, issue.Transient, failure.Verdict, "one hanging template must not stop the others")
		assert.Equal(t, issue.ReasonTimeout, failure.Reason)
		require.ErrorIs(t, err, sunbird.ErrNoReply)
		assert.Len(t, server.Requests(), 1, "a certificate more for each repetition")
	})
	t.Run("our own timeout", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		server := sunbirdtest.ServeFunc(t, func(sunbirdtest.Request) sunbirdtest.Reply {
			<-release
			return sunbirdtest.Reply{}
		})
		t.Cleanup(func() { close(release) })
		client, err := certsvc.New(certsvc.Config{
			URL: server.URL, HTTP: sunbirdtest.HTTPClient(t), Timeout: 30 * time.Millisecond,
		})
		require.NoError(t, err)
		_, err = client.Generate(t.Context(), request())
		failure := issue.AsFailure(err)
		assert.Equal(t, issue.Transient, failure.Verdict)
		assert.Equal(t, issue.ReasonTimeout, failure.Reason)
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, listener.Close())
		_, err = newClient(t, "http://"+listener.Addr().String(), "").Generate(t.Context(), request())
		failure := issue.AsFailure(err)
		assert.Equal(t, issue.Outage, failure.Verdict)
		assert.Equal(t, issue.ReasonUnavailable, failure.Reason)
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := newClient(t, "http://127.0.0.1:9", "").Generate(ctx, request())
		require.ErrorIs(t, err, context.Canceled)
		var failure *issue.Failure
		assert.NotErrorAs(t, err, &failure)
	})
}

func TestNewRefusesABadBasePath(t *testing.T) {
	t.Parallel()
	_, err := certsvc.New(certsvc.Config{URL: "http://host", HTTP: sunbirdtest.HTTPClient(t), BasePath: "certs"})
	require.ErrorContains(t, err, "base path")
}
