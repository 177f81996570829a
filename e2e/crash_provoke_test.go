//go:build realparts

package e2e

import (
	"net/http"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/ecreds/issuer/internal/simulator"
)

// provokeAll sees to it that there is work, and work that passes the points.
func (h *crashHouse) provokeAll(mortals []*ward) {
	h.tb.Helper()
	if h.stands() {
		h.issueNew(learnersOfPoints)
	}
	for _, w := range mortals {
		if w.armed != "" && w.running != nil {
			h.provoke(w)
		}
	}
}

// stands says that nobody was registered for some time: all is done, or waits
// for its minute.
func (h *crashHouse) stands() bool {
	if n := h.registered(); n > h.progress.registered {
		h.progress.registered, h.progress.at = n, time.Now()
	}
	if time.Since(h.progress.at) < 2*crashSession {
		return false
	}
	h.progress.at = time.Now()
	return true
}

// provoke gives a program something to do that passes the point where it is to
// die, where the ordinary way of a certificate does not.
func (h *crashHouse) provoke(w *ward) {
	h.tb.Helper()
	deed, _, _ := strings.Cut(w.armed, ":")
	_, deed, _ = strings.Cut(deed, " ") // before, after
	newest := h.batches[len(h.batches)-1]
	user := newest.learners[h.rng.IntN(len(newest.learners))] // so that some record is the program's own
	switch deed {
	case "create job", "add page":
		ask(w, handbookBody(newest.id, benchCourse), "", "")
	case "take due", "publish", "dispatched":
		h.issueNew(crashConcurrency)
	case "write retrying":
		h.fail(simulator.Fault{Operation: "certs_add", Status: http.StatusInternalServerError})
	case "write release":
		h.fail(simulator.Fault{Operation: "certs_add", Status: http.StatusServiceUnavailable})
	case "write template failed":
		h.fail(simulator.Fault{Operation: "generate", Status: http.StatusInternalServerError})
	case "dead letter", "write failed":
		h.fail(simulator.Fault{Operation: "generate", Status: http.StatusBadRequest, Body: badRecipient})
	case "write adopted":
		h.produce(foreign(newest, user))
	case "write poison":
		h.produce(kafka.Message{Key: []byte(user), Value: []byte("\x00 is no event")})
	}
}

// badRecipient is what cert-service says of a learner without a name.
const badRecipient = `{"params":{"errmsg":"Invalid value for parameter certificate.data[0].recipientName."},` +
	`"responseCode":"CLIENT_ERROR","result":{}}`

// fail lets one call fail.
func (h *crashHouse) fail(f simulator.Fault) {
	f.Times = 1
	h.platform.SetFault(f)
}

// foreign is an event about a learner of the batch that the platform itself
// made.
func foreign(b *crashBatch, user string) kafka.Message {
	value := strings.ReplaceAll(string(foreignEvent(user)), benchBatch, b.id)
	return kafka.Message{Key: []byte(user), Value: []byte(value)}
}
