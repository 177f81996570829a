package simulator

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func readContent(t *testing.T, p *Platform) int {
	t.Helper()
	status, _ := call(t, "GET", p.URLs().ContentService+"/content/v3/read/"+DemoCourse, nil)
	return status
}

// fetch is a call for its headers and errors; the body is closed and gone.
func fetch(t *testing.T, method, url string) (int, http.Header, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	require.NoError(t, err)
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	require.NoError(t, response.Body.Close())
	return response.StatusCode, response.Header, nil
}

func TestFaultTimesStatusAndRetryAfter(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(DemoDataset(p.URLs().Files)))
	p.SetFault(Fault{Service: ContentService, Status: 503, RetryAfter: "2", Times: 2})
	status, header, err := fetch(t, "GET", p.URLs().ContentService+"/content/v3/read/"+DemoCourse)
	require.NoError(t, err)
	require.Equal(t, 503, status)
	require.Equal(t, "2", header.Get("Retry-After"))
	require.Equal(t, 503, readContent(t, p))
	require.Equal(t, 200, readContent(t, p), "struck twice, then over")
	calls := p.Calls(OfService(ContentService))
	require.True(t, calls[0].Fault && calls[1].Fault && !calls[2].Fault)
}

func TestFaultIsRestricted(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	template := p.URLs().Files + TemplatePath
	for _, f := range []Fault{
		{Operation: "generate", UserID: "u2", Status: 500},
		{BatchID: "0128", Status: 500},
		{Template: template + "?2", Status: 500},
		{Template: "Merit", Status: 500},
		{Service: LearnerService, Status: 500},
	} {
		p.SetFault(f)
	}
	url := p.URLs().CertService + "/v1/certs/generate"
	for _, row := range []struct {
		changes map[string]any
		status  int
	}{
		{nil, 200},
		{map[string]any{"data": []any{map[string]any{"recipientName": "B", "recipientId": "u2"}}}, 500},
		{map[string]any{"tag": "0123_0128"}, 500},
		{map[string]any{"htmlTemplate": template + "?2"}, 500},
		{map[string]any{"name": "Merit"}, 500},
	} {
		status, _ := call(t, "POST", url, generateBody(p, row.changes))
		require.Equal(t, row.status, status, row.changes)
	}
}

func TestLostReplyAndFailureAfterWork(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(learnerData))
	p.SetFault(Fault{Operation: "certs_add", LoseReply: true, Times: 1})
	p.SetFault(Fault{Operation: "certs_add", Status: 500, AfterWork: true, Times: 2})
	status, _ := addCertificate(t, p, "c1", "")
	require.Zero(t, status)
	require.Equal(t, "c1", p.Registered()[0].ID, "the work was done")
	status, body := addCertificate(t, p, "c2", "")
	require.Equal(t, 500, status)
	require.Contains(t, string(body), "INTERNAL_ERROR")
	require.Len(t, p.Registered(), 2)
	status, body = addCertificate(t, p, "c1", "")
	requireRefused(t, 400, "INVALID_PARAMETER", "data already exist.", status, body)
	require.Equal(t, int64(1), p.CallCounts()[CallKey{"certs_add", 0}])
}

func TestHangEndsWithTheClientAndIsSeenBefore(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	p.SetFault(Fault{Service: ContentService, Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, p.URLs().ContentService+"/content/v3/read/x", http.NoBody)
		response, err := client.Do(request)
		if err == nil {
			err = response.Body.Close()
		}
		done <- err
	}()
	require.Eventually(t, func() bool { return len(p.Calls()) == 1 }, 5*time.Second, time.Millisecond)
	require.False(t, p.Calls()[0].Done)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Eventually(t, func() bool { return p.Calls()[0].Done }, 5*time.Second, time.Millisecond)
	require.Zero(t, p.Calls()[0].Status)
}

func TestOutageRefusesConnections(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(DemoDataset(p.URLs().Files)))
	require.Equal(t, 200, readContent(t, p))
	p.SetFault(Fault{Service: ContentService, Outage: true})
	_, _, err := fetch(t, "GET", p.URLs().ContentService+"/content/v3/read/"+DemoCourse)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	p.ClearFaults()
	require.Equal(t, 200, readContent(t, p), "back at the same address")

	p.SetFault(Fault{Operation: "content_read", Outage: true})
	_, _, err = fetch(t, "GET", p.URLs().ContentService+"/content/v3/read/"+DemoCourse)
	require.Error(t, err)
	require.NotErrorIs(t, err, syscall.ECONNREFUSED, "of one operation only: accepted, then cut")
}

func TestRateAndCapacity(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(DemoDataset(p.URLs().Files)))
	p.SetFault(Fault{Service: ContentService, Status: 500, Rate: 0.5})
	failed := 0
	for range 200 {
		if readContent(t, p) == 500 {
			failed++
		}
	}
	require.InDelta(t, 100, failed, 60)
	p.ClearFaults()

	a := &armed{Fault: Fault{Capacity: 2, Latency: 10 * time.Millisecond}}
	ends := []func(){}
	for _, want := range []time.Duration{10 * time.Millisecond, 10 * time.Millisecond, 22500 * time.Microsecond, 40 * time.Millisecond} {
		wait, end := a.delay()
		ends = append(ends, end)
		require.Equal(t, want, wait)
	}
	for _, end := range ends {
		end()
	}
	wait, _ := a.delay()
	require.Equal(t, 10*time.Millisecond, wait)
}

func TestLatencyDelaysTheWorkEvenWithoutTheClient(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(learnerData))
	p.SetFault(Fault{Operation: "certs_add", Latency: 60 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URLs().LearnerService+"/private/user/v1/certs/add",
		strings.NewReader(`{"request":{"id":"c1","accessCode":"A","pdfURL":"p","userId":"u1","jsonData":{}}}`))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err == nil {
		_ = response.Body.Close()
	}
	require.Error(t, err)
	require.Eventually(t, func() bool { return len(p.Registered()) == 1 }, 5*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return p.CallCounts()[CallKey{"certs_add", 0}] == 1 }, 5*time.Second, time.Millisecond)
}

func TestControlOverHTTP(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	require.NoError(t, p.Load(learnerData))
	files := p.URLs().Files
	status, body := call(t, "POST", files+"/simulator/faults", `{"service":"learner","operation":"certs_add","latency":"1ms","status":503,"times":1}`)
	require.Equal(t, 201, status, string(body))
	_, body = call(t, "GET", files+"/simulator/faults", nil)
	require.JSONEq(t, `[{"service":"learner","operation":"certs_add","latency":"1ms","status":503,"times":1}]`, string(body))
	status, _ = addCertificate(t, p, "c1", "")
	require.Equal(t, 503, status)
	status, _ = call(t, "DELETE", files+"/simulator/faults", nil)
	require.Equal(t, 204, status)
	require.Empty(t, p.Faults())
	addCertificate(t, p, "c1", "")
	_, body = call(t, "GET", files+"/simulator/counts", nil)
	require.JSONEq(t, `{"certs_add":{"200":1,"503":1}}`, string(body))
	_, body = call(t, "GET", files+"/simulator/calls?operation=certs_add&userId=u1&limit=1", nil)
	var calls []Call
	require.NoError(t, json.Unmarshal(body, &calls))
	require.Len(t, calls, 1)
	require.Equal(t, 200, calls[0].Status)
	_, body = call(t, "GET", files+"/simulator/registered?userId=u1", nil)
	require.Contains(t, string(body), `{"count":1,"rows":[{"id":"c1"`)
	_, body = call(t, "GET", files+"/simulator/outbox", nil)
	require.JSONEq(t, `{"count":0,"messages":[]}`, string(body))
	for _, bad := range []string{`{"service":"nobody"}`, `{"operation":"nothing"}`, `{"rate":2}`, `{"status":7}`, `{"latency":"soon"}`, `x`} {
		status, _ = call(t, "POST", files+"/simulator/faults", bad)
		require.Equal(t, 400, status, bad)
	}
	_, body = call(t, "GET", files+"/", nil)
	require.Contains(t, string(body), p.URLs().CertService)
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t, Config{DataDir: t.TempDir()})
	require.NoError(t, p.Load(learnerData))
	var wg sync.WaitGroup
	var lost atomic.Int64
	p.SetFault(Fault{Operation: "certs_add", LoseReply: true, Rate: 0.1})
	for range 16 {
		wg.Go(func() {
			for range 20 {
				c := generateOne(t, p, nil)
				if status, _ := addCertificate(t, p, c.ID, ""); status == 0 {
					lost.Add(1)
				}
				call(t, "POST", p.URLs().LearnerService+"/v1/notification/email", `{"request":{"subject":"s","body":"b","recipientUserIds":["u1"]}}`)
				es(t, p, "/user-courses/_search", `{"query":{"match_all":{}}}`)
				p.Calls()
				p.CallCounts()
			}
		})
	}
	wg.Wait()
	require.Len(t, p.Registered(), 320)
	require.Len(t, p.Outbox(), 320)
	require.Equal(t, lost.Load(), p.CallCounts()[CallKey{"certs_add", 0}])
	for i, c := range p.Calls() {
		require.Equal(t, int64(i+1), c.Seq, "in order of arrival")
	}
}
