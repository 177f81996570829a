//go:build realparts

package e2e

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/parts"
	"github.com/ecreds/issuer/internal/simulator"
)

// newRealHouse is a house with an Apache Kafka of its own and the real search
// engine, which holds what the simulated one would. Both programs run as their
// users run them.
func newRealHouse(t *testing.T, data func(filesURL string) simulator.Dataset) (*house, *parts.Broker) {
	t.Helper()
	h := newHouseWithoutBroker(t, data)
	broker := parts.Kafka(t)
	h.brokers = broker.ListenAddrs
	engine := parts.SharedOpenSearch(t)
	h.search = engine.URL()
	h.seed(engine, data(h.platform.URLs().Files))
	h.platform.ResetCalls()
	return h, broker
}

// indexed is done once: tests have batches of their own.
var indexed sync.Once

// seed copies the documents that the simulated engine answers with. (Of the
// largest batch nothing: indexing it takes longer than the tests.)
func (h *house) seed(engine *parts.SearchEngine, data simulator.Dataset) {
	h.tb.Helper()
	indexed.Do(func() {
		engine.CreateIndex(h.tb, "course-batch")
		engine.CreateIndex(h.tb, "user-courses")
	})
	batches, enrolments := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for _, b := range data.Batches {
		batches[b.ID] = h.document("course-batch", b.ID)
	}
	for _, e := range data.Enrolments {
		if id := e.BatchID + "_" + e.UserID; e.BatchID != simulator.LargeBatch {
			enrolments[id] = h.document("user-courses", id)
		}
	}
	engine.Put(h.tb, "course-batch", batches)
	engine.Put(h.tb, "user-courses", enrolments)
}

// document reads one out of the simulated engine.
func (h *house) document(index, id string) json.RawMessage {
	h.tb.Helper()
	engine := &client{tb: h.tb, running: running{url: h.platform.URLs().Elasticsearch}}
	status, answer := engine.do(http.MethodGet, "/"+index+"/_doc/"+id, "")
	require.Equal(h.tb, http.StatusOK, status, "%s", answer)
	var document struct {
		Source json.RawMessage `json:"_source"`
	}
	require.NoError(h.tb, json.Unmarshal(answer, &document))
	return document.Source
}

// requireServedOnce reads from the simulated platform's call log that each of
// the learners was generated, registered and notified once, and nobody else.
func (h *house) requireServedOnce(data simulator.Dataset, earned map[string]bool) {
	h.tb.Helper()
	requireOnce(h.tb, "generate", once(earned), h.perLearner("generate"))
	requireOnce(h.tb, "certs/add", once(earned), h.perLearner("certs_add"))
	h.requireNotified(data, earned)
	require.Empty(h.tb, h.platform.Calls(simulator.OfService(simulator.Elasticsearch)), "enrolments come from the real engine")
}

func TestRealPartsServeEachEligibleLearnerOnce(t *testing.T) {
	t.Parallel()
	h, _ := newRealHouse(t, simulator.DemoDataset)
	data := simulator.DemoDataset(h.platform.URLs().Files)
	a := h.startProcess(builtProgram(t, "issuer-api"), h.settings()...)
	h.startProcess(builtProgram(t, "cert-consumer"), h.settings()...)

	id := a.issue(handbookBody(simulator.DemoBatch, simulator.DemoCourse)).JobID
	finished := a.awaitDone(id)
	earned := earners(data, simulator.DemoBatch)
	require.Equal(t, len(earned), finished.Eligible)
	require.Equal(t, len(earned), finished.Counts["notified"])
	require.True(t, finished.Healthy)
	h.requireServedOnce(data, earned)
	h.requireSkips(t, &a.client, id, data, finished)
}

// TestRealBrokerKilledUnderLoad kills the broker while events are written to it
// and read from it. It may take a minute: events whose acknowledgement was lost
// are published again only after that time.
func TestRealBrokerKilledUnderLoad(t *testing.T) {
	t.Parallel()
	const learners = 2000
	h, broker := newRealHouse(t, benchData(learners))
	for _, operation := range []string{"generate", "certs_add", "email"} {
		h.platform.SetFault(simulator.Fault{Operation: operation, Latency: 30 * time.Millisecond})
	}
	// Few at once, so that both programs speak to Kafka all the time.
	settings := append(h.settings(), "PUBLISH_AHEAD=200")
	a := h.startProcess(builtProgram(t, "issuer-api"), settings...)
	h.startProcess(builtProgram(t, "cert-consumer"), settings...)
	id := a.issue(handbookBody(benchBatch, benchCourse)).JobID
	require.Eventually(t, func() bool { return len(h.platform.Registered()) >= learners/5 }, patience, time.Millisecond)
	broker.Kill(t)
	require.Less(t, len(h.platform.Registered()), learners, "it dies in the midst of the batch")
	broker.Restart(t)
	back, before := time.Now(), len(h.platform.Registered())
	require.Eventually(t, func() bool { return len(h.platform.Registered()) > before }, patience, 5*time.Millisecond)
	t.Logf("%d of %d registered when the broker was back; %v to the next", before, learners, time.Since(back))
	finished := a.awaitDone(id)
	t.Logf("all done %v after the broker was back", time.Since(back))
	require.Equal(t, learners, finished.Counts["notified"])
	data := benchData(learners)(h.platform.URLs().Files)
	h.requireServedOnce(data, earners(data, benchBatch))
}
