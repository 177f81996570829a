package sunbird

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// JSON encodes a request body with its text as it is: names with <, > and & are
// not escaped for HTML, which encoding/json does unless told otherwise.
func JSON(value any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode decodes one JSON object and nothing after it.
func Decode(body []byte, into any) error {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return io.ErrUnexpectedEOF
	}
	if body[0] != '{' {
		return errors.New("not a JSON object")
	}
	return json.Unmarshal(body, into)
}

// Text is a member that should be text. Numbers and booleans count as the text
// they are written with, null and anything else as empty.
type Text string

// UnmarshalJSON takes any value.
func (t *Text) UnmarshalJSON(raw []byte) error {
	*t = ""
	switch raw[0] {
	case '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		*t = Text(s)
	case 'n', '{', '[':
	default:
		*t = Text(raw)
	}
	return nil
}
