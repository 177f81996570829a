package ledger

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"

	"github.com/ecreds/issuer/internal/issue"
)

// cursor names the last row of a page of learners: the learner, and which of
// their rows. It holds nothing that outlives the rows' order, so it stays valid
// over restarts and changes.
type cursor struct {
	learner  string
	issuance int64  // the issuance's seq, or behindIssuances
	skipped  string // the certificate of a row that was skipped; "" = an issuance
}

// behindIssuances stands in place of a seq where a learner's skipped rows
// follow the issuances.
const behindIssuances = math.MaxInt64

func (c cursor) encode() string {
	text := strings.Join([]string{c.learner, strconv.FormatInt(c.issuance, 10), c.skipped}, "\x00")
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// decodeCursor reads a cursor; "" = from the start.
func decodeCursor(text string) (cursor, error) {
	if text == "" {
		return cursor{}, nil
	}
	plain, err := base64.RawURLEncoding.DecodeString(text)
	parts := strings.Split(string(plain), "\x00")
	if err != nil || len(parts) != 3 {
		return cursor{}, issue.InvalidValueError{Parameter: "cursor", Value: text}
	}
	issuance, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return cursor{}, issue.InvalidValueError{Parameter: "cursor", Value: text}
	}
	return cursor{learner: parts[0], issuance: issuance, skipped: parts[2]}, nil
}
