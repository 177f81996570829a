package events

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/segmentio/kafka-go"

	"github.com/ecreds/issuer/internal/issue"
)

// deadLetterPrefix begins the name of every header that a dead letter adds.
const deadLetterPrefix = "dlq."

// maxMessage bounds dlq.message, in bytes.
const maxMessage = 2 << 10

// DeadLetter makes the record of a dead letter: key, value and headers of the
// original byte for byte, and the reason as further headers. Headers of an
// earlier dead letter are replaced.
func DeadLetter(original kafka.Message, letter issue.DeadLetter) kafka.Message {
	headers := make([]kafka.Header, 0, len(original.Headers)+16)
	for _, h := range original.Headers {
		if !strings.HasPrefix(h.Key, deadLetterPrefix) {
			headers = append(headers, h)
		}
	}
	add := func(name, value string) {
		if value != "" {
			headers = append(headers, kafka.Header{Key: deadLetterPrefix + name, Value: []byte(value)})
		}
	}
	add("id", letter.ID)
	add("reason", string(letter.Reason))
	add("class", string(letter.Class))
	add("step", string(letter.Step))
	if letter.HTTPStatus != 0 {
		add("http-status", strconv.Itoa(letter.HTTPStatus))
	}
	add("attempts", strconv.Itoa(letter.Attempts))
	add("message", shorten(letter.Message, maxMessage))
	add("original-topic", original.Topic)
	add("original-partition", strconv.Itoa(original.Partition))
	add("original-offset", strconv.FormatInt(original.Offset, 10))
	add("original-timestamp", epochMillis(original.Time))
	add("first-failure", epochMillis(letter.FirstFailure))
	add("last-failure", epochMillis(letter.LastFailure))
	add("replays", strconv.Itoa(letter.Replays))
	add("job-id", string(letter.Job))
	return kafka.Message{Key: original.Key, Value: original.Value, Headers: headers}
}

// epochMillis writes a time; the zero time is absent.
func epochMillis(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

// shorten cuts a text to so many bytes without breaking a character.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	s = s[:limit]
	for !utf8.ValidString(s) && len(s) > limit-utf8.UTFMax {
		s = s[:len(s)-1]
	}
	return s
}
