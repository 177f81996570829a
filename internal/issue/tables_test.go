package issue

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"
)

func TestNewIssuanceID(t *testing.T) {
	t.Parallel()
	// The platform's own example of an event.
	require.Equal(t, IssuanceID("c4e6a3a954380f43cb1dec0d5f4cd4158d2376fecd592ea4c0fe3f658a686a67"),
		NewIssuanceID("0128821148183429120", "95e4942d-cbe8-477d-aebd-ad8e6de4bfc8", "100PercentCompletionCertificate"))
	require.NotEqual(t, NewIssuanceID("b", "u", "Merit"), NewIssuanceID("b", "u", "merit"))
}

func TestNewMID(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1566372109689)
	require.Regexp(t, `^LP\.1566372109689\.[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, NewMID(at))
	first := NewMID(at)
	require.NotEqual(t, first, NewMID(at))
}

func TestParseCompletedOn(t *testing.T) {
	t.Parallel()
	at := time.Date(2019, 8, 21, 7, 21, 49, 689e6, time.UTC)
	second := at.Truncate(time.Second)
	day := time.Date(2019, 8, 21, 0, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		text string
		want time.Time // zero = none
	}{
		"epoch milliseconds":           {"1566372109689", at},
		"with spaces around":           {" 1566372109689\n", at},
		"the platform's text":          {"2019-08-21 07:21:49:689+0000", at},
		"the same in India":            {"2019-08-21 12:51:49:689+0530", at},
		"west of Greenwich":            {"2019-08-21 00:21:49:689-0700", at},
		"a point before the millis":    {"2019-08-21 07:21:49.689+0000", at},
		"no millis":                    {"2019-08-21 12:51:49+0530", second},
		"no zone is UTC":               {"2019-08-21 07:21:49", second},
		"RFC 3339":                     {"2019-08-21T12:51:49.689+05:30", at},
		"RFC 3339, Z":                  {"2019-08-21T07:21:49Z", second},
		"finer than a millisecond":     {"2019-08-21T07:21:49.689987Z", at},
		"ISO without a colon":          {"2019-08-21T12:51:49.689+0530", at},
		"ISO without millis and colon": {"2019-08-21T12:51:49+0530", second},
		"a day":                        {"2019-08-21", day},
		"a leap day":                   {"2020-02-29", time.Date(2020, 2, 29, 0, 0, 0, 0, time.UTC)},
		"no leap day":                  {"2019-02-29", time.Time{}},
		"empty":                        {"", time.Time{}},
		"null as text":                 {"null", time.Time{}},
		"as Java prints a double":      {"1.566372109689E12", at},
		"seconds":                      {"1566372109", time.Time{}},
		"microseconds":                 {"1566372109689000", time.Time{}},
		"negative":                     {"-1566372109689", time.Time{}},
		"zero":                         {"0", time.Time{}},
		"beyond any number":            {"99999999999999999999", time.Time{}},
		"none, as programs write it":   {"0001-01-01T00:00:00Z", time.Time{}},
		"the epoch as a date":          {"1970-01-01", time.Time{}},
		"the day first":                {"21-08-2019", time.Time{}},
		"something behind it":          {"2019-08-21 07:21:49:689+0000 x", time.Time{}},
		"no digits behind the colon":   {"2019-08-21 07:21:49:", time.Time{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParseCompletedOn(test.text)
			require.Equal(t, !test.want.IsZero(), ok)
			require.Equal(t, test.want, got)
		})
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	completed := time.UnixMilli(1566372109689).UTC()
	good := Enrolment{Learner: "u1", Active: true, Status: 2, CompletedOn: "1566372109689"}
	with := func(change func(*Enrolment)) Enrolment {
		e := good
		change(&e)
		return e
	}
	tests := map[string]struct {
		filter    Filter
		enrolment Enrolment
		want      SkipReason
	}{
		"completed":                 {Filter{}, good, ""},
		"not active":                {Filter{}, with(func(e *Enrolment) { e.Active, e.Status = false, 1 }), SkipInactive},
		"in progress":               {Filter{}, with(func(e *Enrolment) { e.Status, e.CompletedOn = 1, "" }), SkipStatus},
		"in progress, as asked":     {Filter{Statuses: []int{1}}, with(func(e *Enrolment) { e.Status = 1 }), ""},
		"completed, but not asked":  {Filter{Statuses: []int{0, 1}}, good, SkipStatus},
		"no date":                   {Filter{}, with(func(e *Enrolment) { e.CompletedOn = " " }), SkipNoCompletionDate},
		"a date that is none":       {Filter{}, with(func(e *Enrolment) { e.CompletedOn = "soon" }), SkipBadCompletionDate},
		"exactly from":              {Filter{CompletedFrom: completed}, good, ""},
		"before from":               {Filter{CompletedFrom: completed.Add(1)}, good, SkipFiltered},
		"exactly to":                {Filter{CompletedTo: completed}, good, SkipFiltered},
		"just before to":            {Filter{CompletedTo: completed.Add(1)}, good, ""},
		"between":                   {Filter{CompletedFrom: completed, CompletedTo: completed.Add(1)}, good, ""},
		"a bad date beats a filter": {Filter{CompletedTo: completed}, with(func(e *Enrolment) { e.CompletedOn = "soon" }), SkipBadCompletionDate},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, why := test.filter.Judge(test.enrolment)
			require.Equal(t, test.want, why)
			require.Equal(t, why == "", at.Equal(completed))
			require.Contains(t, append(SkipReasons(), ""), why, "the list is closed")
		})
	}
}

func TestNarrowsDates(t *testing.T) {
	t.Parallel()
	require.False(t, Filter{Statuses: []int{1}, Learners: []LearnerID{"u"}}.NarrowsDates())
	require.True(t, Filter{CompletedFrom: time.Now()}.NarrowsDates())
	require.True(t, Filter{CompletedTo: time.Now()}.NarrowsDates())
}

func TestNames(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ first, last, full, given string }{
		"both":               {"Asha", "Rao", "Asha Rao", "Asha"},
		"spaces around":      {" Asha ", "  Rao ", "Asha Rao", "Asha"},
		"a space within":     {"Asha  Devi", "Rao", "Asha  Devi Rao", "Asha  Devi"},
		"no last name":       {"Asha", "", "Asha", "Asha"},
		"last name null":     {"Asha", "null", "Asha", "Asha"},
		"first name null":    {"NULL", "Rao", "Rao", "Rao"},
		"neither":            {"null", " null ", "", ""},
		"null within a name": {"Nullah", "Nullson", "Nullah Nullson", "Nullah"},
		"other script":       {"आशा", "राव", "आशा राव", "आशा"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := Recipient{FirstName: test.first, LastName: test.last}
			require.Equal(t, test.full, r.FullName())
			require.Equal(t, test.given, r.GivenName())
		})
	}
}

func TestJobProgress(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		job     Job
		counts  map[State]int
		stalled bool
		done    bool
		reasons []string
	}{
		"nobody yet, not read":     {Job{State: JobRunning}, nil, false, false, nil},
		"nobody, read":             {Job{State: JobRunning, Resolved: true}, nil, false, true, nil},
		"all notified":             {Job{State: JobRunning, Resolved: true}, map[State]int{Notified: 3}, false, true, nil},
		"some failed":              {Job{State: JobRunning, Resolved: true}, map[State]int{Notified: 3, Failed: 1}, false, true, []string{"failed"}},
		"waiting for another try":  {Job{State: JobRunning, Resolved: true}, map[State]int{Notified: 3, Retrying: 1}, false, false, nil},
		"registered is not all":    {Job{State: JobRunning, Resolved: true}, map[State]int{Registered: 1}, false, false, nil},
		"more learners to come":    {Job{State: JobRunning}, map[State]int{Notified: 3}, false, false, nil},
		"paused is not done":       {Job{State: JobPaused, Resolved: true}, map[State]int{Notified: 3}, false, false, nil},
		"stands still, and failed": {Job{State: JobRunning}, map[State]int{Queued: 1, Failed: 2}, true, false, []string{"failed", "stalled"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := JobProgress{Job: test.job, Counts: test.counts, Stalled: test.stalled}
			require.Equal(t, test.done, p.Done())
			require.Equal(t, test.reasons, p.Reasons())
		})
	}
}

func TestAsFailure(t *testing.T) {
	t.Parallel()
	classified := permanent(ReasonTemplate)
	require.Same(t, classified, AsFailure(fmt.Errorf("wrapped: %w", classified)))
	unclassified := AsFailure(errors.New("anything"))
	require.Equal(t, Transient, unclassified.Verdict, "repeating is safe, dropping is not")
	require.Equal(t, ReasonOther, unclassified.Reason)
	require.Equal(t, ReasonTimeout, AsFailure(fmt.Errorf("call: %w", timeout())).Reason)
	require.Equal(t, "HTTP 400: is wrong (template)", classified.Error())
	require.Contains(t, (&Failure{Reason: ReasonOther, Err: errors.New("its cause")}).Error(), "its cause")
}

func timeout() error { return errorTimeout{} }

type errorTimeout struct{}

func (errorTimeout) Error() string        { return "took too long" }
func (errorTimeout) Is(target error) bool { return target.Error() == "context deadline exceeded" }

func TestJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rounds = 2000
		bounds := []int{200, 400, 800, 1600, 3200, 4000, 4000, 4000} // ms
		longest, shortest := make([]time.Duration, len(bounds)), make([]time.Duration, len(bounds))
		for range rounds {
			j := newJitter(time.Hour)
			for i, bound := range bounds {
				wait := j.NextBackOff()
				require.GreaterOrEqual(t, wait, time.Duration(0))
				require.Less(t, wait, millis(bound))
				longest[i] = max(longest[i], wait)
				if shortest[i] == 0 || wait < shortest[i] {
					shortest[i] = wait
				}
			}
		}
		for i, bound := range bounds { // full jitter: from nothing up to the bound
			require.Greater(t, longest[i], millis(bound*95/100))
			require.Less(t, shortest[i], millis(bound*5/100))
		}
	})
}

func millis(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func TestJitterKeepsToRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newJitter(10 * time.Second)
		j.atLeast(3 * time.Second)
		require.Equal(t, 3*time.Second, j.NextBackOff())
		j.atLeast(0) // the next answer named none
		require.Less(t, j.NextBackOff(), 3*time.Second)
		j.atLeast(10*time.Second + 1)
		require.Equal(t, backoff.Stop, j.NextBackOff(), "no try starts beyond patience")
	})
}

func TestJitterStopsWithPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		j := newJitter(10 * time.Second)
		for {
			wait := j.NextBackOff()
			if wait == backoff.Stop {
				break
			}
			time.Sleep(wait) //nolint:forbidigo // fake clock
			require.LessOrEqual(t, time.Since(begun), 10*time.Second)
		}
		require.Greater(t, time.Since(begun), 5*time.Second, "it stops no sooner than it must")
	})
}

func TestClosedLists(t *testing.T) {
	t.Parallel()
	require.Len(t, Reasons(), 19)
	require.Equal(t, "queued generating generated registering registered recording recorded notifying notified retrying failed",
		strings.Trim(fmt.Sprint(States()), "[]"))
	require.Equal(t, []Step{"decode", "generate", "register", "record", "notify"}, Steps())
	require.Equal(t, []Verdict{"done", "transient", "permanent", "outage"}, Verdicts())
	require.Equal(t, []JobState{"running", "paused", "cancelled", "done"}, JobStates())
	require.Len(t, SkipReasons(), 8)
}
