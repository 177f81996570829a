//go:build realparts

package e2e

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/simulator"
)

// crashBatch is a batch of a round, with learners that no other batch has.
type crashBatch struct {
	id        string
	learners  []string
	phones    map[string]bool // who of them has one
	jobs      []string        // asked for, the first of them first
	taken     bool            // its toll was
	revisions int             // certificates that each learner is to have in the end
}

// newBatch loads a batch into the platform. Every second learner has a phone.
func (h *crashHouse) newBatch(learners int) *crashBatch {
	h.tb.Helper()
	b := &crashBatch{id: fmt.Sprintf("0132%015d", len(h.batches)), phones: map[string]bool{}, revisions: 1}
	data := simulator.Dataset{Batches: []simulator.Batch{{ID: b.id, CourseID: benchCourse, Name: b.id, Status: 2}}}
	for i := range learners {
		user := simulator.User{
			ID:        fmt.Sprintf("%08x-%04d-4000-8000-%012x", i*2654435761%(1<<32), len(h.batches), i),
			FirstName: "Asha", LastName: "Rao", RootOrgID: simulator.DemoOrg, Email: "asha@example.org",
		}
		if i%2 == 0 {
			user.Phone, b.phones[user.ID] = "9812345678", true
		}
		b.learners = append(b.learners, user.ID)
		data.Users = append(data.Users, user)
		data.Enrolments = append(data.Enrolments, simulator.Enrolment{
			BatchID: b.id, UserID: user.ID, CourseID: benchCourse, Active: true, Status: 2, CompletedOn: "1566372109689",
		})
	}
	require.NoError(h.tb, h.platform.Load(data))
	h.batches = append(h.batches, b)
	return b
}

// issueNew loads and issues a batch.
func (h *crashHouse) issueNew(learners int) *crashBatch {
	h.tb.Helper()
	b := h.newBatch(learners)
	h.issueBatch(b)
	return b
}

// issueBatch asks for it, as often as it takes.
func (h *crashHouse) issueBatch(b *crashBatch) {
	h.tb.Helper()
	b.jobs = append(b.jobs, h.issue(handbookBody(b.id, benchCourse), "", ""))
}

// reIssue asks for another certificate for everybody, once the first job has
// written down whom it wants. However often the question is asked, its key
// makes it one.
func (h *crashHouse) reIssue(b *crashBatch) {
	h.tb.Helper()
	h.until(func() bool { j, ok := h.jobOf(b.jobs[0]); return ok && j.Resolved }, look, 2*patience, "the job was not resolved")
	b.revisions++
	key := fmt.Sprintf("%s again %d", b.id, b.revisions)
	b.jobs = append(b.jobs, h.issue(handbookBody(b.id, benchCourse), "?reIssue=true", key))
}

// done says that nothing of the batch moves any more.
func (h *crashHouse) done(b *crashBatch) bool {
	for _, id := range b.jobs {
		if j, ok := h.jobOf(id); !ok || !j.Done {
			return false
		}
	}
	return true
}

// registered counts the batch's certificates.
func (h *crashHouse) registered() int {
	return int(h.platform.CallCounts()[simulator.CallKey{Operation: "certs_add", Status: 200}])
}
