package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// exchange is one call on its way through: what came in, and what it is about once its body has been read.
type exchange struct {
	r    *http.Request
	body []byte
	// tooLarge says that the body went beyond the limit and was not read to its end.
	tooLarge bool

	operation     string // the route's name, or a nearer one that the body tells
	userID        string
	batchID       string
	certificateID string
	template      []string // its address and its name: a fault may restrict to either
}

// operation reads a call and returns the work it asks for. The two are apart so that a fault can look at what the
// call is about before anything is done, and can let the work happen and lose its answer.
type operation func(x *exchange) func() reply

// route names an operation of a service; the zero route is an unknown path.
type route struct {
	name string
	do   operation
}

// routeFinder says which operation a request asks for.
type routeFinder func(*http.Request) route

// reply is an answer; cut means none at all: the connection just ends.
type reply struct {
	status      int
	contentType string
	body        []byte
	header      http.Header
	cut         bool
}

const (
	jsonType = "application/json"
	// bodyLimit is cert-service's own (50 MB); the others' are not known to be smaller.
	bodyLimit = 50 << 20
)

func answer(r reply) func() reply { return func() reply { return r } }

// jsonReply encodes as the Java and Node services do: no HTML escapes, letters of every script as they are.
func jsonReply(status int, v any) reply {
	return reply{status: status, contentType: jsonType, body: encode(v)}
}

func encode(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		// Only our own types are encoded, so this is a mistake in this package: show it to whoever reads the answer.
		return []byte(strconv.Quote(err.Error()))
	}
	return bytes.TrimRight(buf.Bytes(), "\n")
}

// isJSON says whether the call declares a JSON body; the services take any other body as absent.
func (x *exchange) isJSON() bool {
	kind := x.r.Header.Get("Content-Type")
	if kind == jsonType {
		return true
	}
	kind, _, err := mime.ParseMediaType(kind)
	return err == nil && kind == jsonType
}

func (x *exchange) read() error {
	defer func() { _ = x.r.Body.Close() }()
	if x.r.ContentLength > bodyLimit {
		x.tooLarge = true
		_, _ = io.Copy(io.Discard, io.LimitReader(x.r.Body, 2*bodyLimit)) // so that the client reads the answer
		return nil
	}
	if n := x.r.ContentLength; n >= 0 {
		x.body = make([]byte, n)
		_, err := io.ReadFull(x.r.Body, x.body)
		return err
	}
	var err error
	x.body, err = io.ReadAll(http.MaxBytesReader(nil, x.r.Body, bodyLimit))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		x.tooLarge = true
		return nil
	}
	return err
}

// handler serves one service: every call is read, logged on arrival, put through the faults, and answered.
func (p *Platform) handler(service Service, find routeFinder) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.enter() {
			panic(http.ErrAbortHandler)
		}
		defer p.leave()
		op := find(r)
		x := &exchange{r: r}
		if err := x.read(); err != nil {
			panic(http.ErrAbortHandler) // the client went away in the middle of its own request
		}
		x.operation = op.name
		work := op.do(x)
		seen := p.calls.arrive(p.callOf(service, x))
		out, faulty := p.faults.apply(r.Context(), seen, x, work)
		if r.Context().Err() != nil {
			out.cut = true // the client gave up: whatever we write, it saw no reply
		}
		p.calls.finish(seen, x, out, faulty)
		out.write(w)
	})
}

func (p *Platform) callOf(service Service, x *exchange) Call {
	c := Call{
		At: time.Now(), Service: service, Operation: x.operation,
		UserID: x.userID, BatchID: x.batchID, CertificateID: x.certificateID,
		TraceParent: x.r.Header.Get("Traceparent"), RequestID: x.r.Header.Get("X-Request-Id"),
	}
	if p.cfg.KeepBodies {
		c.Body = x.body
	}
	return c
}

func (r reply) write(w http.ResponseWriter) {
	if r.cut {
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	for key, values := range r.header {
		h[key] = values
	}
	if r.contentType != "" {
		h["Content-Type"] = []string{r.contentType}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(r.body))}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body) // a client that has gone is the client's matter
}
