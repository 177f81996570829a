package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/simulator"
)

const reconcilePath = "/v1/course/batch/cert/reconcile"

// reconciliation is what the API says of a batch.
type reconciliation struct {
	Eligible  int                `json:"eligible"`
	Counts    map[string]int     `json:"counts"`
	Validated int                `json:"validated"`
	Missing   finding            `json:"missing"`
	Lost      finding            `json:"lost"`
	Duplicate finding            `json:"duplicate"`
	Orphaned  finding            `json:"orphaned"`
	Elsewhere finding            `json:"elsewhere"`
	Unchecked map[string]finding `json:"unchecked"`
	Fix       bool               `json:"fix"`
	Queued    int                `json:"queued"`
	Jobs      []string           `json:"jobs"`
	Recount   map[string]any     `json:"recount"`
}

type finding struct {
	Count   int      `json:"count"`
	Samples []string `json:"samples"`
}

func one(learner string) finding { return finding{Count: 1, Samples: []string{learner}} }

func (c *client) reconcile(query string) reconciliation {
	c.tb.Helper()
	status, answer := c.do(http.MethodPost, reconcilePath+query,
		fmt.Sprintf(`{"request":{"batchId":%q,"courseId":%q}}`, benchBatch, benchCourse))
	require.Equal(c.tb, http.StatusOK, status, "%s", answer)
	return result[struct {
		Reconcile reconciliation `json:"reconcile"`
	}](c.tb, answer).Reconcile
}

// TestReconcileNamesWhatIsWrongAndQueuesTheMissing breaks an issued batch in four
// ways. Each is named, and nobody else; only the missing learner is issued.
func TestReconcileNamesWhatIsWrongAndQueuesTheMissing(t *testing.T) {
	const learners = 20
	h := newHouse(t, benchData(learners))
	a := h.startAPI()
	h.startConsumer()
	issued := a.issue(handbookBody(benchBatch, benchCourse))
	a.awaitDone(issued.JobID)
	recount := map[string]any{"jobs": 1.0, "unresolved": 0.0, "wrong": 0.0, "corrected": 0.0}
	require.Equal(t, reconciliation{
		Eligible: learners, Counts: map[string]int{"issued": learners, "notified": learners}, Validated: learners,
		Unchecked: map[string]finding{}, Recount: recount,
	}, a.reconcile(""), "all is well")

	data := benchData(learners + 1)(h.platform.URLs().Files)
	lost, withdrawn, doubled, late := data.Users[3].ID, data.Users[7].ID, data.Users[11].ID, data.Users[learners].ID
	h.platform.Unregister(h.certificateOf(lost))
	data.Enrolments[7].Active = false
	data.Enrolments[11].Certificates = []simulator.EnrolmentCertificate{{Name: simulator.DemoCertificate, ID: "of-2019"}}
	require.NoError(t, h.platform.Load(simulator.Dataset{
		Users:      data.Users[learners:],
		Enrolments: []simulator.Enrolment{data.Enrolments[7], data.Enrolments[11], data.Enrolments[learners]},
	}))
	want := reconciliation{
		Eligible: learners, Counts: map[string]int{"issued": learners, "notified": learners}, Validated: learners - 1,
		Missing: one(late), Lost: one(lost), Duplicate: one(doubled), Orphaned: one(withdrawn), Elsewhere: one(doubled),
		Unchecked: map[string]finding{}, Recount: recount,
	}
	require.Equal(t, want, a.reconcile(""))
	require.Len(t, h.platform.Registered(), learners-1, "looking issues nothing")

	fixed := a.reconcile("?fix=true")
	require.Len(t, fixed.Jobs, 1)
	standing := fixed.Jobs[0]
	want.Fix, want.Queued, want.Jobs = true, 1, fixed.Jobs
	require.Equal(t, want, fixed)
	require.Equal(t, 1, a.awaitDone(standing).Counts["issued"])
	again := a.reconcile("?fix=true")
	require.Zero(t, again.Missing.Count)
	require.Zero(t, again.Queued)
	require.Equal(t, learners+1, again.Counts["issued"])
	require.Equal(t, one(lost), again.Lost, "a re-issue is for people to decide")
	once := map[string]int{}
	for _, user := range data.Users {
		once[user.ID] = 1
	}
	requireOnce(t, "certs/add", once, h.perLearner("certs_add"))
}

// certificateOf is the certificate that a learner has at the platform.
func (h *house) certificateOf(learner string) string {
	h.tb.Helper()
	for _, row := range h.platform.Registered() {
		if row.UserID == learner {
			return row.ID
		}
	}
	require.Fail(h.tb, "no certificate is registered", "of %s", learner)
	return ""
}

func TestReconcileWhileTheLearnerServiceIsAway(t *testing.T) {
	h := newHouse(t, benchData(60))
	a := h.startAPI()
	h.startConsumer()
	a.awaitDone(a.issue(handbookBody(benchBatch, benchCourse)).JobID)
	h.platform.SetFault(simulator.Fault{Service: simulator.LearnerService, Outage: true})
	found := a.reconcile("?fix=true")
	require.Zero(t, found.Validated)
	require.Equal(t, 60, found.Unchecked["unavailable"].Count)
	require.Equal(t, 60, found.Counts["issued"], "what can be told is told")
	require.Zero(t, found.Lost.Count, "nothing is lost because nobody answers")
	h.platform.ClearFaults()
	require.Equal(t, 60, a.reconcile("").Validated)

	h.platform.SetFault(simulator.Fault{Service: simulator.Elasticsearch, Operation: "es_search", Status: 503})
	status, answer := a.do(http.MethodPost, reconcilePath+"?fix=true",
		fmt.Sprintf(`{"request":{"batchId":%q,"courseId":%q}}`, benchBatch, benchCourse))
	require.Equal(t, http.StatusServiceUnavailable, status, "%s", answer)
}

func TestReconcileOfBadInputWritesNothing(t *testing.T) {
	h := newHouse(t, simulator.DemoDataset)
	a := h.startAPI()
	for name, c := range map[string]struct{ body, says string }{
		"with filters":  {handbookBody(simulator.DemoBatch, simulator.DemoCourse), "for parameter filters."},
		"no such batch": {`{"request":{"batchId":"nope","courseId":"do_1"}}`, "No such batchId exists"},
		"other course": {
			fmt.Sprintf(`{"request":{"batchId":%q,"courseId":%q}}`, simulator.DemoBatch, simulator.LargeCourse),
			"batchId is not linked with courseId",
		},
		"unknown certificate": {
			fmt.Sprintf(`{"request":{"batchId":%q,"courseId":%q,"certificate":"Nope"}}`, simulator.DemoBatch, simulator.DemoCourse),
			"Invalid value Nope for parameter certificate.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := a.do(http.MethodPost, reconcilePath+"?fix=true", c.body)
			require.Equal(t, http.StatusBadRequest, status, "%s", answer)
			require.Contains(t, string(answer), c.says)
		})
	}
	status, metrics := a.do(http.MethodGet, "/metrics", "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, string(metrics), `ecreds_ledger_duration_seconds_count{op="adopt"} 0`, "nothing was queued")
}
