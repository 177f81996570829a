package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		client.CloseIdleConnections()
		os.Exit(code)
	}))
}

// client is for all tests; the platforms answer within moments, unless told otherwise.
var client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// start runs a platform for one test.
func start(tb testing.TB, cfg Config) *Platform {
	tb.Helper()
	p, err := Start(cfg)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, p.Close()) })
	return p
}

// call sends JSON and reads the answer; status 0 is no answer. It may be used from any goroutine.
func call(tb testing.TB, method, url string, body any) (int, []byte) {
	tb.Helper()
	var sent []byte
	switch b := body.(type) {
	case nil:
	case string:
		sent = []byte(b)
	default:
		sent = encode(b)
	}
	request, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(sent))
	if err != nil {
		tb.Error(err)
		return 0, nil
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer func() { _ = response.Body.Close() }()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return response.StatusCode, got
}

func TestTakenPortIsOneClearError(t *testing.T) {
	t.Parallel()
	p := start(t, Config{})
	u, err := url.Parse(p.URLs().ContentService)
	require.NoError(t, err)
	port, err := strconv.Atoi(u.Port())
	require.NoError(t, err)
	_, err = Start(Config{Ports: Ports{Content: port}})
	require.ErrorContains(t, err, "content service cannot listen on "+u.Host)
	_, err = Start(Config{Era: "2.0.0"})
	require.ErrorContains(t, err, `era "2.0.0"`)
}

func TestCloseEndsCallsThatWait(t *testing.T) {
	t.Parallel()
	p, err := Start(Config{})
	require.NoError(t, err)
	p.SetFault(Fault{Service: ContentService, Hang: true})
	p.SetFault(Fault{Service: LearnerService, Latency: time.Hour})
	var wg sync.WaitGroup
	for _, path := range []string{p.URLs().ContentService + "/content/v3/read/x", p.URLs().LearnerService + "/health"} {
		wg.Go(func() { call(t, "GET", path, nil) })
	}
	require.Eventually(t, func() bool { return len(p.Calls()) == 2 }, 5*time.Second, time.Millisecond)
	require.NoError(t, p.Close())
	wg.Wait()
	require.NoError(t, p.Close(), "a second time is nothing")
}

func TestDemoDataset(t *testing.T) {
	t.Parallel()
	d := DemoDataset("http://files")
	require.Equal(t, d, DemoDataset("http://files"), "the same at every call")
	users := map[string]User{}
	for _, u := range d.Users {
		users[u.ID] = u
	}
	require.Len(t, users, len(d.Users), "no id twice")
	per := map[string]int{}
	for _, e := range d.Enrolments {
		per[e.BatchID]++
		_, known := users[e.UserID]
		require.Equal(t, e.UserID != RoughUnknownUser, known)
		if e.BatchID == DemoBatch {
			require.NotEmpty(t, users[e.UserID].FirstName)
			require.NotEmpty(t, users[e.UserID].RootOrgID)
		}
	}
	require.Equal(t, map[string]int{DemoBatch: DemoBatchSize, LargeBatch: LargeBatchSize, TwoTemplateBatch: 60, RoughBatch: 20, BrokenTemplateBatch: 40}, per)
}

func TestCallLogIsBounded(t *testing.T) {
	t.Parallel()
	p := start(t, Config{CallLogLimit: 10, KeepBodies: true})
	for range 25 {
		call(t, "POST", p.URLs().LearnerService+"/private/user/v1/search", `{"request":{}}`)
	}
	calls := p.Calls()
	require.LessOrEqual(t, len(calls), 10)
	require.Equal(t, int64(25), calls[len(calls)-1].Seq)
	require.Equal(t, int64(25), p.CallCounts()[CallKey{"user_search", 400}])
	require.JSONEq(t, `{"request":{}}`, string(calls[0].Body))
	p.ResetCalls()
	require.Empty(t, p.Calls())
}

// BenchmarkOneCertificate is what one learner costs the platform: generate, register, one e-mail.
func BenchmarkOneCertificate(b *testing.B) {
	for name, keys := range map[string]any{"hosted": nil, "signed": map[string]string{"id": "2"}} {
		b.Run(name, func(b *testing.B) {
			p := start(b, Config{})
			require.NoError(b, p.Load(learnerData))
			body := encode(generateBody(p, map[string]any{"keys": keys}))
			post := func(url string, body []byte) []byte {
				_, got := call(b, "POST", url, string(body))
				return got
			}
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					var out struct {
						Result struct{ Response []generated }
					}
					if json.Unmarshal(post(p.URLs().CertService+"/v1/certs/generate", body), &out) != nil {
						b.Error("no certificate")
						return
					}
					c := out.Result.Response[0]
					post(p.URLs().LearnerService+"/private/user/v1/certs/add", encode(map[string]any{"request": map[string]any{
						"id": c.ID, "accessCode": c.AccessCode, "pdfURL": c.PDFURL, "userId": "u1", "jsonData": c.JSONData, "batchId": "0127", "courseId": "do_1",
					}}))
					post(p.URLs().LearnerService+"/v1/notification/email", []byte(`{"request":{"subject":"s","body":"b","recipientUserIds":["u1"]}}`))
				}
			})
			b.ReportMetric(3*float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}
