package e2e

import (
	"crypto/pbkdf2"
	"crypto/sha512"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	consumer "github.com/ecreds/issuer/cmd/cert-consumer/app"
	api "github.com/ecreds/issuer/cmd/issuer-api/app"
	"github.com/ecreds/issuer/internal/program"
)

// TestRefusedCredentialsAreAnOutage starts both programs with a password that
// the broker refuses. They run and say so, the request is accepted, and issued
// once the broker takes the password.
func TestRefusedCredentialsAreAnOutage(t *testing.T) {
	const user, mechanism, password = "issuer", "SCRAM-SHA-512", "s3cret-of-the-issuer"
	h := newHouse(t, benchData(30))
	h.broker.Close()
	h.startBroker(kfake.EnableSASL(), kfake.Superuser(mechanism, user, "s3cret-that-was-yesterday"),
		kfake.Superuser("PLAIN", "admin", "admin"))
	secured := func(k *program.Kafka) {
		k.SASLMechanism, k.Username, k.Password, k.SASLWithoutTLS = mechanism, user, password, true
	}
	config := h.apiConfig()
	secured(&config.Kafka)
	issuer, err := api.New(t.Context(), config, h.log)
	require.NoError(t, err)
	a := &client{tb: t, running: h.start(issuer.Addr(), issuer.Run)}
	a.awaitReady()
	work := h.consumerConfig()
	secured(&work.Kafka)
	worker, err := consumer.New(t.Context(), work, h.log)
	require.NoError(t, err)
	w := &client{tb: t, running: h.start(worker.Addr(), worker.Run)}

	id := a.issue(handbookBody(benchBatch, benchCourse)).JobID
	require.NotEmpty(t, id)
	h.awaitLog(2, `"kafka refuses our credentials; trying again"`)
	require.Contains(t, h.log.String(), "kafka at "+h.broker.ListenAddrs()[0]+
		": authentication refused: check KAFKA_USERNAME and KAFKA_PASSWORD")
	status, answer := w.do(http.MethodGet, "/ready", "")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, string(answer), "authentication refused")
	for _, c := range []*client{a, w} {
		status, answer = c.do(http.MethodGet, "/health", "")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, string(answer), `{"name":"kafka","healthy":false`)
	}

	setPassword(t, h.broker.ListenAddrs()[0], user, password)
	require.Equal(t, 30, a.awaitDone(id).Counts["issued"])
	w.awaitReady()
	h.requireOneCertificateEach(30)
	w.stop()
	a.stop()
	require.NotContains(t, h.log.String(), "s3cret")
}

// awaitLog waits until words were logged by so many programs.
func (h *house) awaitLog(programs int, words string) {
	h.tb.Helper()
	require.Eventually(h.tb, func() bool {
		by := map[bool]bool{}
		for line := range strings.Lines(h.log.String()) {
			if strings.Contains(line, words) {
				by[strings.Contains(line, `"logger":"cert-consumer"`)] = true
			}
		}
		return len(by) == programs
	}, patience, 20*time.Millisecond, "not logged by %d programs: %s", programs, words)
}

// setPassword changes a user's password as an operator does.
func setPassword(t *testing.T, broker, user, password string) {
	t.Helper()
	const iterations = 4096
	salt := []byte("salt of a test")
	salted, err := pbkdf2.Key(sha512.New, password, salt, iterations, sha512.Size)
	require.NoError(t, err)
	transport := &kafka.Transport{SASL: plain.Mechanism{Username: "admin", Password: "admin"}}
	defer transport.CloseIdleConnections()
	operator := &kafka.Client{Addr: kafka.TCP(broker), Transport: transport}
	response, err := operator.AlterUserScramCredentials(t.Context(), &kafka.AlterUserScramCredentialsRequest{
		Upsertions: []kafka.UserScramCredentialsUpsertion{{
			Name: user, Mechanism: kafka.ScramMechanismSha512, Iterations: iterations, Salt: salt, SaltedPassword: salted,
		}},
	})
	require.NoError(t, err)
	for _, result := range response.Results {
		require.NoError(t, result.Error)
	}
}
