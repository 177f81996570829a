package httpapi

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// maxDepth is far above the five levels of a request, and far below what costs
// stack.
const maxDepth = 32

// members is a JSON object whose names are told apart by case. Decoding into a
// struct would take "batchid" for "batchId".
type members map[string]any

// parseStrict reads exactly one JSON value in UTF-8. What parsers disagree
// about (a member given twice, data behind the end) is refused: the gateway
// and we could otherwise understand two different requests.
func parseStrict(body []byte) (any, bool) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber() // batch ids and dates exceed what a float can hold
	return parseValue(decoder, maxDepth)
}

func parseValue(d *json.Decoder, depth int) (any, bool) {
	token, err := d.Token()
	if err != nil || depth == 0 {
		return nil, false
	}
	switch token {
	case json.Delim('{'):
		return parseObject(d, depth)
	case json.Delim('['):
		return parseList(d, depth)
	}
	return token, true
}

func parseObject(d *json.Decoder, depth int) (any, bool) {
	object := members{}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if _, twice := object[name]; err != nil || !ok || twice {
			return nil, false
		}
		if object[name], ok = parseValue(d, depth-1); !ok {
			return nil, false
		}
	}
	_, err := d.Token() // the closing brace
	return object, err == nil
}

func parseList(d *json.Decoder, depth int) (any, bool) {
	list := []any{}
	for d.More() {
		value, ok := parseValue(d, depth-1)
		if !ok {
			return nil, false
		}
		list = append(list, value)
	}
	_, err := d.Token() // the closing bracket
	return list, err == nil
}
