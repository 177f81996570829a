package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// handler is a handler that may refuse; serve turns its error into the answer.
type handler func(http.ResponseWriter, *http.Request) error

// serve answers the errors of a handler. needs says what the operation cannot
// do without.
func (a *api) serve(h handler, needs string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		why := asRefusal(r.Context(), err, needs)
		if why.status >= http.StatusInternalServerError {
			note(r, zap.Error(err))
		}
		a.fail(w, r, why)
	}
}

// entry gathers what the one line about a request will say.
type entry struct {
	requestID   string
	traceParent string
	fields      []zap.Field
}

type entryKey struct{}

func entryOf(r *http.Request) *entry {
	if e, ok := r.Context().Value(entryKey{}).(*entry); ok {
		return e
	}
	return &entry{}
}

// note adds facts to the request's line: ids, never persons or secrets.
func note(r *http.Request, fields ...zap.Field) {
	e := entryOf(r)
	e.fields = append(e.fields, fields...)
}

// identify gives the request its id and its entry, and allows pages of any
// origin to read the answer: what protects us is the token in a header, which
// a browser does not send by itself.
func (a *api) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent := cleanID(r.Header.Get("X-Request-ID"))
		e := &entry{requestID: firstOf(cleanID(r.Header.Get("X-Msgid")), sent)}
		if e.requestID == "" {
			e.requestID = uuid.NewString()
		}
		if parent := r.Header.Get("Traceparent"); validTraceParent(parent) {
			e.traceParent = parent
		}
		w.Header().Set("X-Request-Id", firstOf(sent, e.requestID))
		w.Header().Set("Access-Control-Allow-Origin", "*")
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), entryKey{}, e)))
	})
}

// cleanID keeps the printable ASCII of an id from outside, at most 128
// characters of it: it goes into logs, headers and answers.
func cleanID(id string) string {
	clean := strings.Map(func(c rune) rune {
		if c <= ' ' || c > '~' {
			return -1
		}
		return c
	}, id)
	return clean[:min(len(clean), 128)]
}

func firstOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// traceParentForm is https://www.w3.org/TR/trace-context/, version 00. A later
// version may have more behind it, which we could not pass on truthfully.
var traceParentForm = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

func validTraceParent(s string) bool {
	return traceParentForm.MatchString(s) && traceOf(s) != strings.Repeat("0", 32) && s[36:52] != strings.Repeat("0", 16)
}

func traceOf(traceParent string) string { return traceParent[3:35] }

// observe writes the request's line and counts it, when all is over.
func (a *api) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		out := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		defer func() {
			status := out.Status()
			if status == 0 { // net/http answers so for a handler that wrote nothing
				status = http.StatusOK
			}
			a.finish(r, status, time.Since(start))
		}()
		next.ServeHTTP(out, r)
	})
}

func (a *api) finish(r *http.Request, status int, took time.Duration) {
	e, route := entryOf(r), a.route(r)
	a.count(route, r.Method, status, took, e.traceParent)
	line := a.Log.Check(levelOf(route, status), "request")
	if line == nil {
		return
	}
	line.Write(append([]zap.Field{
		zap.String("route", route), zap.String("method", closedMethod(r.Method)), zap.Int("status", status),
		zap.Duration("duration", took), zap.String("request_id", e.requestID),
	}, e.fields...)...)
}

// levelOf keeps what probes and scrapers ask every few seconds out of the log,
// unless it goes wrong.
func levelOf(route string, status int) zapcore.Level {
	switch {
	case status == http.StatusServiceUnavailable:
		return zapcore.WarnLevel
	case status >= http.StatusInternalServerError:
		return zapcore.ErrorLevel
	case isAdmin(route):
		return zapcore.DebugLevel
	}
	return zapcore.InfoLevel
}

// recover turns a panic into a 500 and keeps its stack for the request's line.
// Where an answer was already begun, the connection is cut, so that the caller
// cannot take half of it for the whole.
func (a *api) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(http.ErrAbortHandler)
			}
			note(r, zap.String("panic", fmt.Sprint(cause)), zap.StackSkip("stack", 2))
			if out, ok := w.(middleware.WrapResponseWriter); ok && out.Status() != 0 {
				panic(http.ErrAbortHandler)
			}
			a.fail(w, r, errInternal)
		}()
		next.ServeHTTP(w, r)
	})
}

// preflight answers OPTIONS for every path, as the platform does. It stands
// before the routes: as a route "/*" it would make every unknown path a 405.
func preflight(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Access-Control-Allow-Methods", "POST, GET, PUT, DELETE, OPTIONS")
		w.WriteHeader(http.StatusOK)
	})
}

func (a *api) limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, a.MaxBody)
		next.ServeHTTP(w, r)
	})
}
