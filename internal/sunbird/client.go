package sunbird

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

const (
	// maxAnswer caps an answer: a page of enrolments or a certificate stays far
	// below it, and a service gone wrong cannot fill our memory.
	maxAnswer = 16 << 20
	// maxErrorAnswer caps what is read of an answer that is an error: enough for
	// its envelope, whose text is cut to 2 KiB.
	maxErrorAnswer = 64 << 10
	// maxDrain is what is read and thrown away so that the connection can be
	// used again; beyond that a new connection is cheaper.
	maxDrain = 256 << 10
)

// ErrNoReply is wrapped by failures of calls that had reached the service, or
// may have: the connection stood, but no answer came. Without it, nothing was
// sent.
var ErrNoReply = errors.New("no reply")

// Config says how to reach one service.
type Config struct {
	Service string        // name in errors, such as "cert-service"
	URL     string        // base: absolute http or https; a trailing slash does not matter
	Timeout time.Duration // of one call
	HTTP    *http.Client  // from [NewHTTPClient]
	Gate    *Gate         // shared by all clients of the service; nil = every call is let through
}

// Client calls one service.
type Client struct {
	service string
	base    string
	timeout time.Duration
	http    *http.Client
	gate    *Gate
}

// NewClient checks the configuration; its errors name the service and are meant
// for the operator at start.
func NewClient(c Config) (*Client, error) {
	base, err := ParseURL(c.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("URL of %s: %w", c.Service, err)
	case c.Timeout <= 0:
		return nil, fmt.Errorf("timeout of %s: %v is not a positive duration", c.Service, c.Timeout)
	case c.HTTP == nil:
		return nil, fmt.Errorf("%s: no HTTP client given", c.Service)
	}
	httpClient := *c.HTTP
	httpClient.CheckRedirect = stay
	return &Client{service: c.Service, base: base, timeout: c.Timeout, http: &httpClient, gate: c.Gate}, nil
}

// ParseURL checks a base URL, which must be absolute, http or https, without
// query and fragment, and returns it without trailing slashes. Its errors do
// not repeat the value: it may hold a password.
func ParseURL(text string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	var parse *url.Error
	switch {
	case errors.As(err, &parse):
		return "", fmt.Errorf("not a URL: %w", parse.Err)
	case err != nil:
		return "", err
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Opaque != "":
		return "", errors.New("not an absolute http or https URL")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("has a query or fragment, which a base URL cannot have")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// Call is one request to a service.
type Call struct {
	Method string
	Path   string // after the base URL, escaped, with its query
	Body   []byte // JSON; nil = none
	// Repeatable says that a second copy of the request does no harm, so that
	// one which met a connection just being closed is sent again at once.
	Repeatable bool
	// Sent tells the values of persons and ids in the request, which are struck
	// out of what the service says. It is asked only when something is to be
	// kept of that: finding a name in a certificate costs as much as sending it.
	Sent func() []string
	// Suspect names what besides the service may keep a reply from coming, such
	// as the template of a certificate. No reply is then transient, until calls
	// with another suspect got none either since the service last answered.
	Suspect string
}

// Do makes a call under the client's timeout and returns the answer, whatever
// its status. It uses the place at the gate that ctx carries, or waits for one.
// The error is an [*issue.Failure] when no answer came or the service is away,
// an [*issue.NoPlaceError] when it was not called, or wraps the error of ctx
// when that has ended.
func (c *Client) Do(ctx context.Context, call Call) (Answer, error) {
	place, err := c.gate.placeFor(ctx)
	if err != nil {
		return Answer{}, fmt.Errorf("call %s: %w", c.service, err)
	}
	answer, err := c.do(ctx, call)
	return answer, place.settle(call, answer, err)
}

func (c *Client) do(ctx context.Context, call Call) (Answer, error) {
	timedOut := &timeoutError{service: c.service, after: c.timeout}
	callCtx, cancel := context.WithTimeoutCause(ctx, c.timeout, timedOut)
	defer cancel()

	var connected atomic.Bool // by the transport's goroutines
	request, err := c.request(httptrace.WithClientTrace(callCtx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}), call)
	if err != nil {
		return Answer{}, &issue.Failure{
			Verdict: issue.Permanent, Reason: issue.ReasonBadRequest, Message: "the request cannot be written", Err: err,
		}
	}
	response, err := c.http.Do(request)
	if err != nil {
		return Answer{}, c.noAnswer(ctx, callCtx, connected.Load(), call, err)
	}
	defer response.Body.Close()
	answer := Answer{Status: response.StatusCode, Header: response.Header, service: c.service, sent: call.Sent}
	if err := answer.read(response.Body); err != nil {
		if callCtx.Err() != nil {
			return Answer{}, c.noAnswer(ctx, callCtx, true, call, err)
		}
		answer.broken = err
	}
	return answer, nil
}

func (c *Client) request(ctx context.Context, call Call) (*http.Request, error) {
	var body io.Reader
	if call.Body != nil {
		body = bytes.NewReader(call.Body)
	}
	request, err := http.NewRequestWithContext(ctx, call.Method, c.base+call.Path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if call.Body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if call.Repeatable {
		// Tells the transport, and is not sent (net/http, Transport).
		request.Header["Idempotency-Key"] = []string{}
	}
	TraceFrom(ctx).set(request.Header)
	return request, nil
}

// noAnswer classifies a call without an answer. The caller's context comes
// first: its end says nothing about the service.
func (c *Client) noAnswer(ctx, callCtx context.Context, connected bool, call Call, err error) error {
	if ended := ctx.Err(); ended != nil {
		if cause := context.Cause(ctx); !errors.Is(cause, ended) {
			return fmt.Errorf("call %s: %w: %w", c.service, ended, cause)
		}
		return fmt.Errorf("call %s: %w", c.service, ended)
	}
	failure := &issue.Failure{Verdict: issue.Outage, Reason: issue.ReasonUnavailable, Err: withoutURL(err), Unsent: !connected}
	var network net.Error
	switch {
	case callCtx.Err() != nil:
		failure.Reason, failure.Err = issue.ReasonTimeout, context.Cause(callCtx)
	case errors.As(err, &network) && network.Timeout():
		failure.Reason = issue.ReasonTimeout
	}
	failure.Message = Scrub(failure.Err.Error(), values(call.Sent)...)
	if connected {
		failure.Err = fmt.Errorf("%w: %w", ErrNoReply, failure.Err)
	}
	return failure
}

// withoutURL takes off the wrapping of net/http, which repeats the whole URL.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// timeoutError is the cause of a call that took longer than its timeout.
type timeoutError struct {
	service string
	after   time.Duration
}

func (e *timeoutError) Error() string {
	return fmt.Sprintf("%s did not answer within %v", e.service, e.after)
}

// Timeout marks the error as a timeout, as net.Error has it.
func (e *timeoutError) Timeout() bool { return true }

// Is makes the cause a deadline for those who ask.
func (e *timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }
