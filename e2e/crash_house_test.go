//go:build realparts

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/crash"
	"github.com/ecreds/issuer/internal/parts"
	"github.com/ecreds/issuer/internal/simulator"
)

const (
	// crashLapse is the shortest silence that a busy machine does not take for a
	// death.
	crashLapse = 2 * time.Second
	// crashSession is the same for a member of a group: three heartbeats.
	crashSession = 3 * time.Second
	// crashConcurrency bounds what one death of a consumer may repeat.
	crashConcurrency = 24
	// crashLatency is that of a downstream call: something is always under way.
	crashLatency = 25 * time.Millisecond
)

// mortalPrograms are built to die at points.
var mortalPrograms = buildOnce("crash")

// crashHouse is an installation whose parts die and come again.
type crashHouse struct {
	*house
	rng       *rand.Rand
	broker    *parts.Broker
	database  *parts.Postgres // nil = the ledger is a SQLite file
	ledgerURL string
	apis      []*ward
	consumers []*ward
	batches   []*crashBatch // so far

	partDeaths     int // of broker and database
	databaseDeaths int

	progress struct {
		registered int
		at         time.Time
	}
}

// newCrashHouse starts a broker, and makes programs of which none runs yet.
func newCrashHouse(t *testing.T, rng *rand.Rand, database *parts.Postgres, apis, consumers int) *crashHouse {
	t.Helper()
	h := &crashHouse{
		house: newHouseWithoutBroker(t, benchData(0), func(c *simulator.Config) { c.KeepBodies = true }),
		rng:   rng, broker: parts.Kafka(t), database: database,
	}
	h.brokers = h.broker.ListenAddrs
	h.ledgerURL = "sqlite:" + filepath.Join(h.folder, "ledger.db")
	if database != nil {
		h.ledgerURL = database.Database(t)
	}
	h.calm()
	for range apis {
		h.apis = append(h.apis, h.ward("issuer-api"))
	}
	for range consumers {
		h.consumers = append(h.consumers, h.ward("cert-consumer"))
	}
	return h
}

func (h *crashHouse) ward(program string, settings ...string) *ward {
	h.tb.Helper()
	folder, err := mortalPrograms()
	require.NoError(h.tb, err)
	return &ward{h: h.house, binary: filepath.Join(folder, program), settings: append(append(h.settings(),
		"DATABASE_URL="+h.ledgerURL, fmt.Sprintf("KAFKA_SESSION_TIMEOUT=%v", crashSession), fmt.Sprintf("CLAIM_LAPSE=%v", crashLapse),
		fmt.Sprintf("CONCURRENCY=%d", crashConcurrency), "CRASH_LIMIT=0", "STEP_ATTEMPTS=1",
		"RETRY_DELAYS="+strings.Repeat("100ms,", 19)+"100ms"), settings...)}
}

// calm ends the faults but for the latency of the calls.
func (h *crashHouse) calm() {
	h.platform.ClearFaults()
	for _, operation := range []string{"generate", "certs_add", "email", "sms"} {
		h.platform.SetFault(simulator.Fault{Operation: operation, Latency: crashLatency})
	}
}

func (h *crashHouse) wards() []*ward { return slices.Concat(h.apis, h.consumers) }

// tend starts again who has died.
func (h *crashHouse) tend() {
	h.tb.Helper()
	for _, w := range h.wards() {
		w.tend()
	}
}

// until tends the house until something is so.
func (h *crashHouse) until(so func() bool, pause, patience time.Duration, otherwise string) {
	h.tb.Helper()
	require.True(h.tb, h.wait(so, pause, patience), otherwise)
}

// wait is until for what may take longer.
func (h *crashHouse) wait(so func() bool, pause, patience time.Duration) bool {
	h.tb.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(pause) {
		h.tend()
		if so() {
			return true
		}
	}
	return false
}

// kills counts the deaths of all parts.
func (h *crashHouse) kills() int {
	n := h.partDeaths
	for _, w := range h.wards() {
		n += w.deaths
	}
	return n
}

// inFlight bounds the events that were in flight at all deaths so far: a
// consumer's own, and at the database's those of all consumers.
func (h *crashHouse) inFlight() int {
	n := h.databaseDeaths * len(h.consumers)
	for _, w := range h.consumers {
		n += w.deaths
	}
	return n * crashConcurrency
}

// issue asks for a batch until somebody answers.
func (h *crashHouse) issue(body, query, key string) (job string) {
	h.tb.Helper()
	h.until(func() bool {
		api := h.apis[h.rng.IntN(len(h.apis))]
		job = ask(api, body, query, key)
		return job != ""
	}, look, 2*patience, "nobody accepted the batch")
	return job
}

// ask asks one program once, and returns the job; "" = it did not answer, or
// could not accept.
func ask(api *ward, body, query, key string) string {
	if api.running == nil {
		return ""
	}
	header := http.Header{}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	status, answer, err := api.running.try(http.MethodPost, issuePath+query, body, header)
	if err != nil || status != http.StatusOK {
		return ""
	}
	taken, err := tryResult[issueResult](answer)
	if err != nil {
		return ""
	}
	return taken.Result.JobID
}

// api is one that runs.
func (h *crashHouse) api() *process {
	h.tb.Helper()
	var running *process
	h.until(func() bool {
		i := slices.IndexFunc(h.apis, func(w *ward) bool { return w.running != nil })
		if i >= 0 {
			running = h.apis[i].running
		}
		return i >= 0
	}, look, lastPatience, "no API comes up")
	return running
}

// jobOf asks whoever lives for a job; false = nobody answers.
func (h *crashHouse) jobOf(id string) (job, bool) {
	for _, api := range h.apis {
		if api.running == nil {
			continue
		}
		status, answer, err := api.running.try(http.MethodGet, "/v1/course/batch/cert/jobs/"+id, "", nil)
		if err != nil || status != http.StatusOK {
			continue
		}
		if shown, err := tryResult[jobResult](answer); err == nil {
			return shown.Job, true
		}
	}
	return job{}, false
}

// point gives a point a number of times that it is passed before the death.
func (h *crashHouse) point(name string) string {
	n := 1
	for _, often := range []string{"claim", "generate", "register", "email", "generating", "registering", "notifying", "notified"} {
		if strings.HasSuffix(name, " "+often) {
			n = 1 + h.rng.IntN(10)
		}
	}
	return fmt.Sprintf("%s:%d", name, n)
}

// pointsOf are all points of both programs, in an order of this house's own.
func (h *crashHouse) pointsOf() (api, consumer []string) {
	api, consumer = crash.APIPoints(), crash.ConsumerPoints()
	for _, points := range [][]string{api, consumer} {
		h.rng.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	}
	return api, consumer
}
