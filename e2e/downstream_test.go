package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// downstream answers generate, certs/add and notification after a latency, and
// looks users up at once; it does nothing else. The simulated platform checks, signs and remembers, which
// on the same two cores would take a good part of what is to be measured.
type downstream struct {
	*httptest.Server
	latency time.Duration
	served  atomic.Int64
}

func newDownstream(tb testing.TB, latency time.Duration) *downstream {
	tb.Helper()
	d := &downstream{latency: latency}
	d.Server = httptest.NewServer(d)
	tb.Cleanup(d.Close)
	return d
}

// assertion stands for a signed certificate of ordinary size.
var assertion = `{"type":["Assertion"],"evidence":"` + strings.Repeat("x", 1800) + `"}`

func (d *downstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(r.URL.Path, "/search") {
		_, _ = w.Write(found(body))
		return
	}
	<-time.After(d.latency)
	if !strings.HasSuffix(r.URL.Path, "/certs/generate") {
		_, _ = io.WriteString(w, `{"responseCode":"OK","result":{"response":"SUCCESS"}}`)
		return
	}
	_, id, _ := bytes.Cut(body, []byte(`"recipientId":"`))
	id, _, _ = bytes.Cut(id, []byte(`"`))
	_, _ = fmt.Fprintf(w, `{"responseCode":"OK","result":{"response":[{"id":"cert-%d","accessCode":"A1B2C3","recipientId":%q,`+
		`"pdfUrl":"o/b/c.pdf","jsonUrl":"o/b/c.json","jsonData":%s}]}}`, d.served.Add(1), id, assertion)
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
