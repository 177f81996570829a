package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/ecreds/issuer/internal/issue"
)

// The codes of refusals, in the platform's words.
const (
	codeMissing     = "MANDATORY_PARAMETER_MISSING"
	codeValue       = "INVALID_PARAMETER_VALUE"
	codeType        = "DATA_TYPE_ERROR"
	codeContentType = "CONTENT_TYPE_ERROR"
	codeBody        = "INVALID_REQUESTED_DATA"
	codeTooLarge    = "REQUEST_TOO_LARGE"
	codeNotFound    = "RESOURCE_NOT_FOUND"
	codeMethod      = "METHOD_NOT_ALLOWED"
	codeConflict    = "CONFLICT"
	codeInternal    = "INTERNAL_ERROR"
	codeUnavailable = "SERVICE_UNAVAILABLE"
	codeServer      = "SERVER_ERROR"
	codeGone        = "CLIENT_CLOSED_REQUEST"
)

// statusGone is nginx's number for a caller who did not wait. It is written to
// nobody; it keeps callers who leave out of the rate of our own errors.
const statusGone = 499

// refusal is an error with the answer it gets.
type refusal struct {
	status   int
	code     string // params.status
	text     string // params.errmsg
	codeless bool   // params.err is null
}

func (e refusal) Error() string { return e.text }

func (e refusal) err() *string {
	if e.codeless {
		return nil
	}
	return &e.code
}

func (e refusal) responseCode() string {
	switch e.status {
	case http.StatusNotFound:
		return codeNotFound
	case http.StatusServiceUnavailable:
		return codeUnavailable
	case http.StatusInternalServerError:
		return codeServer
	default:
		return "CLIENT_ERROR"
	}
}

func clientError(code, text string) refusal {
	return refusal{status: http.StatusBadRequest, code: code, text: text}
}

// businessError is what the platform's three checks of a batch have always
// answered: a client error without a code, whose status blames the server.
func businessError(text string) refusal {
	return refusal{status: http.StatusBadRequest, code: codeServer, text: text, codeless: true}
}

func notFoundError(text string) refusal {
	return refusal{status: http.StatusNotFound, code: codeNotFound, text: text}
}

func missingError(parameter string) refusal {
	return clientError(codeMissing, fmt.Sprintf("Mandatory parameter %s is missing.", parameter))
}

func typeError(parameter, want string) refusal {
	return clientError(codeType, fmt.Sprintf("Data type of %s should be %s.", parameter, want))
}

func invalidValue(parameter, value string) error {
	return issue.InvalidValueError{Parameter: parameter, Value: value}
}

var (
	errBody        = clientError(codeBody, "Requested data for this operation is not valid.")
	errContentType = clientError(codeContentType, "Please add Content-Type header with value application/json")
	errInternal    = refusal{
		status: http.StatusInternalServerError, code: codeInternal, text: "Process failed,please try again later.",
	}
	errGone = refusal{status: statusGone, code: codeGone, text: "The caller did not wait for the answer."}
)

// asRefusal decides how an error is answered. needs says what the operation
// cannot do without, for the case that it is away; nothing else of an error
// that we do not know reaches the caller.
func asRefusal(ctx context.Context, err error, needs string) refusal {
	var (
		known        refusal
		noTemplates  issue.NoTemplatesError
		badTemplates issue.BadTemplatesError
		value        issue.InvalidValueError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &value):
		value.Value = cut(value.Value, 100) // no more than helps to find it
		return clientError(codeValue, value.Error())
	case errors.As(err, &noTemplates):
		return businessError(noTemplates.Error())
	case errors.As(err, &badTemplates):
		return businessError(badTemplates.Error())
	case errors.Is(err, issue.ErrUnknownBatch):
		return businessError(issue.ErrUnknownBatch.Error())
	case errors.Is(err, issue.ErrOtherCourse):
		return businessError(issue.ErrOtherCourse.Error())
	case errors.Is(err, issue.ErrKeyReused):
		return refusal{status: http.StatusConflict, code: codeConflict, text: issue.ErrKeyReused.Error()}
	case errors.Is(ctx.Err(), context.Canceled):
		return errGone
	case errors.Is(err, issue.ErrUnavailable):
		return unavailableError(needs)
	}
	return errInternal
}

// unavailableError has a null err, as the platform's 503 always had, but says
// what is away.
func unavailableError(needs string) refusal {
	return refusal{
		status: http.StatusServiceUnavailable, code: codeUnavailable, codeless: true,
		text: needs + " cannot be reached. Please try again later.",
	}
}

func tooLargeError(limit int64) refusal {
	return refusal{
		status: http.StatusRequestEntityTooLarge, code: codeTooLarge,
		text: fmt.Sprintf("Request body is larger than %d bytes.", limit),
	}
}

// unreadable sorts out why a body could not be read: too large is said so, a
// connection that broke is a body that did not come whole.
func unreadable(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return tooLargeError(tooLarge.Limit)
	}
	return errBody
}
