package ledger

import (
	"encoding/base64"
	"strings"

	"github.com/ecreds/issuer/internal/issue"
)

// A cursor names the last row of a page: its learner, and its place among that
// learner's rows. It holds nothing that outlives the rows' order, so it stays
// valid over restarts and changes.

func encodeCursor(learner, position string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(learner + "\x00" + position))
}

func decodeCursor(cursor string) (learner, position string, err error) {
	if cursor == "" {
		return "", "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	learner, position, ok := strings.Cut(string(text), "\x00")
	if err != nil || !ok {
		return "", "", issue.InvalidValueError{Parameter: "cursor", Value: cursor}
	}
	return learner, position, nil
}
