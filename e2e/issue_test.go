package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/simulator"
)

// earners computes from the seed data who must get a certificate of a batch.
func earners(data simulator.Dataset, batch string) map[string]bool {
	earned := map[string]bool{}
	for _, e := range data.Enrolments {
		if e.BatchID == batch && e.Active && e.Status == 2 && e.CompletedOn != "" && len(e.Certificates) == 0 {
			earned[e.UserID] = true
		}
	}
	return earned
}

// perLearner counts the successful calls of an operation by learner.
func (h *house) perLearner(operation string) map[string]int {
	counts := map[string]int{}
	for _, call := range h.platform.Calls(simulator.OfOperation(operation)) {
		if call.Status == http.StatusOK {
			counts[call.UserID]++
		}
	}
	return counts
}

// once says that each of the learners was served once.
func once(learners map[string]bool) map[string]int {
	counts := map[string]int{}
	for id := range learners {
		counts[id] = 1
	}
	return counts
}

// requireOnce compares, and prints only what differs.
func requireOnce(tb testing.TB, what string, want, got map[string]int) {
	tb.Helper()
	require.Empty(tb, cmp.Diff(want, got), "%s: learners served otherwise than wanted (-want +got)", what)
}

func TestEachEligibleLearnerIsServedOnceAndNobodyElse(t *testing.T) {
	h := newHouse(t, simulator.DemoDataset)
	data := simulator.DemoDataset(h.platform.URLs().Files)
	a := h.startAPI()
	h.startConsumer()

	answer := a.issue(handbookBody(simulator.DemoBatch, simulator.DemoCourse))
	require.Equal(t, "Certificates issue action for Course Batch Id "+simulator.DemoBatch+" submitted Successfully!",
		answer.Status)
	finished := a.awaitDone(answer.JobID)

	earned := earners(data, simulator.DemoBatch)
	require.Equal(t, len(earned), finished.Eligible)
	require.Equal(t, len(earned), finished.Counts["issued"])
	require.Equal(t, len(earned), finished.Counts["notified"])
	require.True(t, finished.Healthy)
	requireOnce(t, "generate", once(earned), h.perLearner("generate"))
	requireOnce(t, "certs/add", once(earned), h.perLearner("certs_add"))
	h.requireNotified(data, earned)
	h.requireSkips(t, a, answer.JobID, data, finished)
}

// requireNotified checks the outbox: an e-mail to everybody who has an address,
// an SMS to everybody who has a phone.
func (h *house) requireNotified(data simulator.Dataset, earned map[string]bool) {
	h.tb.Helper()
	want := map[string]int{}
	for _, u := range data.Users {
		if earned[u.ID] && u.Email != "" {
			want[u.ID+" email"] = 1
		}
		if earned[u.ID] && u.Phone != "" {
			want[u.ID+" sms"] = 1
		}
	}
	got := map[string]int{}
	for _, m := range h.platform.Outbox() {
		got[m.UserID+" "+m.Mode]++
	}
	requireOnce(h.tb, "messages", want, got)
}

// requireSkips checks that the job names everybody whom it passed over.
func (h *house) requireSkips(t *testing.T, a *client, id string, data simulator.Dataset, finished job) {
	t.Helper()
	enrolled := 0
	for _, e := range data.Enrolments {
		if e.BatchID == simulator.DemoBatch {
			enrolled++
		}
	}
	skipped := 0
	for _, n := range finished.SkippedBy {
		skipped += n
	}
	require.Equal(t, enrolled, finished.Eligible+skipped, "everybody enrolled is eligible or skipped: %v", finished.SkippedBy)
	listed := map[string]string{}
	for _, l := range a.learners(id) {
		listed[l.UserID] = l.State
		if l.State == "notified" {
			require.NotEmpty(t, l.CertificateID, "learner %s", l.UserID)
		}
	}
	for _, e := range data.Enrolments {
		if e.BatchID == simulator.DemoBatch && len(e.Certificates) > 0 {
			require.Equal(t, "skipped", listed[e.UserID], "a learner who holds the certificate already")
		}
	}
}

func TestFanOutHasNoMaximum(t *testing.T) {
	h := newHouse(t, simulator.DemoDataset)
	a := h.startProcess(builtProgram(t, "issuer-api"), append(h.settings(), "PUBLISH_AHEAD=0")...)
	answer := a.issue(handbookBody(simulator.LargeBatch, simulator.LargeCourse))
	require.Equal(t, simulator.LargeBatchSize, answer.Eligible)
	awaitPublished(t, &a.client, simulator.LargeBatchSize)
	require.Equal(t, simulator.LargeBatchSize, a.job(answer.JobID).Eligible)

	seen := map[string]int{}
	for _, m := range h.records("test.coursebatch.certificate.request", simulator.LargeBatchSize) {
		seen[string(m.Key)]++
	}
	want := once(earners(simulator.DemoDataset(h.platform.URLs().Files), simulator.LargeBatch))
	requireOnce(t, "events", want, seen)
}

func TestASecondRequestIssuesNothingTwice(t *testing.T) {
	h := newHouse(t, benchData(50))
	a := h.startAPI()
	h.startConsumer()
	first := a.issue(handbookBody(benchBatch, benchCourse))
	a.awaitDone(first.JobID)
	again := a.issue(handbookBody(benchBatch, benchCourse))
	finished := a.awaitDone(again.JobID)
	require.Equal(t, 50, finished.SkippedBy["already_issued"])
	require.Zero(t, finished.Eligible)
	require.Len(t, h.platform.Registered(), 50)
}

func TestTwoRequestsAtOnceIssueOnce(t *testing.T) {
	h := newHouse(t, benchData(200))
	a := h.startAPI()
	body := handbookBody(benchBatch, benchCourse)
	first, second := a.issue(body), a.issue(body)
	h.startConsumer()
	for _, id := range []string{first.JobID, second.JobID} {
		finished := a.awaitDone(id)
		require.Equal(t, 200, finished.Counts["issued"]+finished.SkippedBy["already_issued"])
	}
	require.Len(t, h.platform.Registered(), 200)
}

func TestReIssueReplacesTheCertificate(t *testing.T) {
	h := newHouse(t, benchData(5))
	a := h.startAPI()
	h.startConsumer()
	first := a.issue(handbookBody(benchBatch, benchCourse))
	a.awaitDone(first.JobID)
	before := map[string]string{}
	for _, l := range a.learners(first.JobID) {
		before[l.UserID] = l.CertificateID
	}

	status, answer := a.do(http.MethodPost, issuePath+"?reIssue=true", handbookBody(benchBatch, benchCourse))
	require.Equal(t, http.StatusOK, status, "%s", answer)
	again := result[issueResult](t, answer).Result.JobID
	a.awaitDone(again)

	for _, l := range a.learners(again) {
		require.Equal(t, 2, l.Revision)
		require.NotEqual(t, before[l.UserID], l.CertificateID)
	}
	require.Len(t, h.platform.Registered(), 10, "the first certificates stay registered")
	for id := range before {
		require.Equal(t, 2, h.perLearner("email")[id], "a re-issue is announced again")
	}
}

func TestEveryTemplateOfTheCourseWithoutACertificateName(t *testing.T) {
	h := newHouse(t, simulator.DemoDataset)
	a := h.startAPI()
	h.startConsumer()
	answer := a.issue(fmt.Sprintf(`{"request":{"batchId":%q,"courseId":%q}}`,
		simulator.TwoTemplateBatch, simulator.TwoTemplateCourse))
	finished := a.awaitDone(answer.JobID)
	require.Equal(t, 2*60, finished.Counts["issued"])
	require.Len(t, h.platform.Registered(), 2*60)
}

func TestNamedLearnersOnly(t *testing.T) {
	h := newHouse(t, benchData(20))
	a := h.startAPI()
	h.startConsumer()
	wanted := benchData(20)("").Users[3].ID
	answer := a.issue(fmt.Sprintf(`{"request":{"batchId":%q,"courseId":%q,"userIds":[%q,"nobody"]}}`,
		benchBatch, benchCourse, wanted))
	require.Equal(t, 1, answer.Eligible)
	require.Equal(t, 1, answer.Skipped["not_enrolled"])
	a.awaitDone(answer.JobID)
	requireOnce(t, "certs/add", map[string]int{wanted: 1}, h.perLearner("certs_add"))
}

func TestNobodyEligibleMakesNoJob(t *testing.T) {
	h := newHouse(t, simulator.DemoDataset)
	a := h.startAPI()
	answer := a.issue(handbookBody(simulator.EmptyBatch, simulator.DemoCourse))
	require.Equal(t, "No user exists for provided requests", answer.Status)
	require.Empty(t, answer.JobID)
}

// TestBadInputWritesNothing sends what must be refused and looks that no job,
// no event and no call came of it. The shapes of the answers are httpapi's
// tests.
func TestBadInputWritesNothing(t *testing.T) {
	h := newHouse(t, simulator.DemoDataset)
	a := h.startAPI()
	h.startConsumer()
	for name, c := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"malformed":           {`{"request":`, 400, "not valid"},
		"no batch":            {`{"request":{"courseId":"do_1"}}`, 400, "Mandatory parameter batchId is missing."},
		"batch is a number":   {`{"request":{"courseId":"do_1","batchId":12}}`, 400, "Data type of batchId should be String."},
		"unknown batch":       {handbookBody("nope", simulator.DemoCourse), 400, "No such batchId exists"},
		"batch elsewhere":     {handbookBody(simulator.DemoBatch, simulator.LargeCourse), 400, "batchId is not linked with courseId"},
		"unknown certificate": {fmt.Sprintf(`{"request":{"batchId":%q,"courseId":%q,"certificate":"Nope"}}`, simulator.DemoBatch, simulator.DemoCourse), 400, "Invalid value Nope for parameter certificate."},
		"unsupported filter":  {fmt.Sprintf(`{"request":{"batchId":%q,"courseId":%q,"filters":{"grade":"A"}}}`, simulator.DemoBatch, simulator.DemoCourse), 400, "grade"},
		"too large":           {`{"request":{"batchId":"` + strings.Repeat("1", 2<<20) + `"}}`, 413, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := a.do(http.MethodPost, issuePath, c.body)
			require.Equal(t, c.status, status, "%s", answer)
			var envelope struct {
				Params struct{ ErrMsg string } `json:"params"`
			}
			require.NoError(t, json.Unmarshal(answer, &envelope))
			require.Contains(t, envelope.Params.ErrMsg, c.says)
		})
	}
	require.Empty(t, h.platform.Calls(simulator.OfOperation("generate", "certs_add", "email", "sms")))
	status, metrics := a.do(http.MethodGet, "/metrics", "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, string(metrics), `ecreds_published_total{outcome="ok"} 0`)
	require.NotContains(t, h.log.String(), "job resolved")
}

// end is the offset behind the last record of a partition.
func (h *house) end(ctx context.Context, topic string, partition int) int64 {
	h.tb.Helper()
	conn, err := kafka.DialLeader(ctx, "tcp", h.brokers()[0], topic, partition)
	require.NoError(h.tb, err)
	defer conn.Close()
	end, err := conn.ReadLastOffset()
	require.NoError(h.tb, err)
	return end
}

// records reads n records of a topic.
func (h *house) records(topic string, n int) []kafka.Message {
	h.tb.Helper()
	ctx, cancel := context.WithTimeout(h.tb.Context(), patience)
	defer cancel()
	var all []kafka.Message
	for partition := range 6 {
		end := h.end(ctx, topic, partition)
		if end == 0 {
			continue
		}
		reader := kafka.NewReader(kafka.ReaderConfig{
			Brokers: h.brokers(), Topic: topic, Partition: partition, MaxWait: time.Second,
		})
		for {
			m, err := reader.ReadMessage(ctx)
			require.NoError(h.tb, err)
			all = append(all, m)
			if m.Offset+1 >= end {
				break
			}
		}
		require.NoError(h.tb, reader.Close())
	}
	require.Len(h.tb, all, n, "records of %s", topic)
	return all
}
