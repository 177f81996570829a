package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	consumer "github.com/ecreds/issuer/cmd/cert-consumer/app"
	"github.com/ecreds/issuer/internal/simulator"
)

const (
	requestTopic    = "test.coursebatch.certificate.request"
	deadLetterTopic = "test.coursebatch.certificate.failed"
)

// TestPassingFaultsCostNobodyACertificate lets every service fail in every way
// that passes, answers lost after the work was done among them.
func TestPassingFaultsCostNobodyACertificate(t *testing.T) {
	h := newHouse(t, benchData(150))
	for _, f := range []simulator.Fault{
		{Operation: "generate", Status: 500, Rate: 0.1},
		{Operation: "generate", LoseReply: true, Rate: 0.05},
		{Operation: "certs_add", Status: 500, Rate: 0.1},
		{Operation: "certs_add", LoseReply: true, Rate: 0.1},
		{Operation: "certs_add", Status: 200, Body: "{}", Rate: 0.05},
		{Operation: "email", Status: 500, Rate: 0.1},
		{Operation: "user_search", Status: 503, Rate: 0.1},
	} {
		h.platform.SetFault(f)
	}
	a := h.startAPI()
	h.startConsumer(func(c *consumer.Config) {
		c.RetryDelays = []time.Duration{50 * time.Millisecond, 50 * time.Millisecond, 50 * time.Millisecond, 50 * time.Millisecond}
	})
	finished := a.awaitDone(a.issue(handbookBody(benchBatch, benchCourse)).JobID)
	require.Equal(t, 150, finished.Counts["issued"])
	h.requireOneCertificateEach(150)
}

// requireOneCertificateEach looks at what the learner service has stored.
func (h *house) requireOneCertificateEach(n int) {
	h.tb.Helper()
	owners := map[string]int{}
	for _, r := range h.platform.Registered() {
		owners[r.UserID]++
	}
	require.Len(h.tb, owners, n)
	for id, certificates := range owners {
		require.Equal(h.tb, 1, certificates, "learner %s", id)
	}
}

// TestAnOutageIsNotAFailure takes a service away in the midst of a batch, with
// hardly a try to spare: nobody pays for it, and work resumes by itself, soon.
// The one try is for calls to generate that are cut off at the beginning: that
// may be their template's fault, and there is only one template.
func TestAnOutageIsNotAFailure(t *testing.T) {
	const learners = 150
	for name, test := range map[string]struct {
		fault      simulator.Fault
		downstream string
	}{
		"cert-service refuses connections": {simulator.Fault{Service: simulator.CertService, Outage: true}, "cert"},
		"cert-service answers 503":         {simulator.Fault{Operation: "generate", Status: 503}, "cert"},
		"learner service answers 503":      {simulator.Fault{Service: simulator.LearnerService, Status: 503}, "learner"},
		"our credentials are refused":      {simulator.Fault{Service: simulator.LearnerService, Status: 401}, "learner"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, benchData(learners))
			h.platform.SetFault(simulator.Fault{Operation: "generate", Latency: 50 * time.Millisecond})
			a := h.startAPI()
			w := h.startConsumer(func(c *consumer.Config) {
				c.RetryDelays, c.StepAttempts, c.Concurrency = []time.Duration{50 * time.Millisecond}, 1, 16
			})
			id := a.issue(handbookBody(benchBatch, benchCourse)).JobID
			require.Eventually(t, func() bool { return len(h.platform.Registered()) >= learners/5 }, patience, time.Millisecond)
			h.platform.SetFault(test.fault)
			w.awaitMetric(`ecreds_breaker_open{downstream="` + test.downstream + `"} 1`)
			before := len(h.platform.Registered())
			h.platform.ClearFaults()
			ended := time.Now()
			require.Eventually(t, func() bool { return len(h.platform.Registered()) > before }, patience, time.Millisecond)
			require.Less(t, time.Since(ended), 5*time.Second, "work resumes")
			w.awaitMetric(`ecreds_breaker_open{downstream="` + test.downstream + `"} 0`)
			finished := a.awaitDone(id)
			require.Equal(t, learners, finished.Counts["issued"])
			require.Empty(t, finished.FailedBy)
			h.requireOneCertificateEach(learners)
			require.Empty(t, h.records(deadLetterTopic, 0))
			require.Contains(t, h.log.String(), `"msg":"paused","cause":"`+test.downstream+`"`, "nothing is fetched to be held")
		})
	}
}

// TestCertificatesGoOnWithoutTheNotifier: everybody is issued, and told later.
func TestCertificatesGoOnWithoutTheNotifier(t *testing.T) {
	const learners = 60
	h := newHouse(t, benchData(learners))
	h.platform.SetFault(simulator.Fault{Operation: "email", Status: 503})
	a := h.startAPI()
	w := h.startConsumer(func(c *consumer.Config) { c.StepAttempts = 1 })
	id := a.issue(handbookBody(benchBatch, benchCourse)).JobID
	require.Eventually(t, func() bool { return a.job(id).Counts["issued"] == learners }, patience, 20*time.Millisecond)
	w.awaitMetric(`ecreds_breaker_open{downstream="notify"} 1`)
	require.Zero(t, a.job(id).Counts["notified"])
	h.platform.ClearFaults()
	finished := a.awaitDone(id)
	require.Equal(t, learners, finished.Counts["notified"])
	require.Empty(t, finished.FailedBy)
	require.Len(t, h.platform.Outbox(), learners, "everybody is told, once")
	require.NotContains(t, h.log.String(), `"msg":"paused"`)
	h.requireOneCertificateEach(learners)
}

// awaitMetric waits until the program shows a line among its metrics.
func (c *client) awaitMetric(line string) {
	c.tb.Helper()
	require.Eventually(c.tb, func() bool {
		status, metrics := c.do(http.MethodGet, "/metrics", "")
		return status == http.StatusOK && strings.Contains(string(metrics), line+"\n")
	}, patience, 10*time.Millisecond, "%s", line)
}

// TestBadDataEndsAsADeadLetter issues a batch where things are wrong with some
// learners: each of them is accounted for, and the others are issued.
func TestBadDataEndsAsADeadLetter(t *testing.T) {
	h := newHouse(t, simulator.DemoDataset)
	a := h.startAPI()
	h.startConsumer()
	id := a.issue(handbookBody(simulator.RoughBatch, simulator.RoughCourse)).JobID
	finished := a.awaitDone(id)
	require.False(t, finished.Healthy)

	state := map[string]learner{}
	for _, l := range a.learners(id) {
		state[l.UserID] = l
	}
	require.Equal(t, "bad_completion_date", state[simulator.RoughBadDate].Reason)
	require.Equal(t, "unknown_user", state[simulator.RoughUnknownUser].Reason)
	require.Equal(t, "failed", state[simulator.RoughUnknownUser].State)
	for _, nameless := range []string{simulator.RoughNoName, simulator.RoughNullName} {
		require.Equal(t, "failed", state[nameless].State)
		require.Equal(t, "bad_request", state[nameless].Reason)
		require.Contains(t, state[nameless].Message, "recipientName")
	}
	require.Equal(t, "notified", state[simulator.RoughNoAddress].State, "no address is no failure")
	require.Equal(t, "no_address", state[simulator.RoughNoAddress].Reason)

	failed := finished.Counts["failed"]
	letters := h.records(deadLetterTopic, failed)
	for _, m := range letters {
		userID := string(m.Key)
		require.Equal(t, state[userID].Reason, header(m, "dlq.reason"))
		require.Equal(t, requestTopic, header(m, "dlq.original-topic"))
		require.Equal(t, id, header(m, "dlq.job-id"))
		require.Contains(t, string(m.Value), `"userId":"`+userID+`"`)
	}
}

// TestABrokenTemplateDeadLettersNobody: a template that fails for everybody
// stops its own job, which says so, and no other.
func TestABrokenTemplateDeadLettersNobody(t *testing.T) {
	h := newHouse(t, simulator.DemoDataset)
	h.platform.SetFault(simulator.Fault{
		Operation: "generate", BatchID: simulator.DemoBatch, Status: http.StatusBadRequest,
		Body: `{"params":{"errmsg":"Invalid value for parameter htmlTemplate."},"responseCode":"CLIENT_ERROR","result":{}}`,
	})
	a := h.startAPI()
	h.startConsumer(func(c *consumer.Config) { c.RetryDelays, c.StepAttempts = nil, 1 })
	broken := a.issue(handbookBody(simulator.DemoBatch, simulator.DemoCourse)).JobID
	var j job
	require.Eventually(t, func() bool {
		j = a.job(broken)
		return slices.Contains(j.Reasons, "template")
	}, patience, 20*time.Millisecond)
	require.False(t, j.Healthy)
	require.False(t, j.Done, "it goes on by itself once the template is mended")
	other := a.awaitDone(a.issue(handbookBody(simulator.RoughBatch, simulator.RoughCourse)).JobID)
	require.Positive(t, other.Counts["issued"])
	j = a.job(broken)
	require.Empty(t, j.FailedBy)
	require.Zero(t, j.Counts["issued"])
}

func header(m kafka.Message, key string) string {
	for _, h := range m.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// TestARecordThatIsNoEventIsDeadLetteredByteForByte, and the one behind it in
// the same partition is worked.
func TestARecordThatIsNoEventIsDeadLetteredByteForByte(t *testing.T) {
	h := newHouse(t, benchData(1))
	a := h.startAPI()
	h.startConsumer()
	user := benchData(1)("").Users[0].ID
	garbage := []byte("\x00\xff{\"eid\":")
	h.produce(
		kafka.Message{Key: []byte(user), Value: garbage, Headers: []kafka.Header{{Key: "x", Value: []byte{1, 2}}}},
		kafka.Message{Key: []byte(user), Value: nil},
		kafka.Message{Key: []byte(user), Value: foreignEvent(user)},
	)
	require.Eventually(t, func() bool { return len(h.platform.Registered()) == 1 }, patience, 20*time.Millisecond,
		"the event behind the garbage is worked")
	letters := h.records(deadLetterTopic, 2)
	require.Equal(t, garbage, letters[0].Value)
	require.Equal(t, user, string(letters[0].Key))
	require.Equal(t, "\x01\x02", header(letters[0], "x"))
	require.Equal(t, "poison", header(letters[0], "dlq.class"))
	require.Equal(t, "decode", header(letters[0], "dlq.step"))
	require.Nil(t, letters[1].Value)
	status, _ := a.do(http.MethodGet, "/ready", "")
	require.Equal(t, http.StatusOK, status)
}

// foreignEvent is an event as the 2.3.5 platform itself published it.
func foreignEvent(user string) []byte {
	return []byte(`{"eid":"BE_JOB_REQUEST","ets":1566372109689,"mid":"LP.1566372109689.7fbfa7a4-7b4f-4d6b-9c3b-0f1c8f0c6c11",
 "actor":{"id":"Course Certificate Generator","type":"System"},
 "context":{"pdata":{"id":"org.sunbird.platform","ver":"1.0"}},
 "object":{"id":"x","type":"CourseCertificate"},
 "edata":{"userId":"` + user + `","batchId":"` + benchBatch + `","courseId":"` + benchCourse + `",
  "certificate":"100percentcompletioncertificate","action":"generate-course-certificate","iteration":1}}`)
}

func (h *house) produce(messages ...kafka.Message) {
	h.tb.Helper()
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	writer := &kafka.Writer{
		Transport: transport, Addr: kafka.TCP(h.brokers()...), Topic: requestTopic, RequiredAcks: kafka.RequireAll,
		Balancer: kafka.Murmur2Balancer{Consistent: true}, BatchTimeout: 5 * time.Millisecond,
	}
	require.NoError(h.tb, writer.WriteMessages(h.tb.Context(), messages...))
	require.NoError(h.tb, writer.Close())
}

// TestKilledAnywhere kills both programs again and again while a batch is
// issued, and the broker once. Whoever was in flight is finished by those who
// come after.
func TestKilledAnywhere(t *testing.T) {
	const learners = 400
	h := newHouse(t, benchData(learners))
	for _, operation := range []string{"generate", "certs_add", "email"} {
		h.platform.SetFault(simulator.Fault{Operation: operation, Latency: 30 * time.Millisecond})
	}
	a := h.startProcess(builtProgram(t, "issuer-api"), h.settings()...)
	id := a.issue(handbookBody(benchBatch, benchCourse)).JobID
	a.kill() // in the midst of fanning out
	for kill := range 3 {
		a = h.startProcess(builtProgram(t, "issuer-api"), h.settings()...)
		w := h.startProcess(builtProgram(t, "cert-consumer"), append(h.settings(), "CRASH_LIMIT=0")...)
		reached := (kill + 1) * learners / 5
		require.Eventually(t, func() bool { return len(h.platform.Registered()) >= reached }, patience, time.Millisecond)
		w.kill()
		a.kill()
	}
	a = h.startProcess(builtProgram(t, "issuer-api"), h.settings()...)
	h.startProcess(builtProgram(t, "cert-consumer"), append(h.settings(), "CRASH_LIMIT=0")...)
	finished := a.awaitDone(id)
	require.Equal(t, learners, finished.Counts["issued"])
	require.Empty(t, finished.FailedBy)
	h.requireOneCertificateEach(learners)
	repeated := 0
	for _, calls := range h.perLearner("generate") {
		repeated += calls - 1
	}
	require.LessOrEqual(t, repeated, 3*64, "no more calls are repeated than events were in flight at the kills")
}

// TestKafkaAwayAtTheRequest: the request is accepted, and issued once Kafka is
// back.
func TestKafkaAwayAtTheRequest(t *testing.T) {
	h := newHouse(t, benchData(30))
	port := h.port()
	a := h.startAPI()
	h.startConsumer()
	h.broker.Close()
	id := a.issue(handbookBody(benchBatch, benchCourse)).JobID
	require.NotEmpty(t, id)
	h.startBroker(kfake.Ports(port))
	finished := a.awaitDone(id)
	require.Equal(t, 30, finished.Counts["issued"])
	h.requireOneCertificateEach(30)
}

// TestNothingPersonalIsLogged runs the batch with the most trouble in it and
// searches everything that was logged, and Kafka, for names and addresses.
func TestNothingPersonalIsLogged(t *testing.T) {
	h := newHouse(t, simulator.DemoDataset)
	h.platform.SetFault(simulator.Fault{Operation: "certs_add", Status: 500, Rate: 0.2})
	a := h.startAPI()
	w := h.startConsumer()
	finished := a.awaitDone(a.issue(handbookBody(simulator.RoughBatch, simulator.RoughCourse)).JobID)
	w.stop()
	a.stop()

	everything := h.log.String()
	for _, m := range h.records(deadLetterTopic, finished.Counts["failed"]) {
		everything += string(m.Value)
		for _, header := range m.Headers {
			everything += string(header.Value)
		}
	}
	require.NotEmpty(t, everything)
	for _, u := range simulator.DemoDataset("").Users {
		for _, secret := range []string{u.Email, u.Phone, u.LastName} {
			if len(secret) > 4 {
				require.NotContains(t, everything, secret)
			}
		}
	}
}
