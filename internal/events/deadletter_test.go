package events

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func aLetter() issue.DeadLetter {
	return issue.DeadLetter{
		ID: "c4e6a3a9-1-0", Class: issue.ClassExhausted, Step: issue.StepGenerate, Reason: issue.ReasonTimeout,
		HTTPStatus: 500, Message: "the template <b> & its fonts", Attempts: 12, Replays: 2, Job: "job-1",
		FirstFailure: time.UnixMilli(1566372100000), LastFailure: time.UnixMilli(1566375700000),
		Place: issue.Place{Partition: 9, Offset: 9}, // of the letter itself: not told in its own record
	}
}

func original() kafka.Message {
	return kafka.Message{
		Topic: "local.coursebatch.certificate.request", Partition: 3, Offset: 1_000_000_007, HighWaterMark: 5,
		Key: []byte("u1"), Value: []byte("{\"b\xffy\x00te\" : \"for byte\"}"), Time: time.UnixMilli(1566372109689),
		Headers: []kafka.Header{
			{Key: "ecreds-dispatch", Value: []byte("7")},
			{Key: "twice", Value: []byte("a")},
			{Key: "twice", Value: []byte("b")},
			{Key: "dlq.reason", Value: []byte("of an earlier dead letter")},
			{Key: "dlq.replays", Value: []byte("1")},
			{Key: "dlq.unheard-of", Value: []byte("1")},
			{Key: "traceparent", Value: []byte(traceOfRequest)},
			{Key: "no value"},
		},
	}
}

// headersOf writes headers as people can compare them: in their order, one a
// line.
func headersOf(t *testing.T, message kafka.Message) []byte {
	t.Helper()
	type header struct{ Key, Value string }
	lines := make([]string, 0, len(message.Headers))
	for _, h := range message.Headers {
		line, err := json.Marshal(header{h.Key, string(h.Value)})
		require.NoError(t, err)
		lines = append(lines, string(line))
	}
	return []byte("[\n" + strings.Join(lines, ",\n") + "\n]\n")
}

func TestDeadLetterHeaders(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		original kafka.Message
		letter   issue.DeadLetter
	}{
		"deadletter-exhausted.json": {original(), aLetter()},
		"deadletter-poison.json": {
			kafka.Message{Topic: "t", Offset: 4, Time: time.UnixMilli(1566372109689)},
			issue.DeadLetter{
				ID: "t-0-4", Class: issue.ClassPoison, Step: issue.StepDecode, Reason: issue.ReasonDecode,
				Message:      "not a certificate request: the record has no value",
				FirstFailure: time.UnixMilli(1566372110000), LastFailure: time.UnixMilli(1566372110000),
			},
		},
	}
	for file, test := range tests {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			golden(t, file, headersOf(t, DeadLetter(test.original, test.letter)))
		})
	}
}

func TestDeadLetterKeepsItsOriginal(t *testing.T) {
	t.Parallel()
	before := original()
	record := DeadLetter(before, aLetter())
	require.Equal(t, original().Key, record.Key)
	require.Equal(t, original().Value, record.Value)
	require.Empty(t, record.Topic, "the publisher knows the topic")
	require.Equal(t, original(), before, "the original can be buried again")

	tombstone := DeadLetter(kafka.Message{}, aLetter())
	require.Nil(t, tombstone.Key, "no key is not an empty key")
	require.Nil(t, tombstone.Value, "no value is not an empty value")
	empty := DeadLetter(kafka.Message{Key: []byte{}, Value: []byte{}}, aLetter())
	require.NotNil(t, empty.Key)
	require.NotNil(t, empty.Value)
}

// A dead letter that is buried once more says the same of itself, whatever it
// said before.
func TestDeadLetterOfADeadLetter(t *testing.T) {
	t.Parallel()
	once := DeadLetter(original(), aLetter())
	twice := original()
	twice.Headers = once.Headers
	require.Equal(t, once.Headers, DeadLetter(twice, aLetter()).Headers)
}

func TestDeadLetterMessageIsBounded(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		message string
		length  int
	}{
		"short":                             {"too bad", 7},
		"exactly":                           {strings.Repeat("x", 2048), 2048},
		"one too many":                      {strings.Repeat("x", 2049), 2048},
		"characters of two bytes":           {"x" + strings.Repeat("é", 2000), 2047},
		"characters of three bytes":         {strings.Repeat("क", 2000), 2046},
		"characters of four bytes, cut":     {"xxx" + strings.Repeat("😀", 2000), 2047},
		"characters of four bytes, not cut": {strings.Repeat("😀", 2000), 2048},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			letter := aLetter()
			letter.Message = test.message
			got := header(DeadLetter(original(), letter), "dlq.message")
			require.Len(t, got, test.length)
			require.True(t, utf8.ValidString(got))
			require.True(t, strings.HasPrefix(test.message, got))
		})
	}
}

func TestDeadLetterOfUnknownTimes(t *testing.T) {
	t.Parallel()
	message := original()
	message.Time = time.Time{}
	for _, h := range DeadLetter(message, issue.DeadLetter{ID: "x"}).Headers {
		require.NotContains(t, []string{
			"dlq.original-timestamp", "dlq.first-failure", "dlq.last-failure", "dlq.http-status", "dlq.job-id",
		}, h.Key, "what is not known is not told")
	}
}
