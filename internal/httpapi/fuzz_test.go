package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// Whatever comes as a body, the answer is enveloped and no 500; what is
// accepted asks for a batch of a course and, when it names learners, for some.
func FuzzIssueRequest(f *testing.F) {
	for _, seed := range []string{
		goodBody, ``, `{}`, `[]`, `null`, `{"request":null}`, `{"request":{"courseId":null,"collectionId":"c","batchId":"b"}}`,
		`{"request":{"courseId":"c","batchId":"b","certificate":"A","filters":{"status":[2,"1"],"userId":"u","completedOn":{"<=":1694131200123}}}}`,
		`{"request":{"courseId":"c","batchId":"b","userIds":["u","\u0000"]}}`, `{"request":{"courseId":"\ud800","batchId":"b","batchId":"c"}}`,
	} {
		f.Add([]byte(seed))
	}
	h := newHouse()
	api := New(h.cfg)
	f.Fuzz(func(t *testing.T, body []byte) {
		h.asked = nil
		h.log.TakeAll()
		w := httptest.NewRecorder()
		api.ServeHTTP(w, post("/issue", string(body)))
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest && w.Code != http.StatusRequestEntityTooLarge {
			t.Fatalf("status %d", w.Code)
		}
		enveloped(t, w)
		if (w.Code == http.StatusOK) != (len(h.asked) == 1) {
			t.Fatalf("status %d after %d calls", w.Code, len(h.asked))
		}
		for _, r := range h.asked {
			if r.Batch == "" || r.Course == "" || r.Filter.Learners != nil && len(r.Filter.Learners) == 0 {
				t.Fatalf("accepted %+v", r)
			}
		}
	})
}
