package simulator

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// generateBody is a body that suits both eras, with the members given replaced; nil takes one out.
func generateBody(p *Platform, changes map[string]any) map[string]any {
	cert := map[string]any{
		"name": DemoCertificate, "courseName": "Course one", "htmlTemplate": p.URLs().Files + TemplatePath,
		"issuer":        map[string]any{"name": "Council", "url": "https://council.example.in", "publicKey": []string{"2"}},
		"signatoryList": []any{map[string]any{"name": "CEO", "id": "CEO", "designation": "CEO", "image": "https://host.example/sign.png"}},
		"data":          []any{map[string]any{"recipientName": "आशा Rao", "recipientId": "u1"}},
		"tag":           "0123_0127", "orgId": "0123", "issueDate": "2019-08-21", "issuedDate": "2019-08-21",
		"criteria": map[string]any{"narrative": "course completion certificate"},
		"basePath": p.URLs().Files + "/certs",
	}
	for name, value := range changes {
		if cert[name] = value; value == nil {
			delete(cert, name)
		}
	}
	return map[string]any{"request": map[string]any{"certificate": cert}}
}

type generated struct {
	ID          string          `json:"id"`
	AccessCode  string          `json:"accessCode"`
	RecipientID string          `json:"recipientId"`
	PDFURL      string          `json:"pdfUrl"`
	JSONURL     string          `json:"jsonUrl"`
	JSONData    json.RawMessage `json:"jsonData"`
}

func generateOne(tb testing.TB, p *Platform, changes map[string]any) generated {
	tb.Helper()
	status, body := call(tb, "POST", p.URLs().CertService+"/v1/certs/generate", generateBody(p, changes))
	require.Equal(tb, 200, status, string(body))
	var answer struct {
		Result struct{ Response []generated }
	}
	require.NoError(tb, json.Unmarshal(body, &answer))
	require.NotEmpty(tb, answer.Result.Response)
	return answer.Result.Response[0]
}

func messageOf(tb testing.TB, body []byte) string {
	tb.Helper()
	var answer struct{ Result struct{ Message string } }
	require.NoError(tb, json.Unmarshal(body, &answer), string(body))
	return answer.Result.Message
}

func TestEachGenerateMakesAnotherCertificate(t *testing.T) {
	t.Parallel()
	for _, era := range []Era{Era100, Era390} {
		p := start(t, Config{Era: era})
		first, second := generateOne(t, p, nil), generateOne(t, p, nil)
		require.NotEqual(t, first.ID, second.ID)
		require.Equal(t, "u1", first.RecipientID)
		require.Regexp(t, `^([A-HJ-NP-Z][1-9]){3}$`, first.AccessCode)
		calls := p.Calls(OfOperation("generate"), OfUser("u1"), OfBatch("0127"))
		require.Len(t, calls, 2)
		require.Equal(t, first.ID, calls[0].CertificateID)
		require.Equal(t, int64(2), p.CallCounts()[CallKey{"generate", 200}])
	}
}

func TestCertificateIsDownloadable(t *testing.T) {
	t.Parallel()
	for _, era := range []Era{Era100, Era390} {
		p := start(t, Config{Era: era})
		c := generateOne(t, p, nil)
		if era == Era100 {
			require.Equal(t, "0123/0123_0127/"+c.ID+".pdf", c.PDFURL)
		} else {
			require.NotContains(t, c.PDFURL, c.ID, "print-service names the PDF itself")
		}
		_, body := call(t, "POST", p.URLs().CertService+"/v1/user/certs/download", map[string]any{"request": map[string]any{"pdfUrl": c.PDFURL}})
		var answer struct{ Result downloadResult }
		require.NoError(t, json.Unmarshal(body, &answer))
		status, pdf := call(t, "GET", answer.Result.SignedURL, nil)
		require.Equal(t, 200, status)
		require.True(t, strings.HasPrefix(string(pdf), "%PDF-"))
		url := c.JSONURL
		if era == Era100 {
			url = p.URLs().Files + "/certs/" + url
		}
		status, assertion := call(t, "GET", url, nil)
		require.Equal(t, 200, status)
		require.JSONEq(t, string(c.JSONData), string(assertion))
	}
}

func TestSignedCertificateVerifies(t *testing.T) {
	t.Parallel()
	p := start(t, Config{Era: Era390})
	c := generateOne(t, p, map[string]any{"keys": map[string]string{"id": "2"}})
	verify := func(certificate any) string {
		_, body := call(t, "POST", p.URLs().CertService+"/v1/certs/verify", map[string]any{"request": map[string]any{"certificate": certificate}})
		return string(body)
	}
	require.Contains(t, verify(map[string]any{"data": c.JSONData}), `"valid":true`)
	require.Contains(t, verify(map[string]any{"id": c.JSONURL}), `"valid":true`)
	altered := strings.Replace(string(c.JSONData), "Course one", "Course two", 1)
	require.Contains(t, verify(map[string]any{"data": json.RawMessage(altered)}), `"valid":false`)
}

func TestRefusalsBeyondTheRecorded(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name    string
		era     Era
		changes map[string]any
		status  int
		message string
	}{
		{"designation missing", Era100, map[string]any{"signatoryList": []any{map[string]any{"name": "a", "id": "a", "image": "i"}}}, 400, "Mandatory parameter certificate.signatoryList.designation is missing."},
		{"org id a number", Era100, map[string]any{"orgId": 5}, 500, genericMessage},
		{"template's variables unknown", Era100, map[string]any{"htmlTemplate": "@" + TemplateBadVarsPath}, 500, genericMessage},
		{"aws store without account", Era390, map[string]any{"store": map[string]any{"type": "aws", "aws": map[string]any{"containerName": "c"}}}, 400, "Mandatory parameter certificate.store.aws.account is missing."},
		{"narrative blank", Era390, map[string]any{"criteria": map[string]any{"narrative": " "}}, 400, "Mandatory parameter certificate.criteria.narrative is missing."},
		{"tag with a dot", Era390, map[string]any{"tag": "a.b"}, 400, "Invalid value a.b for parameter tag."},
		{"certificate a list", Era390, nil, 500, genericMessage},
		{"too large to sign", Era390, map[string]any{"description": strings.Repeat("x", encLimit), "keys": map[string]string{"id": "2"}}, 500, "Unable to create signature: Unexpected character ('<' (code 60))"},
	}
	platforms := map[Era]*Platform{Era100: start(t, Config{Era: Era100}), Era390: start(t, Config{Era: Era390})}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := platforms[row.era]
			if url, ok := row.changes["htmlTemplate"].(string); ok {
				row.changes["htmlTemplate"] = p.URLs().Files + url[1:]
			}
			body := generateBody(p, row.changes)
			if row.changes == nil {
				body = map[string]any{"request": map[string]any{"certificate": []any{1}}}
			}
			status, answer := call(t, "POST", p.URLs().CertService+"/v1/certs/generate", body)
			require.Equal(t, row.status, status)
			require.Contains(t, messageOf(t, answer), row.message)
		})
	}
}

func TestBodyBeyondLimitIsRefused(t *testing.T) {
	t.Parallel()
	p := start(t, Config{Era: Era390})
	status, body := call(t, "POST", p.URLs().CertService+"/v1/certs/generate", `{"request":"`+strings.Repeat("x", bodyLimit)+`"}`)
	require.Equal(t, 413, status)
	require.Contains(t, string(body), "[Request entity too large]")
}

func TestSilentTemplateStopsEverybodyIn390(t *testing.T) {
	t.Parallel()
	p := start(t, Config{Era: Era390, IdleTimeout: 300 * time.Millisecond})
	status, _ := call(t, "POST", p.URLs().CertService+"/v1/certs/generate", generateBody(p, nil))
	require.Equal(t, 200, status)
	refused := string(encode(generateBody(p, map[string]any{"htmlTemplate": "http://127.0.0.1:1/x.zip"})))
	done := make(chan int, 1)
	go func() {
		status, _ := call(t, "POST", p.URLs().CertService+"/v1/certs/generate", refused)
		done <- status
	}()
	require.Eventually(t, func() bool {
		p.printQueue.mu.Lock()
		defer p.printQueue.mu.Unlock()
		return p.printQueue.hanging == 1
	}, 5*time.Second, time.Millisecond)
	at := time.Now()
	call(t, "POST", p.URLs().CertService+"/v1/certs/generate", generateBody(p, nil))
	require.Greater(t, time.Since(at), 20*time.Millisecond, "a good template waits behind the silent one")
	require.Equal(t, 0, <-done, "no reply at all")
	status, _ = call(t, "POST", p.URLs().CertService+"/v1/certs/generate", generateBody(p, nil))
	require.Equal(t, 200, status, "and all is well again")
}

func TestCanonicalFormVectors(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"b":1,"a":{"d":1,"c":2}}`:         `{"a":{"c":2,"d":1},"b":1}`,
		`{"x":[3,1,20]}`:                    `{"x":[1,3,20]}`,
		`{"x":["b","a"]}`:                   `{"x":["a","b"]}`,
		`{"x":[{"z":1,"a":2},{"a":1}]}`:     `{"x":[{"a":1},{"a":2,"z":1}]}`,
		`{"x":[{"a":1},{"a":1}]}`:           `{"x":[{"a":1}]}`,
		`{"x":[[2,1],[1]]}`:                 `{"x":[{"0":1},{"0":2,"1":1}]}`,
		`{"a":1,"10":2,"2":3}`:              `{"2":3,"10":2,"a":1}`,
		`{"a":"<&>\u2028é","b":1.0,"c":[]}`: "{\"a\":\"<&>\u2028é\",\"b\":1,\"c\":[]}",
	} {
		v, err := decodeAny([]byte(in))
		require.NoError(t, err)
		require.Equal(t, want, canonicalText(t, v), in)
	}
	for _, in := range []string{`{"x":null}`, `{"x":[null,1]}`} {
		v, err := decodeAny([]byte(in))
		require.NoError(t, err)
		_, err = digestOf(v)
		require.ErrorIs(t, err, errNull)
	}
	require.Equal(t, "?? Jos\ufffd", throughLatin1("आश José"))
}
