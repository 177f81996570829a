package events

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

// recorded is the platform's own example of an event (platform release 2.3.5).
const recorded = `{"eid":"BE_JOB_REQUEST","ets":1566372109689,"mid":"LP.1566372109689.7fbfa7a4-7b4f-4d6b-9c3b-0f1c8f0c6c11",
 "actor":{"id":"Course Certificate Generator","type":"System"},
 "context":{"pdata":{"id":"org.sunbird.platform","ver":"1.0"}},
 "object":{"id":"c4e6a3a954380f43cb1dec0d5f4cd4158d2376fecd592ea4c0fe3f658a686a67","type":"CourseCertificate"},
 "edata":{"userId":"95e4942d-cbe8-477d-aebd-ad8e6de4bfc8","batchId":"0128821148183429120","courseId":"do_2128410273679114241112",
  "certificate":"100PercentCompletionCertificate","action":"generate-course-certificate","iteration":1,"reIssue":true}}`

const today = `{"eid":"BE_JOB_REQUEST","ets":1694167545247,"mid":"LP.1694167545247.0c7b1a52-2c0f-4c67-9a51-3b0d9f7b7f10",
 "actor":{"id":"Course Certificate Generator","type":"System"},
 "context":{"pdata":{"id":"org.sunbird.platform","ver":"1.0"}},
 "object":{"id":"77498dd4f718eccada0e77cf12aed0ae7b31652d3a8a0063c4450bc0562ad063","type":"CourseCertificateGeneration"},
 "edata":{"userIds":["95e4942d-cbe8-477d-aebd-ad8e6de4bfc8"],"batchId":"0128821148183429120","courseId":"do_2128410273679114241112",
  "action":"issue-certificate","iteration":1,"reIssue":true}}`

const traceOfRequest = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// platformEvent is recorded as the core sees it.
func platformEvent() issue.Event {
	return issue.Event{
		MID:      "LP.1566372109689.7fbfa7a4-7b4f-4d6b-9c3b-0f1c8f0c6c11",
		Issuance: "c4e6a3a954380f43cb1dec0d5f4cd4158d2376fecd592ea4c0fe3f658a686a67",
		Learner:  "95e4942d-cbe8-477d-aebd-ad8e6de4bfc8", Batch: "0128821148183429120",
		Course: "do_2128410273679114241112", Certificate: "100PercentCompletionCertificate", ReIssue: true,
	}
}

// ourEvent is one that the dispatcher would publish.
func ourEvent() issue.Event {
	event := platformEvent()
	event.Job, event.ReIssue = "0b7d3c1e-6d0a-4f6e-9d53-7c1f1f4f9a01", false
	event.Certificate = `Merit & <"distinction">`
	event.Issuance = issue.NewIssuanceID(event.Batch, event.Learner, event.Certificate)
	event.CompletedOn = time.Date(2019, 8, 20, 18, 30, 0, 689e6, time.UTC)
	event.Number, event.Revision, event.TraceParent = 7, 2, traceOfRequest
	return event
}

func at() time.Time { return time.UnixMilli(1566372109689).UTC() }

func TestEncodedEvents(t *testing.T) {
	t.Parallel()
	tests := map[string]issue.Event{
		"event-platform.json": platformEvent(), // nothing of ours in it
		"event-ours.json":     ourEvent(),
	}
	for file, event := range tests {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			record := Encode(event, at())
			golden(t, file, record.Value)
			require.Equal(t, string(event.Learner), string(record.Key), "one learner's events stay in one partition")
			require.Equal(t, at(), record.Time)
			require.Empty(t, record.Topic, "the publisher knows the topic")
		})
	}
}

// The platform's example and what we write for the same facts are the same
// JSON, member for member.
func TestEncodesWhatThePlatformWrote(t *testing.T) {
	t.Parallel()
	require.JSONEq(t, recorded, string(Encode(platformEvent(), at()).Value))
}

func TestHeadersOfADispatchedEvent(t *testing.T) {
	t.Parallel()
	record := Encode(ourEvent(), at())
	headers := map[string]string{}
	for _, h := range record.Headers {
		headers[h.Key] = string(h.Value)
	}
	require.Len(t, record.Headers, 3)
	require.Equal(t, "7", headers["ecreds-dispatch"])
	require.Equal(t, "2", headers["ecreds-revision"])
	require.Regexp(t, `^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01$`, headers["traceparent"])
}

func TestDecode(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		value   string
		headers []kafka.Header
		change  func(*issue.Event) // of platformEvent
	}{
		"the platform's example": {value: recorded, change: func(*issue.Event) {}},
		"what we dispatched": {
			value: string(Encode(ourEvent(), at()).Value),
			headers: []kafka.Header{
				{Key: "ecreds-dispatch", Value: []byte("7")},
				{Key: "ecreds-revision", Value: []byte("2")},
				{Key: "traceparent", Value: []byte(traceOfRequest)},
			},
			change: func(e *issue.Event) { *e = ourEvent() },
		},
		"object.id is not believed": {
			value:  with(`"id":"c4e6a3a954380f43cb1dec0d5f4cd4158d2376fecd592ea4c0fe3f658a686a67"`, `"id":"somebody-else"`),
			change: func(*issue.Event) {},
		},
		"members in another order, and unknown ones": {
			value: `{"x":[{}],"edata":{"trigger":"auto-issue","iteration":9,"action":"generate-course-certificate",
				"certificate":"100PercentCompletionCertificate","courseId":"do_2128410273679114241112","reIssue":true,
				"batchId":"0128821148183429120","userId":"95e4942d-cbe8-477d-aebd-ad8e6de4bfc8"},"eid":"BE_JOB_REQUEST"}`,
			change: func(e *issue.Event) { e.MID = "requests-3-41" }, // without a mid, its place
		},
		"reIssue false": {value: with(`"reIssue":true`, `"reIssue":false`), change: func(e *issue.Event) { e.ReIssue = false }},
		"reIssue null":  {value: with(`"reIssue":true`, `"reIssue":null`), change: func(e *issue.Event) { e.ReIssue = false }},
		"jobId null":    {value: with(`"reIssue":true`, `"reIssue":true,"jobId":null`), change: func(*issue.Event) {}},
		"spaces within ids are the learner's own": {
			value: with("95e4942d-cbe8-477d-aebd-ad8e6de4bfc8", " a b "),
			change: func(e *issue.Event) {
				e.Learner = " a b "
				e.Issuance = issue.NewIssuanceID(e.Batch, e.Learner, e.Certificate)
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := platformEvent()
			test.change(&want)
			got, err := Decode(kafka.Message{
				Topic: "requests", Partition: 3, Offset: 41, Value: []byte(test.value), Headers: test.headers,
			})
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(want, got))
		})
	}
}

// with is recorded with one text replaced.
func with(old, replacement string) string {
	if !strings.Contains(recorded, old) {
		panic("the example has no " + old)
	}
	return strings.ReplaceAll(recorded, old, replacement)
}

func TestCompletedOn(t *testing.T) {
	t.Parallel()
	completed := time.UnixMilli(1566372109689).UTC()
	tests := map[string]struct {
		member string
		want   time.Time
	}{
		"number":                {`1566372109689`, completed},
		"number as text":        {`"1566372109689"`, completed},
		"the platform's text":   {`"2019-08-21 07:21:49:689+0000"`, completed},
		"text with an escape":   {`"2019-08-21 12:51:49:689\u002b0530"`, completed},
		"day":                   {`"2019-08-21"`, time.Date(2019, 8, 21, 0, 0, 0, 0, time.UTC)},
		"below a millisecond":   {`"2019-08-21T07:21:49.689999Z"`, completed},
		"null":                  {`null`, time.Time{}},
		"empty text":            {`""`, time.Time{}},
		"seconds, not millis":   {`1566372109`, time.Time{}},
		"no date":               {`"yesterday"`, time.Time{}},
		"the epoch":             {`"1970-01-01"`, time.Time{}},
		"an object":             {`{"date":1}`, time.Time{}},
		"a list":                {`[1566372109689]`, time.Time{}},
		"a flag":                {`true`, time.Time{}},
		"a number out of range": {`99999999999999999999999`, time.Time{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			value := with(`"reIssue":true`, `"completedOn":`+test.member)
			event, err := Decode(kafka.Message{Value: []byte(value)})
			require.NoError(t, err, "a senseless date is no reason to lose the learner")
			require.Equal(t, test.want, event.CompletedOn)
		})
	}
}

func TestNumberHeaders(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		headers []kafka.Header
		want    int64
	}{
		"absent":         {nil, 0},
		"decimal":        {[]kafka.Header{{Key: "ecreds-dispatch", Value: []byte("12")}}, 12},
		"empty":          {[]kafka.Header{{Key: "ecreds-dispatch"}}, 0},
		"text":           {[]kafka.Header{{Key: "ecreds-dispatch", Value: []byte("first")}}, 0},
		"negative":       {[]kafka.Header{{Key: "ecreds-dispatch", Value: []byte("-3")}}, 0},
		"too large":      {[]kafka.Header{{Key: "ecreds-dispatch", Value: []byte("9223372036854775808")}}, 0},
		"binary":         {[]kafka.Header{{Key: "ecreds-dispatch", Value: []byte{0, 0, 0, 7}}}, 0},
		"other spelling": {[]kafka.Header{{Key: "Ecreds-Dispatch", Value: []byte("12")}}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			event, err := Decode(kafka.Message{Value: []byte(recorded), Headers: test.headers})
			require.NoError(t, err)
			require.Equal(t, test.want, event.Number)
		})
	}
}

func TestPoison(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		value string
		want  string // of the error, behind "not a certificate request: "
	}{
		"tombstone":              {"", "the record has no value"},
		"null":                   {"null", "eid and edata.action must be BE_JOB_REQUEST and generate-course-certificate"},
		"blank":                  {"  ", "the value is not JSON (at byte 2)"},
		"text":                   {"hello", "the value is not JSON (at byte 1)"},
		"cut off":                {recorded[:100], "the value is not JSON (at byte 100)"},
		"something behind it":    {recorded + "x", fmt.Sprintf("the value is not JSON (at byte %d)", len(recorded)+1)},
		"a list":                 {"[]", "the value is JSON but no object"},
		"a list of events":       {"[" + recorded + "]", "the value is JSON but no object"},
		"a number":               {"7", "the value is JSON but no object"},
		"nested without end":     {strings.Repeat("[", 100_000), "the value is not JSON (at byte 10001)"},
		"nested within":          {with(`true}`, strings.Repeat("[", 20_000)), "the value is not JSON (at byte 10589)"},
		"today's event":          {today, "eid and edata.action must be BE_JOB_REQUEST and generate-course-certificate"},
		"other eid":              {with("BE_JOB_REQUEST", "AUDIT"), "eid and edata.action must be BE_JOB_REQUEST and generate-course-certificate"},
		"no edata":               {`{"eid":"BE_JOB_REQUEST"}`, "eid and edata.action must be BE_JOB_REQUEST and generate-course-certificate"},
		"edata null":             {`{"eid":"BE_JOB_REQUEST","edata":null}`, "eid and edata.action must be BE_JOB_REQUEST and generate-course-certificate"},
		"edata a list":           {`{"eid":"BE_JOB_REQUEST","edata":[]}`, "edata has the wrong type"},
		"userId missing":         {with(`"userId":"95e4942d-cbe8-477d-aebd-ad8e6de4bfc8",`, ""), "edata.userId is missing or blank"},
		"userId null":            {with(`"95e4942d-cbe8-477d-aebd-ad8e6de4bfc8"`, "null"), "edata.userId is missing or blank"},
		"userId empty":           {with("95e4942d-cbe8-477d-aebd-ad8e6de4bfc8", ""), "edata.userId is missing or blank"},
		"userId blank":           {with("95e4942d-cbe8-477d-aebd-ad8e6de4bfc8", ` \t `), "edata.userId is missing or blank"},
		"userId a number":        {with(`"95e4942d-cbe8-477d-aebd-ad8e6de4bfc8"`, "95"), "edata.userId has the wrong type"},
		"batchId a number":       {with(`"0128821148183429120"`, "128821148183429120"), "edata.batchId has the wrong type"},
		"batchId blank":          {with("0128821148183429120", ""), "edata.batchId is missing or blank"},
		"courseId a list":        {with(`"do_2128410273679114241112"`, `["do_2128410273679114241112"]`), "edata.courseId has the wrong type"},
		"courseId missing":       {with("courseId", "course"), "edata.courseId is missing or blank"},
		"certificate an object":  {with(`"100PercentCompletionCertificate"`, "{}"), "edata.certificate has the wrong type"},
		"certificate missing":    {with(`"certificate":`, `"name":`), "edata.certificate is missing or blank"},
		"reIssue a text":         {with(`"reIssue":true`, `"reIssue":"true"`), "edata.reIssue has the wrong type"},
		"the ids in upper layer": {`{"eid":"BE_JOB_REQUEST","userId":"u","batchId":"b","edata":{"action":"generate-course-certificate"}}`, "edata.userId is missing or blank"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			event, err := Decode(kafka.Message{Value: []byte(test.value)})
			require.ErrorIs(t, err, ErrPoison)
			require.EqualError(t, err, "not a certificate request: "+test.want)
			require.Zero(t, event)
		})
	}
}

// poisonTexts is every text that the error of Decode may have: none of them can
// hold a piece of the record.
var poisonTexts = regexp.MustCompile(`^not a certificate request: (the record has no value|` +
	`the value is not JSON( \(at byte \d+\))?|the value is JSON but no object|` +
	`eid and edata\.action must be BE_JOB_REQUEST and generate-course-certificate|` +
	`(eid|mid|edata(\.(userId|batchId|courseId|certificate|action|reIssue|jobId))?) has the wrong type|` +
	`edata\.(userId|batchId|courseId|certificate) is missing or blank)$`)

func FuzzDecode(f *testing.F) {
	ours := Encode(ourEvent(), at())
	f.Add([]byte(recorded), "", "", "")
	f.Add([]byte(today), "1", "1", traceOfRequest)
	f.Add(ours.Value, "7", "2", traceOfRequest)
	f.Add([]byte(nil), "", "", "")
	f.Add([]byte("null"), "-1", "x", "00-")
	f.Add([]byte(`[{}]`), "", "", "")
	f.Add([]byte(with(`"reIssue":true`, `"completedOn":"2019-08-21T07:21:49.689999Z"`)), "9223372036854775807", "3", "")
	f.Add([]byte(with(`"reIssue":true`, `"completedOn":1e12`)), "", "", "")
	f.Add([]byte(with("100PercentCompletionCertificate", "\xff\\ud800 <&>")), "", "", "")
	f.Fuzz(func(t *testing.T, value []byte, number, revision, trace string) {
		event, err := Decode(kafka.Message{Value: value, Headers: []kafka.Header{
			{Key: HeaderDispatch, Value: []byte(number)},
			{Key: HeaderRevision, Value: []byte(revision)},
			{Key: HeaderTraceParent, Value: []byte(trace)},
		}})
		if err != nil {
			if !errors.Is(err, ErrPoison) || !poisonTexts.MatchString(err.Error()) {
				t.Fatalf("error of Decode: %q", err)
			}
			return
		}
		again, err := Decode(Encode(event, at()))
		if err != nil {
			t.Fatalf("our own record is poison: %v", err)
		}
		event.TraceParent, again.TraceParent = "", "" // a child has a span of its own
		if diff := cmp.Diff(event, again); diff != "" {
			t.Fatalf("encoded and decoded again: %s", diff)
		}
	})
}

func TestChildOf(t *testing.T) {
	t.Parallel()
	const own = `^00-[0-9a-f]{32}-[0-9a-f]{16}-00$`
	tests := map[string]struct{ parent, want string }{
		"sampled":            {traceOfRequest, `^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01$`},
		"not sampled":        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", `^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-00$`},
		"none":               {"", own},
		"senseless":          {"not a trace", own},
		"upper case":         {strings.ToUpper(traceOfRequest), own},
		"version to come":    {"01" + traceOfRequest[2:], own},
		"something behind":   {traceOfRequest + "-x", own},
		"a line break":       {traceOfRequest + "\n", own},
		"the id of no trace": {"00-00000000000000000000000000000000-00f067aa0ba902b7-01", own},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := childOf(test.parent), childOf(test.parent)
			require.Regexp(t, test.want, first)
			require.NotContains(t, first, "00f067aa0ba902b7", "a span of its own")
			require.NotContains(t, first, noTrace)
			require.NotEqual(t, first, second, "each event is a span of its own")
		})
	}
}
