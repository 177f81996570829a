//go:build realparts

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/simulator"
)

// toll is what deaths have cost.
type toll struct {
	Rounds, Kills, Lost, Doubled int
	Generates                    int // repeated
	InFlight                     int // bound of what may be repeated
	Registers, Notifications     int // repeated
}

func (t toll) plus(o toll) toll {
	return toll{
		t.Rounds + o.Rounds, t.Kills + o.Kills, t.Lost + o.Lost, t.Doubled + o.Doubled,
		t.Generates + o.Generates, t.InFlight + o.InFlight, t.Registers + o.Registers, t.Notifications + o.Notifications,
	}
}

// served is what the platform saw of one learner.
type served struct {
	generated, emails, messages int
	registered                  []string // certificates, in their order
	replaced                    []string // what each of them said it replaces
	registers                   int
}

// settle waits until all is done, but no longer than patience, and takes the
// toll of every batch that is.
func (h *crashHouse) settle(patience time.Duration) (t toll, all bool) {
	h.tb.Helper()
	h.calm()
	var done []*crashBatch
	all = h.wait(func() bool {
		var left bool
		done, left = h.untaken()
		return !left
	}, look, patience)
	seen := h.seen() // after they were done
	for _, b := range done {
		t = t.plus(h.takeBatch(b, seen))
		b.taken = true
	}
	require.Zero(h.tb, t.Lost, "lost")
	require.Zero(h.tb, t.Doubled, "doubled")
	require.False(h.tb, h.tb.Failed())
	return t, all
}

// untaken lists the batches that are done and were not looked at yet, and says
// whether others are left.
func (h *crashHouse) untaken() (done []*crashBatch, left bool) {
	for _, b := range h.batches {
		switch {
		case b.taken:
		case h.done(b):
			done = append(done, b)
		default:
			left = true
		}
	}
	return done, left
}

// takeBatch compares the batch's learners, as the ledger has them, with what
// the platform saw.
func (h *crashHouse) takeBatch(b *crashBatch, seen map[string]*served) (t toll) {
	h.tb.Helper()
	finished, all := h.listed(b)
	states := map[string]int{}
	for _, l := range all {
		states[l.State]++
	}
	assert.Equal(h.tb, len(b.learners), finished.Eligible)
	assert.Equal(h.tb, slices.Sorted(slices.Values(b.learners)), slices.Sorted(maps.Keys(all)), "each learner once")
	assert.Equal(h.tb, len(b.learners), states["notified"]+states["failed"], "%v", states)
	for _, state := range []string{"notified", "failed"} {
		assert.Equal(h.tb, states[state], finished.Counts[state], "the job's count of %s", state)
	}
	h.requireAtRest(b)
	for _, id := range b.learners {
		s := seen[id]
		if s == nil {
			s = &served{}
		}
		t = t.plus(h.takeLearner(b, all[id], s))
	}
	return t
}

// takeLearner compares one.
func (h *crashHouse) takeLearner(b *crashBatch, l learner, s *served) (t toll) {
	h.tb.Helper()
	want := b.revisions
	if l.State == "failed" {
		want = 0
		assert.Equal(h.tb, "bad_request", l.Reason, "learner %s failed for no reason of ours", l.UserID)
	}
	t.Lost = max(0, want-len(s.registered))
	t.Doubled = max(0, len(s.registered)-want)
	if t.Lost+t.Doubled > 0 {
		h.tb.Logf("learner %s of job %s, %+v, was served so:\n%s", l.UserID, b.jobs[0], l, h.told(l.UserID))
	}
	t.Generates = max(0, s.generated-want)
	t.Registers = s.registers - len(s.registered)
	t.Notifications = max(0, s.emails-want) + max(0, s.messages-want)
	if want == 0 {
		return t
	}
	assert.Equal(h.tb, want, l.Revision, "learner %s", l.UserID)
	assert.Equal(h.tb, l.CertificateID, last(s.registered), "learner %s: the ledger holds another id than was registered", l.UserID)
	assert.GreaterOrEqual(h.tb, s.emails, want, "learner %s was not notified", l.UserID)
	if b.phones[l.UserID] {
		assert.GreaterOrEqual(h.tb, s.messages, want, "learner %s was sent no SMS", l.UserID)
	}
	for i := range min(len(s.registered), len(s.replaced)) {
		assert.Equal(h.tb, last(s.registered[:i]), s.replaced[i], "learner %s: what certificate %d replaces", l.UserID, i+1)
	}
	return t
}

// told is the call log of one learner, for people.
func (h *crashHouse) told(id string) string {
	var lines strings.Builder
	for _, c := range h.platform.Calls(simulator.OfUser(id)) {
		fmt.Fprintf(&lines, "%s %-10s %d %s in %v\n", c.At.Format(time.StampMilli), c.Operation, c.Status, c.CertificateID, c.Duration)
	}
	return lines.String()
}

func last(ids []string) string {
	if len(ids) == 0 {
		return ""
	}
	return ids[len(ids)-1]
}

// listed reads the first job of a batch, and its learners by their ids.
func (h *crashHouse) listed(b *crashBatch) (job, map[string]learner) {
	h.tb.Helper()
	api := h.api()
	all := map[string]learner{}
	listed := api.learners(b.jobs[0])
	for _, l := range listed {
		all[l.UserID] = l
	}
	assert.Len(h.tb, listed, len(all), "a learner is listed twice")
	return api.job(b.jobs[0]), all
}

// seen reads the call log. Repeated registrations must be the same, byte for
// byte.
func (h *crashHouse) seen() map[string]*served {
	h.tb.Helper()
	seen := map[string]*served{}
	bodies := map[string][]byte{} // of certificates
	of := func(user string) *served {
		if seen[user] == nil {
			seen[user] = &served{}
		}
		return seen[user]
	}
	for _, call := range h.platform.Calls(simulator.OfOperation("generate", "certs_add", "email", "sms")) {
		s := of(call.UserID)
		switch call.Operation {
		case "certs_add":
			s.registers++
			if body, again := bodies[call.CertificateID]; again {
				assert.Equal(h.tb, string(body), string(call.Body), "certificate %s was registered again with another body", call.CertificateID)
			}
			bodies[call.CertificateID] = call.Body
		case "generate":
			s.generated += answered(call)
		case "email":
			s.emails += answered(call)
		case "sms":
			s.messages += answered(call)
		}
	}
	for _, row := range h.platform.Registered() {
		if body, ours := bodies[row.ID]; ours {
			s := of(row.UserID)
			s.registered, s.replaced = append(s.registered, row.ID), append(s.replaced, oldID(body))
		}
	}
	return seen
}

// answered is 1 for a call that was not made to fail; one whose caller died
// meanwhile did its work.
func answered(call simulator.Call) int {
	if call.Status == 200 || call.Status == 0 {
		return 1
	}
	return 0
}

func oldID(body []byte) string {
	var add struct {
		Request struct {
			OldID string `json:"oldId"`
		} `json:"request"`
	}
	if err := json.Unmarshal(body, &add); err != nil {
		return fmt.Sprintf("no body: %v", err)
	}
	return add.Request.OldID
}
