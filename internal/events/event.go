package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/ecreds/issuer/internal/issue"
)

const (
	eidJobRequest  = "BE_JOB_REQUEST"
	actionGenerate = "generate-course-certificate"
	objectType     = "CourseCertificate"
)

// The headers of a dispatched event.
const (
	HeaderDispatch    = "ecreds-dispatch" // number of the dispatch, decimal
	HeaderRevision    = "ecreds-revision" // revision of the issuance, decimal
	HeaderTraceParent = "traceparent"     // W3C trace context
)

// wire is the event as JSON, member for member as the platform has it.
type wire struct {
	EID     string      `json:"eid"`
	ETS     int64       `json:"ets"` // epoch milliseconds
	MID     string      `json:"mid"`
	Actor   wireActor   `json:"actor"`
	Context wireContext `json:"context"`
	Object  wireObject  `json:"object"`
	EData   wireEData   `json:"edata"`
}

type wireActor struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

type wireContext struct {
	PData struct {
		ID  string `json:"id"`
		Ver string `json:"ver"`
	} `json:"pdata"`
}

type wireObject struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

type wireEData struct {
	UserID      string `json:"userId"`
	BatchID     string `json:"batchId"`
	CourseID    string `json:"courseId"`
	Certificate string `json:"certificate"`
	Action      string `json:"action"`
	Iteration   int    `json:"iteration"`
	ReIssue     bool   `json:"reIssue,omitempty"`
	JobID       string `json:"jobId,omitempty"`
	CompletedOn int64  `json:"completedOn,omitempty"` // epoch milliseconds
}

// Encode makes the record of an event, keyed by the learner.
func Encode(event issue.Event, at time.Time) kafka.Message {
	w := wire{
		EID: eidJobRequest, ETS: at.UnixMilli(), MID: event.MID,
		Actor:  wireActor{ID: "Course Certificate Generator", Type: "System"},
		Object: wireObject{ID: string(event.Issuance), Type: objectType},
		EData: wireEData{
			UserID: string(event.Learner), BatchID: string(event.Batch), CourseID: string(event.Course),
			Certificate: event.Certificate, Action: actionGenerate, Iteration: 1, ReIssue: event.ReIssue,
			JobID: string(event.Job),
		},
	}
	w.Context.PData.ID, w.Context.PData.Ver = "org.sunbird.platform", "1.0"
	if !event.CompletedOn.IsZero() {
		w.EData.CompletedOn = event.CompletedOn.UnixMilli()
	}
	return kafka.Message{
		Key: []byte(event.Learner), Value: marshal(w), Time: at,
		Headers: []kafka.Header{
			{Key: HeaderDispatch, Value: strconv.AppendInt(nil, event.Number, 10)},
			{Key: HeaderRevision, Value: strconv.AppendInt(nil, int64(event.Revision), 10)},
			{Key: HeaderTraceParent, Value: []byte(childOf(event.TraceParent))},
		},
	}
}

// marshal leaves <, > and & as they are: certificate names may hold them, and
// other readers of the topic expect plain text.
func marshal(w wire) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(w) // texts, numbers and flags always encode
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
}

// ErrPoison is wrapped by the error of a record that is no event and never
// will be one.
var ErrPoison = errors.New("not a certificate request")

func poison(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrPoison, fmt.Sprintf(format, args...))
}

// received is what is read of an event. It is more lenient than what we write:
// ids of the right type are all that matters, and dates come in several forms.
type received struct {
	EID   string `json:"eid"`
	MID   string `json:"mid"`
	EData struct {
		UserID      string          `json:"userId"`
		BatchID     string          `json:"batchId"`
		CourseID    string          `json:"courseId"`
		Certificate string          `json:"certificate"`
		Action      string          `json:"action"`
		ReIssue     bool            `json:"reIssue"`
		JobID       string          `json:"jobId"`
		CompletedOn json.RawMessage `json:"completedOn"`
	} `json:"edata"`
}

// Decode reads a record. Its error wraps [ErrPoison]: the record is not JSON,
// not a request of this kind, or lacks an id; a record without value too. The
// error never quotes the record.
func Decode(message kafka.Message) (issue.Event, error) {
	if len(message.Value) == 0 {
		return issue.Event{}, poison("the record has no value")
	}
	var r received
	if err := json.Unmarshal(message.Value, &r); err != nil {
		return issue.Event{}, poison("%s", describe(err))
	}
	if r.EID != eidJobRequest || r.EData.Action != actionGenerate {
		return issue.Event{}, poison("eid and edata.action must be %s and %s", eidJobRequest, actionGenerate)
	}
	for _, id := range []struct{ name, value string }{
		{"userId", r.EData.UserID},
		{"batchId", r.EData.BatchID},
		{"courseId", r.EData.CourseID},
		{"certificate", r.EData.Certificate},
	} {
		if strings.TrimSpace(id.value) == "" {
			return issue.Event{}, poison("edata.%s is missing or blank", id.name)
		}
	}
	event := issue.Event{
		MID: r.MID, Learner: issue.LearnerID(r.EData.UserID), Batch: issue.BatchID(r.EData.BatchID),
		Course: issue.CourseID(r.EData.CourseID), Certificate: r.EData.Certificate, Job: issue.JobID(r.EData.JobID),
		ReIssue: r.EData.ReIssue,
	}
	// The issuance is derived, not believed: other makers of events hash other
	// things into object.id.
	event.Issuance = issue.NewIssuanceID(event.Batch, event.Learner, event.Certificate)
	if event.MID == "" { // a re-issue needs a cause that is the same when the record comes again
		event.MID = fmt.Sprintf("%s-%d-%d", message.Topic, message.Partition, message.Offset)
	}
	event.CompletedOn, _ = issue.ParseCompletedOn(plain(r.EData.CompletedOn))
	event.Number = number(message, HeaderDispatch)
	event.Revision = int(number(message, HeaderRevision))
	event.TraceParent = header(message, HeaderTraceParent)
	return event, nil
}

// plain is the text of a JSON text, or a JSON number as it stands.
func plain(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] != '"' {
		return string(raw)
	}
	var text string
	_ = json.Unmarshal(raw, &text) // it was read as JSON before
	return text
}

// describe says what is wrong with JSON without repeating any of it.
func describe(err error) string {
	var (
		syntax *json.SyntaxError
		kind   *json.UnmarshalTypeError
	)
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("the value is not JSON (at byte %d)", syntax.Offset)
	case errors.As(err, &kind) && kind.Field == "":
		return "the value is JSON but no object"
	case errors.As(err, &kind):
		return fmt.Sprintf("%s has the wrong type", kind.Field)
	default:
		return "the value is not JSON"
	}
}

// header returns a header's text; "" = absent.
func header(message kafka.Message, key string) string {
	for _, h := range message.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// number reads a decimal header; 0 = absent or senseless, and then the event
// counts as made elsewhere.
func number(message kafka.Message, key string) int64 {
	n, err := strconv.ParseInt(header(message, key), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
