package sunbird_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

// service answers as it is told and counts its calls.
type service struct {
	*httptest.Server
	reply atomic.Int64 // a status; 0 cuts the connection
	after http.Header
	calls atomic.Int64
}

func newService(t *testing.T, reply int) *service {
	t.Helper()
	s := &service{}
	s.reply.Store(int64(reply))
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.calls.Add(1)
	status := int(s.reply.Load())
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	for name, values := range s.after {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
}

// gated is a client behind a gate, with what the gate told.
type gated struct {
	*sunbird.Client
	changes  []bool
	registry *prometheus.Registry
}

func newGated(t *testing.T, url string, change ...func(*sunbird.GateConfig)) *gated {
	t.Helper()
	g := &gated{registry: prometheus.NewRegistry()}
	config := sunbird.GateConfig{
		Downstream: sunbird.Cert, Service: "some-service", Concurrency: 64,
		OnChange: func(open bool) { g.changes = append(g.changes, open) }, Metrics: sunbird.NewMetrics(g.registry),
	}
	for _, c := range change {
		c(&config)
	}
	client, err := sunbird.NewClient(sunbird.Config{
		Service: "some-service", URL: url, Timeout: time.Minute, HTTP: sunbirdtest.HTTPClient(t),
		Gate: sunbird.NewGate(config),
	})
	require.NoError(t, err)
	g.Client = client
	return g
}

// call makes a call that may fail in any way.
func (g *gated) call(t *testing.T, suspect string) error {
	t.Helper()
	_, err := g.Do(t.Context(), sunbird.Call{Method: http.MethodPost, Path: "/x", Suspect: suspect})
	return err
}

// requireAway calls once more and expects to be refused for an outage.
func (g *gated) requireAway(t *testing.T, words string) {
	t.Helper()
	failure := issue.AsFailure(g.call(t, ""))
	require.Equal(t, issue.Outage, failure.Verdict)
	require.True(t, failure.Unsent)
	require.Zero(t, failure.HTTPStatus)
	require.Contains(t, failure.Message, "some-service is away since ")
	require.Contains(t, failure.Message, words)
	require.Equal(t, []bool{true}, g.changes)
	require.NoError(t, testutil.GatherAndCompare(g.registry, strings.NewReader(`# HELP ecreds_breaker_open 1 while a service is away or refuses our credentials.
# TYPE ecreds_breaker_open gauge
ecreds_breaker_open{downstream="cert"} 1
ecreds_breaker_open{downstream="content"} 0
ecreds_breaker_open{downstream="enrolment"} 0
ecreds_breaker_open{downstream="learner"} 0
ecreds_breaker_open{downstream="notify"} 0
`), "ecreds_breaker_open"))
}

func TestOutagesOpenTheBreaker(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reply  int
		reason issue.Reason
		words  string
	}{
		"502":      {502, issue.ReasonUnavailable, "HTTP 502"},
		"503":      {503, issue.ReasonUnavailable, "HTTP 503"},
		"504":      {504, issue.ReasonTimeout, "HTTP 504"},
		"401":      {401, issue.ReasonCredentials, "HTTP 401"},
		"403":      {403, issue.ReasonCredentials, "HTTP 403"},
		"no reply": {0, issue.ReasonUnavailable, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, test.reply)
			g := newGated(t, s.URL)
			for range 5 {
				require.Empty(t, g.changes, "fewer are chance")
				_ = g.call(t, "")
			}
			g.requireAway(t, test.words)
			require.Equal(t, test.reason, issue.AsFailure(g.call(t, "")).Reason)
			require.EqualValues(t, 5, s.calls.Load(), "nothing is sent any more")
		})
	}
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, listener.Close())
		g := newGated(t, "http://"+listener.Addr().String())
		for range 5 {
			_ = g.call(t, "")
		}
		g.requireAway(t, "refused")
	})
}

func TestWhatIsNoOutageOpensNothing(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 302, 400, 404, 408, 409, 500, 501} {
		s := newService(t, status)
		g := newGated(t, s.URL)
		for range 20 {
			require.NoError(t, g.call(t, ""))
		}
		assert.EqualValues(t, 20, s.calls.Load(), "status %d", status)
		assert.Empty(t, g.changes, "status %d", status)
	}
	t.Run("an outage now and then", func(t *testing.T) {
		t.Parallel()
		s := newService(t, 0)
		g := newGated(t, s.URL)
		for range 5 {
			s.reply.Store(0)
			for range 4 {
				require.Error(t, g.call(t, ""))
			}
			s.reply.Store(500)
			require.NoError(t, g.call(t, ""))
		}
		require.Empty(t, g.changes)
	})
	t.Run("one suspect without reply", func(t *testing.T) {
		t.Parallel()
		s := newService(t, 0)
		g := newGated(t, s.URL)
		for range 20 {
			failure := issue.AsFailure(g.call(t, "template 1"))
			require.Equal(t, issue.Transient, failure.Verdict, "it may be the template's fault")
			require.Equal(t, issue.ReasonTimeout, failure.Reason)
		}
		require.Empty(t, g.changes)
	})
}

func TestTwoSuspectsWithoutReplyAreAnOutage(t *testing.T) {
	t.Parallel()
	s := newService(t, 0)
	g := newGated(t, s.URL)
	verdict := func(suspect string) issue.Verdict { return issue.AsFailure(g.call(t, suspect)).Verdict }
	require.Equal(t, issue.Transient, verdict("template 1"))
	require.Equal(t, issue.Outage, verdict("template 2"))
	s.reply.Store(200)
	require.NoError(t, g.call(t, "template 3"))
	s.reply.Store(0)
	require.Equal(t, issue.Transient, verdict("template 2"), "what was before the last answer is forgotten")
	for range 5 {
		require.Empty(t, g.changes)
		require.Equal(t, issue.Outage, verdict("template 1"))
	}
	g.requireAway(t, "EOF")
}

// TestWorkResumesSoonAfterAnOutage is in real time: it is the promise.
func TestWorkResumesSoonAfterAnOutage(t *testing.T) {
	t.Parallel()
	s := newService(t, 503)
	g := newGated(t, s.URL)
	begun := time.Now()
	for time.Since(begun) < 2*time.Second {
		_ = g.call(t, "")
	}
	require.LessOrEqual(t, s.calls.Load(), int64(5+2*3), "while it is away, it is only probed")
	s.reply.Store(200)
	ended, before := time.Now(), s.calls.Load()
	require.Eventually(t, func() bool { return g.call(t, "") == nil && s.calls.Load() > before }, 5*time.Second, 5*time.Millisecond)
	require.Less(t, time.Since(ended), 5*time.Second)
	require.Equal(t, []bool{true, false}, g.changes, "told once each")
	for range 10 {
		require.NoError(t, g.call(t, ""), "the first success closes it for all")
	}
}

// TestAPersonsCallIsTried: who waits for the answer is not refused for a moment
// in which the service may be back already.
func TestAPersonsCallIsTried(t *testing.T) {
	t.Parallel()
	s := newService(t, 503)
	g := newGated(t, s.URL, func(c *sunbird.GateConfig) { c.Insistent = true })
	for range 20 {
		answer, err := g.Do(t.Context(), get)
		require.NoError(t, err)
		require.Equal(t, 503, answer.Status)
	}
	require.Equal(t, []bool{true}, g.changes)
	s.reply.Store(200)
	require.NoError(t, g.call(t, ""))
	require.Equal(t, []bool{true, false}, g.changes)
}

func TestAServiceThatAsksForAPauseGetsIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status     int
		retryAfter string
		pause      time.Duration
	}{
		"429":                      {429, "", time.Second},
		"429 with Retry-After":     {429, "7", 7 * time.Second},
		"503 with Retry-After":     {503, "7", 7 * time.Second},
		"more than is reasonable":  {429, "3000", 30 * time.Second},
		"a Retry-After of nothing": {429, "0", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, test.status)
			if test.retryAfter != "" {
				s.after = http.Header{"Retry-After": {test.retryAfter}}
			}
			g := newGated(t, s.URL)
			require.NoError(t, g.call(t, ""))
			var none *issue.NoPlaceError
			require.ErrorAs(t, g.call(t, ""), &none)
			require.InDelta(t, test.pause, none.RetryAfter, float64(500*time.Millisecond))
			require.Empty(t, g.changes, "this is no outage")
			require.EqualValues(t, 1, s.calls.Load())
		})
	}
}
