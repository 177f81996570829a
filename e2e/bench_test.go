package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/simulator"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

const (
	benchBatch  = "0131000000000000001"
	benchCourse = "do_2131000000000000001"
)

// benchData is a batch of n learners with e-mail addresses. Its certificates
// are unsigned: on one machine the simulated signing service would otherwise
// take most of the processor that is to be measured.
func benchData(n int) func(string) simulator.Dataset {
	return func(files string) simulator.Dataset {
		data := simulator.Dataset{
			Courses: []simulator.Course{{ID: benchCourse, Name: "Figures", Templates: []simulator.Template{{
				Name:         simulator.DemoCertificate,
				HTMLTemplate: files + "/templates/certificate.zip",
				Issuer:       simulator.Issuer{Name: "Council", URL: "https://council.example", PublicKey: []string{"2"}},
				SignatoryList: []simulator.Signatory{{
					Name: "CEO", ID: "CEO", Designation: "CEO", Image: "https://council.example/sign.png",
				}},
				Notify: map[string]string{"subject": "Completion certificate", "emailTemplateType": "defaultCertTemp"},
			}}}},
			Batches: []simulator.Batch{{ID: benchBatch, CourseID: benchCourse, Name: "Figures", Status: 2}},
		}
		for i := range n {
			id := fmt.Sprintf("%08x-0000-4000-8000-%012x", i*2654435761%(1<<32), i)
			data.Users = append(data.Users, simulator.User{
				ID: id, FirstName: "Asha", LastName: "Rao", RootOrgID: simulator.DemoOrg, Email: "asha@example.org",
			})
			data.Enrolments = append(data.Enrolments, simulator.Enrolment{
				BatchID: benchBatch, UserID: id, CourseID: benchCourse, Active: true, Status: 2, CompletedOn: "1566372109689",
			})
		}
		return data
	}
}

// BenchmarkChain issues a batch with downstream calls of 50 ms each and 256
// events in flight, everything on this machine, ledger on disk. The bound is
// 256 / 0.15 s: three calls one after another for each learner.
func BenchmarkChain(b *testing.B) {
	const learners, concurrency, latency = 20_000, 256, 50 * time.Millisecond
	for b.Loop() {
		h := newHouse(b, benchData(learners))
		certificates, learnerService := leanPlatform(b, latency), leanPlatform(b, latency)
		a := h.startProcess(builtProgram(b, "issuer-api"), append(h.settings(), "PUBLISH_AHEAD=0")...)
		id := a.issue(handbookBody(benchBatch, benchCourse)).JobID
		awaitPublished(b, &a.client, learners)
		w := h.startProcess(builtProgram(b, "cert-consumer"), append(h.settings(),
			"CONCURRENCY="+strconv.Itoa(concurrency), "CERT_SERVICE_URL="+certificates.URL,
			"LEARNER_SERVICE_URL="+learnerService.URL)...)
		rate := steadyRate(b, &a.client, id, learners)
		b.ReportMetric(cpuTime(b, w.cmd.Process.Pid).Seconds()*1e6/learners, "consumer_CPU_µs/issuance")
		bound := float64(concurrency) / (3 * latency.Seconds())
		b.ReportMetric(rate, "issuances/s")
		b.ReportMetric(100*rate/bound, "%_of_bound")
		w.stop()
		a.stop()
	}
}

func leanPlatform(b *testing.B, latency time.Duration) *httptest.Server {
	b.Helper()
	server := httptest.NewServer(&sunbirdtest.Platform{Latency: latency})
	b.Cleanup(server.Close)
	return server
}

// steadyRate measures between a tenth and nine tenths of a job, where all
// places are taken.
func steadyRate(b *testing.B, a *client, id string, learners int) float64 {
	b.Helper()
	var begun, ended time.Time
	var first, last int
	for {
		finished := a.job(id).Counts["notified"]
		if begun.IsZero() && finished >= learners/10 {
			begun, first = time.Now(), finished
		}
		if ended.IsZero() && finished >= learners*9/10 {
			ended, last = time.Now(), finished
		}
		if finished == learners {
			return float64(last-first) / ended.Sub(begun).Seconds()
		}
		<-time.After(100 * time.Millisecond) // asking costs the machine that is measured
	}
}

// BenchmarkFanOut asks for 25,000 certificates and measures the answer, the
// time until the last event is acknowledged by Kafka, and the memory of a
// separate issuer-api process.
func BenchmarkFanOut(b *testing.B) {
	const learners = 25_000
	for b.Loop() {
		h := newHouse(b, benchData(learners))
		a := h.startProcess(builtProgram(b, "issuer-api"), append(h.settings(), "PUBLISH_AHEAD=0")...)
		asked := time.Now()
		a.issue(handbookBody(benchBatch, benchCourse))
		answered := time.Since(asked)
		awaitPublished(b, &a.client, learners)
		b.ReportMetric(answered.Seconds(), "s_to_answer")
		b.ReportMetric(time.Since(asked).Seconds(), "s_to_published")
		b.ReportMetric(peakMemory(b, a.cmd.Process.Pid), "MB_peak")
		a.stop()
	}
}

// awaitPublished waits until issuer-api has counted n acknowledged events.
func awaitPublished(tb testing.TB, a *client, n int) {
	tb.Helper()
	want := fmt.Sprintf("ecreds_published_total{outcome=\"ok\"} %v\n", float64(n))
	require.Eventually(tb, func() bool {
		status, metrics := a.do(http.MethodGet, "/metrics", "")
		return status == http.StatusOK && strings.Contains(string(metrics), want)
	}, patience, 20*time.Millisecond)
}

// peakMemory reads the largest resident memory that a process has had, in MB.
func peakMemory(tb testing.TB, pid int) float64 {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(tb, err)
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")))
			require.NoError(tb, err)
			return float64(n) / 1024
		}
	}
	require.Fail(tb, "no VmHWM in the process status")
	return 0
}

// cpuTime is the processor time that a process has used.
func cpuTime(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(tb, err)
	// After the name, which may hold blanks: state is field 3, utime 14, stime 15,
	// in hundredths of a second.
	fields := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:])
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		require.NoError(tb, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
