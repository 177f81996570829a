package simulator

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

// recording is one exchange with a running service.
type recording struct {
	Name    string `json:"name"`
	Request struct {
		Method  string            `json:"method"`
		Path    string            `json:"path"`
		Headers map[string]string `json:"headers"`
		JSON    json.RawMessage   `json:"json"`
		Body    string            `json:"body"`
	} `json:"request"`
	Response struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body"`
	} `json:"response"`
}

func (r *recording) era() Era {
	if strings.HasPrefix(r.Name, "r100-") {
		return Era100
	}
	return Era390
}

// recordedTemplates is where the recorded requests had their templates; ours lie on the files server.
var recordedTemplates = strings.NewReplacer(
	"http://127.0.0.1:9506/template.zip", "@files/templates/certificate.zip",
	"http://127.0.0.1:9506/template10.zip", "@files/templates/certificate.zip",
	"http://127.0.0.1:9506/template11.zip", "@files/templates/certificate.zip?11",
	"http://127.0.0.1:9506/badvars10.zip", "@files/templates/badvars.zip",
	"http://127.0.0.1:9506/none.zip", "@files/templates/missing.zip",
	"http://127.0.0.1:9506/", "@files/templates/",
	"http://127.0.0.1:9599/", "http://127.0.0.1:1/",
)

// fresh values differ at every call.
var fresh = []struct{ pattern, with string }{
	{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\.`, "<id>."},
	{`("(id|jsonUrl)":"[^"]*)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"`, `${1}<id>"`},
	{`"accessCode":"([A-HJ-NP-Z][1-9]){3}"`, `"accessCode":"<code>"`},
	{`"ts":"\d{13}"`, `"ts":"<ts>"`},
	{`"created":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"`, `"created":"<time>"`},
	{`"signatureValue":"[A-Za-z0-9+/]+=*"`, `"signatureValue":"<signature>"`},
	{`"(issuedOn|expires)":"202[6-9]-[^"]*T(\d\d:\d\d:[1-9]\d|\d\d:[1-9]\d:\d\d|[01]\d:\d\d:\d\d|2[0-3]:0[1-9]:\d\d)Z"`, `"$1":"<now>"`},
	{`"signedUrl":"https?://[^/]+/certs`, `"signedUrl":"<store>/certs`},
	{`se=[^&]*&sr=b&sp=r&sig=[^"]*`, `se=<end>&sr=b&sp=r&sig=<sig>`},
	{`\[Error decoding json body: (?s).*\]\n        </p>`, "[Error decoding json body]\n        </p>"},
	{`<strong>[0-9a-z]+</strong>`, `<strong><id></strong>`},
}

func normalised(body string) string {
	for _, f := range fresh {
		body = regexp.MustCompile(f.pattern).ReplaceAllString(body, f.with)
	}
	return body
}

func loadRecordings(t *testing.T) []recording {
	t.Helper()
	paths, err := filepath.Glob("testdata/recorded/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	out := make([]recording, len(paths))
	for i, path := range paths {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(content, &out[i]), path)
	}
	return out
}

// TestAnswersAsRecorded puts the recorded requests to the simulator of their era. Left out of testdata/recorded are:
//   - v2-*, template-*: routes that are not simulated (SVG certificates, stored templates and their check);
//   - v1-enc-down, v1-print-down, v1-blob-down, verify-enc-down, v1-after-template-broken: faults of services behind
//     cert-service, which a Fault with that body can stand in for;
//   - v1-template-not-url, -refused, -slow, v1-after-template-refused, -slow: no answer at all, which
//     TestSilentTemplateStopsEverybodyIn390 shows with a shorter patience;
//   - v1-timeout-1: depends on how slow the drawing was;
//   - verify-by-id: names a certificate of that run (TestSignedCertificateVerifies has one of its own);
//   - body-11MB, body-51MB: their bodies were not kept (TestRefusalsBeyondTheRecorded, TestBodyBeyondLimitIsRefused).
func TestAnswersAsRecorded(t *testing.T) {
	t.Parallel()
	platforms := map[Era]*Platform{}
	for _, era := range []Era{Era100, Era390} {
		platforms[era] = start(t, Config{Era: era, CertBase: "https://dev.sunbirded.org/certs"})
		platforms[era].keys.public["2"] = recordedKey(t)
	}
	for _, r := range loadRecordings(t) {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			p := platforms[r.era()]
			status, kind, body := replayRecording(t, p, &r)
			require.Equal(t, r.Response.Status, status, string(body))
			require.Equal(t, r.Response.Headers["Content-Type"], kind)
			if diff := cmp.Diff(normalised(r.Response.Body), normalised(string(body))); diff != "" {
				t.Errorf("body (-recorded +simulated):\n%s", diff)
			}
		})
	}
}

// recordedKey is the public key with which the recorded certificates were signed.
func recordedKey(t *testing.T) *rsa.PublicKey {
	t.Helper()
	content, err := os.ReadFile("testdata/recorded-key-2.json")
	require.NoError(t, err)
	var r recording
	require.NoError(t, json.Unmarshal(content, &r))
	block, _ := pem.Decode([]byte(r.Response.Body))
	require.NotNil(t, block)
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	return key.(*rsa.PublicKey)
}

func replayRecording(t *testing.T, p *Platform, r *recording) (status int, contentType string, body []byte) {
	t.Helper()
	sent := r.Request.Body
	if r.Request.JSON != nil {
		sent = string(r.Request.JSON)
	}
	sent = strings.ReplaceAll(recordedTemplates.Replace(sent), "@files", p.URLs().Files)
	request, err := http.NewRequestWithContext(t.Context(), r.Request.Method, p.URLs().CertService+r.Request.Path, strings.NewReader(sent))
	require.NoError(t, err)
	for name, value := range r.Request.Headers {
		if name != "Content-Length" {
			request.Header.Set(name, value)
		}
	}
	response, err := client.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, response.Header.Get("Content-Type"), body
}

func canonicalText(t *testing.T, v any) string {
	t.Helper()
	var buf bytes.Buffer
	require.NoError(t, writeCanonical(&buf, v))
	return buf.String()
}
