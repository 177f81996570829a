package issue

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Event asks for one issuance to be worked. It carries ids and a date, never a
// name, an address or a token.
type Event struct {
	MID         string // message id, "LP.<epoch ms>.<uuid>"
	Issuance    IssuanceID
	Learner     LearnerID
	Batch       BatchID
	Course      CourseID
	Certificate string
	Job         JobID // empty on events made elsewhere
	ReIssue     bool
	CompletedOn time.Time // zero when the event does not say
	Number      int64     // of the dispatch; 0 = not dispatched by us
	Revision    int
	TraceParent string
}

// NewMID makes the message id of an event as the platform writes them.
func NewMID(at time.Time) string { return fmt.Sprintf("LP.%d.%s", at.UnixMilli(), uuid.NewString()) }

// Place is where a record stands in Kafka.
type Place struct {
	Partition int
	Offset    int64
}
