package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// operations are all names a call or a fault can have.
var operations = []string{
	"generate", "certs_add", "certs_validate", "user_search", "user_read", "org_read", "email", "sms", "content_read",
	"es_search", "es_get", "es_count", "es_update", "es_info", "es_index", "download", "verify", "template", "health",
	"options", "unknown",
}

// withControl serves the control routes on the files server, beside the files; they are neither logged nor subject to
// faults.
func (p *Platform) withControl(files http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.indexPage)
	mux.HandleFunc("GET /simulator/calls", p.listCalls)
	mux.HandleFunc("DELETE /simulator/calls", func(w http.ResponseWriter, _ *http.Request) {
		p.ResetCalls()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /simulator/counts", func(w http.ResponseWriter, _ *http.Request) { writeControl(w, p.countsByName()) })
	mux.HandleFunc("GET /simulator/faults", func(w http.ResponseWriter, _ *http.Request) { writeControl(w, p.Faults()) })
	mux.HandleFunc("POST /simulator/faults", p.postFault)
	mux.HandleFunc("DELETE /simulator/faults", func(w http.ResponseWriter, _ *http.Request) {
		p.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /simulator/outbox", p.listOutbox)
	mux.HandleFunc("GET /simulator/registered", p.listRegistered)
	mux.Handle("/", files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.enter() {
			panic(http.ErrAbortHandler)
		}
		defer p.leave()
		mux.ServeHTTP(w, r)
	})
}

func writeControl(w http.ResponseWriter, v any) { jsonReply(200, v).write(w) }

// listCalls shows the log; without limit the newest 1,000.
func (p *Platform) listCalls(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	filters := []CallFilter{}
	if s := q.Get("service"); s != "" {
		filters = append(filters, OfService(Service(s)))
	}
	if op := q.Get("operation"); op != "" {
		filters = append(filters, OfOperation(op))
	}
	if id := q.Get("userId"); id != "" {
		filters = append(filters, OfUser(id))
	}
	if id := q.Get("batchId"); id != "" {
		filters = append(filters, OfBatch(id))
	}
	writeControl(w, newest(p.Calls(filters...), limitOf(r)))
}

func limitOf(r *http.Request) int {
	if n, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && n >= 0 {
		return n
	}
	return 1000
}

func newest[T any](list []T, n int) []T { return list[max(0, len(list)-n):] }

// countsByName is {"generate":{"200":12,"0":1}}.
func (p *Platform) countsByName() map[string]map[string]int64 {
	out := map[string]map[string]int64{}
	for key, n := range p.CallCounts() {
		if out[key.Operation] == nil {
			out[key.Operation] = map[string]int64{}
		}
		out[key.Operation][strconv.Itoa(key.Status)] = n
	}
	return out
}

func (p *Platform) listOutbox(w http.ResponseWriter, r *http.Request) {
	list := p.Outbox()
	if id := r.URL.Query().Get("userId"); id != "" {
		list = slices.DeleteFunc(list, func(m Message) bool { return m.UserID != id })
	}
	writeControl(w, map[string]any{"count": len(list), "messages": newest(list, limitOf(r))})
}

func (p *Platform) listRegistered(w http.ResponseWriter, r *http.Request) {
	list := p.Registered()
	q := r.URL.Query()
	list = slices.DeleteFunc(list, func(row Registration) bool {
		return !fits(q.Get("userId"), row.UserID) || !fits(q.Get("batchId"), row.BatchID)
	})
	if q.Get("jsonData") == "" {
		for i := range list {
			list[i].JSONData = nil // large, and seldom what one is after
		}
	}
	writeControl(w, map[string]any{"count": len(list), "rows": newest(list, limitOf(r))})
}

// wireFault is a fault as JSON has it; latency is text such as "250ms".
type wireFault struct {
	Service    Service `json:"service,omitempty"`
	Operation  string  `json:"operation,omitempty"`
	UserID     string  `json:"userId,omitempty"`
	BatchID    string  `json:"batchId,omitempty"`
	Template   string  `json:"template,omitempty"`
	Latency    string  `json:"latency,omitempty"`
	Status     int     `json:"status,omitempty"`
	Body       string  `json:"body,omitempty"`
	RetryAfter string  `json:"retryAfter,omitempty"`
	AfterWork  bool    `json:"afterWork,omitempty"`
	LoseReply  bool    `json:"loseReply,omitempty"`
	Hang       bool    `json:"hang,omitempty"`
	Outage     bool    `json:"outage,omitempty"`
	Capacity   int     `json:"capacity,omitempty"`
	Rate       float64 `json:"rate,omitempty"`
	Times      int     `json:"times,omitempty"`
}

// MarshalJSON writes the fault as the control routes show it.
func (f Fault) MarshalJSON() ([]byte, error) {
	w := wireFault{
		f.Service, f.Operation, f.UserID, f.BatchID, f.Template, "", f.Status, f.Body, f.RetryAfter, f.AfterWork,
		f.LoseReply, f.Hang, f.Outage, f.Capacity, f.Rate, f.Times,
	}
	if f.Latency != 0 {
		w.Latency = f.Latency.String()
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads a fault and refuses one that could never strike.
func (f *Fault) UnmarshalJSON(body []byte) error {
	var w wireFault
	if err := json.Unmarshal(body, &w); err != nil {
		return err
	}
	latency := time.Duration(0)
	if w.Latency != "" {
		var err error
		if latency, err = time.ParseDuration(w.Latency); err != nil {
			return fmt.Errorf("latency: %w", err)
		}
	}
	*f = Fault{
		Service: w.Service, Operation: w.Operation, UserID: w.UserID, BatchID: w.BatchID, Template: w.Template,
		Latency: latency, Status: w.Status, Body: w.Body, RetryAfter: w.RetryAfter, AfterWork: w.AfterWork,
		LoseReply: w.LoseReply, Hang: w.Hang, Outage: w.Outage, Capacity: w.Capacity, Rate: w.Rate, Times: w.Times,
	}
	return f.check()
}

func (f *Fault) check() error {
	services := []Service{"", CertService, LearnerService, ContentService, Elasticsearch, Files}
	switch {
	case !slices.Contains(services, f.Service):
		return fmt.Errorf("service %q: want one of %q", f.Service, services[1:])
	case f.Operation != "" && !slices.Contains(operations, f.Operation):
		return fmt.Errorf("operation %q: want one of %q", f.Operation, operations)
	case f.Rate < 0 || f.Rate > 1:
		return fmt.Errorf("rate %v: want 0 to 1", f.Rate)
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("status %d: want 200 to 599", f.Status)
	}
	return nil
}

func (p *Platform) postFault(w http.ResponseWriter, r *http.Request) {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	var f Fault
	if err := dec.Decode(&f); err != nil {
		jsonReply(400, map[string]string{"error": err.Error()}).write(w)
		return
	}
	p.SetFault(f)
	jsonReply(201, f).write(w)
}

func (p *Platform) indexPage(w http.ResponseWriter, _ *http.Request) {
	u := p.URLs()
	page := fmt.Sprintf(indexText, p.cfg.Era, u.CertService, u.LearnerService, u.ContentService, u.Elasticsearch, u.Files,
		TemplatePath, TemplateBrokenPath, TemplateNoIndexPath, TemplateSlowPath)
	reply{status: 200, contentType: "text/html; charset=utf-8", body: []byte(page)}.write(w)
}

const indexText = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Simulated Sunbird platform</title>
<style>body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}code,pre{background:#f3f3f3}pre{padding:.6em;overflow:auto}</style>
</head><body>
<h1>Simulated Sunbird platform</h1>
<p>cert-service %s. Everything here is simulated; nothing is sent to anybody.</p>
<ul>
<li>cert-service: <code>%s</code></li>
<li>learner-service: <code>%s</code></li>
<li>content service: <code>%s</code></li>
<li>Elasticsearch: <code>%s</code></li>
<li>files: <code>%s</code></li>
</ul>
<h2>Look</h2>
<ul>
<li><a href="/simulator/counts">/simulator/counts</a> calls by operation and status (0 = no reply)</li>
<li><a href="/simulator/calls?limit=50">/simulator/calls</a> <code>?service=&amp;operation=&amp;userId=&amp;batchId=&amp;limit=</code>; DELETE empties it</li>
<li><a href="/simulator/registered?limit=50">/simulator/registered</a> certificates learners can see; <code>?userId=&amp;batchId=&amp;jsonData=1</code></li>
<li><a href="/simulator/outbox?limit=50">/simulator/outbox</a> accepted notifications; <code>?userId=</code></li>
<li><a href="/simulator/faults">/simulator/faults</a> faults in force</li>
</ul>
<h2>Break</h2>
<pre>curl -X POST localhost/simulator/faults -d '{"service":"cert","operation":"generate","latency":"250ms","rate":0.1,"status":503}'
curl -X POST localhost/simulator/faults -d '{"service":"learner","outage":true}'
curl -X DELETE localhost/simulator/faults</pre>
<p>Members of a fault: service, operation, userId, batchId, template · latency, status, body, retryAfter, afterWork, loseReply, hang, outage, capacity · rate, times.</p>
<p>Templates: <code>%s</code>, and for trouble <code>%s</code>, <code>%s</code>, <code>%s</code>. Certificates: <code>/certs/…/&lt;id&gt;.pdf</code> and <code>.json</code>.</p>
</body></html>
`
