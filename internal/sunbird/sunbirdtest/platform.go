package sunbirdtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// Platform answers for a course, a user search, generate, certs/add and
// notification, the last three after a latency; it does nothing else. It is for
// benchmarks: the simulated platform checks, signs and remembers, which on the
// same processors would take a good part of what is to be measured.
type Platform struct {
	Latency time.Duration
	served  atomic.Int64
}

// course is what the platform knows of every course: one template that notifies.
const course = `{"responseCode":"OK","result":{"content":{"name":"Figures","certTemplate":[{"name":"Figures",` +
	`"htmlTemplate":"https://files.example/t.zip","issuer":{"name":"Council","url":"https://council.example"},"signatoryList":[],` +
	`"notifyTemplate":{"subject":"Completion certificate","emailTemplateType":"defaultCertTemp"}}]}}}`

// assertion stands for a signed certificate of ordinary size.
var assertion = `{"type":["Assertion"],"evidence":"` + strings.Repeat("x", 1800) + `"}`

// ServeHTTP implements [http.Handler].
func (p *Platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/search"):
		_, _ = w.Write(found(body))
		return
	case strings.HasPrefix(r.URL.Path, "/content/"):
		_, _ = io.WriteString(w, course)
		return
	}
	<-time.After(p.Latency)
	if !strings.HasSuffix(r.URL.Path, "/certs/generate") {
		_, _ = io.WriteString(w, `{"responseCode":"OK","result":{"response":"SUCCESS"}}`)
		return
	}
	_, id, _ := bytes.Cut(body, []byte(`"recipientId":"`))
	id, _, _ = bytes.Cut(id, []byte(`"`))
	_, _ = fmt.Fprintf(w, `{"responseCode":"OK","result":{"response":[{"id":"cert-%d","accessCode":"A1B2C3","recipientId":%q,`+
		`"pdfUrl":"o/b/c.pdf","jsonUrl":"o/b/c.json","jsonData":%s}]}}`, p.served.Add(1), id, assertion)
}

// found answers a user search: everybody is known.
func found(body []byte) []byte {
	var search struct {
		Request struct {
			Filters struct {
				Identifier json.RawMessage `json:"identifier"`
			} `json:"filters"`
		} `json:"request"`
	}
	_ = json.Unmarshal(body, &search) // our own client wrote it
	var ids []string
	if json.Unmarshal(search.Request.Filters.Identifier, &ids) != nil {
		ids = []string{strings.Trim(string(search.Request.Filters.Identifier), `"`)}
	}
	type user struct {
		ID        string `json:"id"`
		FirstName string `json:"firstName"`
		RootOrgID string `json:"rootOrgId"`
	}
	users := make([]user, len(ids))
	for i, id := range ids {
		users[i] = user{ID: id, FirstName: "Asha", RootOrgID: "0127920475840593920"}
	}
	answer, _ := json.Marshal(map[string]any{"responseCode": "OK", "result": map[string]any{
		"response": map[string]any{"count": len(users), "content": users},
	}})
	return answer
}
