package sunbird

import (
	"context"
	"net/http"
)

// Trace is what ties a call to the request or event that caused it.
type Trace struct {
	Parent    string // W3C traceparent
	RequestID string // sent as X-Request-ID and X-msgid: services of different years read one or the other
}

type traceKey struct{}

// WithTrace gives a context whose calls carry the trace.
func WithTrace(ctx context.Context, t Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceFrom returns the trace of the context, or the zero value.
func TraceFrom(ctx context.Context) Trace {
	t, _ := ctx.Value(traceKey{}).(Trace)
	return t
}

// maxTraceID is more than any id that is one; longer ones are noise.
const maxTraceID = 256

func (t Trace) set(h http.Header) {
	for name, value := range map[string]string{
		"traceparent": t.Parent, "X-Request-ID": t.RequestID, "X-msgid": t.RequestID,
	} {
		if sendable(value) {
			h.Set(name, value)
		}
	}
}

// sendable keeps ids out that no header can carry: they come from callers and
// from Kafka, and a call must not fail for them.
func sendable(id string) bool {
	if id == "" || len(id) > maxTraceID {
		return false
	}
	for i := range len(id) {
		if id[i] < 0x21 || id[i] > 0x7e {
			return false
		}
	}
	return true
}
