package elasticsearch_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/simulator"
)

func platform(t *testing.T, data simulator.Dataset) *simulator.Platform {
	t.Helper()
	p, err := simulator.Start(simulator.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	require.NoError(t, p.Load(data))
	return p
}

// TestLargeBatch pages through a batch that is larger than the search engine's
// window: everybody once, nobody else.
func TestLargeBatch(t *testing.T) {
	t.Parallel()
	const learners = 25_000
	data := simulator.Dataset{Batches: []simulator.Batch{{ID: string(batch), CourseID: "do_1", CreatedBy: "u9", Mentors: []string{"m1"}}}}
	want := make(map[issue.LearnerID]bool)
	for n := range learners {
		e := simulator.Enrolment{
			BatchID: string(batch), UserID: fmt.Sprintf("u%05d", (n*7919)%learners), CourseID: "do_1",
			Active: n%10 != 0, Status: 2 - n%5/4, CompletedOn: "1566368430000",
		}
		if e.Active && e.Status == 2 {
			want[issue.LearnerID(e.UserID)] = true
		}
		data.Enrolments = append(data.Enrolments, e, simulator.Enrolment{
			BatchID: "other", UserID: e.UserID, Active: true, Status: 2, CompletedOn: "1566368430000",
		})
	}
	client := newClient(t, platform(t, data).URLs().Elasticsearch)
	seen := make(map[issue.LearnerID]bool)
	pages, last := 0, issue.LearnerID("")
	for cursor := ""; ; pages++ {
		page, err := client.Page(t.Context(), batch, issue.Filter{}, cursor, 1000)
		require.NoError(t, err)
		for _, e := range page.Enrolments {
			require.False(t, seen[e.Learner], "%s comes twice", e.Learner)
			require.Greater(t, e.Learner, last)
			require.True(t, want[e.Learner], "%s is not eligible", e.Learner)
			seen[e.Learner], last = true, e.Learner
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	assert.Len(t, seen, len(want))
	assert.Equal(t, len(want)/1000, pages)

	count, err := client.Count(t.Context(), batch, issue.Filter{}, nil)
	require.NoError(t, err)
	assert.Equal(t, len(want), count.Eligible)
	assert.False(t, count.Estimate)

	got, found, err := client.Batch(t.Context(), batch)
	require.NoError(t, err)
	assert.True(t, found)
	assert.Equal(t, issue.Batch{ID: batch, Course: "do_1", Creator: "u9", Mentors: []issue.LearnerID{"m1"}}, got)
	_, found, err = client.Batch(t.Context(), "nobody's")
	require.NoError(t, err)
	assert.False(t, found)
	require.NoError(t, client.Ping(t.Context()))
}

// TestCountAgreesWithTheCore: where the count says it is no estimate, judging
// each enrolment gives the same numbers.
func TestCountAgreesWithTheCore(t *testing.T) {
	t.Parallel()
	var data simulator.Dataset
	add := func(user string, active bool, status int, completedOn string, held ...string) {
		e := simulator.Enrolment{BatchID: string(batch), UserID: user, Active: active, Status: status, CompletedOn: completedOn}
		for _, name := range held {
			e.Certificates = append(e.Certificates, simulator.EnrolmentCertificate{Name: name, ID: "old-" + name})
		}
		data.Enrolments = append(data.Enrolments, e)
	}
	add("good-1", true, 2, "1566368430000")
	add("Good-2", true, 2, "1566368430000")
	add("gone", false, 2, "1566368430000")
	add("gone-busy", false, 1, "")
	add("busy", true, 1, "1566368430000")
	add("undated", true, 2, "")
	add("odd", true, 2, "2019-08-21 06:20:30:000+0000")
	add("holder", true, 2, "1566368430000", "c")
	p := platform(t, data)
	client := newClient(t, p.URLs().Elasticsearch)
	plain := []issue.LearnerID{"good-1", "good-2", "gone", "gone-busy", "busy", "undated"}
	for name, tt := range map[string]struct {
		filter   issue.Filter
		eligible int
		estimate bool
		skipped  map[issue.SkipReason]int
	}{
		"everybody": {issue.Filter{}, 4, true, map[issue.SkipReason]int{
			issue.SkipInactive: 2, issue.SkipStatus: 1, issue.SkipNoCompletionDate: 1,
		}},
		"without odd ones": {issue.Filter{Learners: plain}, 2, false, map[issue.SkipReason]int{
			issue.SkipInactive: 2, issue.SkipStatus: 1, issue.SkipNoCompletionDate: 1,
		}},
		"not enrolled": {issue.Filter{Learners: []issue.LearnerID{"GOOD-1", "good-1", "x", "y"}}, 1, false, map[issue.SkipReason]int{
			issue.SkipNotEnrolled: 2,
		}},
		"another status": {issue.Filter{Statuses: []int{1}, Learners: plain}, 1, false, map[issue.SkipReason]int{
			issue.SkipInactive: 2, issue.SkipStatus: 3,
		}},
		"a holder":   {issue.Filter{Learners: []issue.LearnerID{"holder"}}, 1, true, nil},
		"an odd one": {issue.Filter{Learners: []issue.LearnerID{"odd"}}, 1, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := client.Count(t.Context(), batch, tt.filter, []string{"c"})
			require.NoError(t, err)
			assert.Equal(t, tt.eligible, got.Eligible)
			assert.Equal(t, tt.estimate, got.Estimate)
			for _, reason := range issue.SkipReasons() {
				assert.Contains(t, got.Skipped, reason)
				assert.Equal(t, tt.skipped[reason], got.Skipped[reason], reason)
			}
		})
	}

	holder, found, err := client.Learner(t.Context(), batch, "holder")
	require.NoError(t, err)
	assert.True(t, found)
	assert.Equal(t, []issue.HeldCertificate{{Name: "c", ID: "old-c"}}, holder.Held)
	good, found, err := client.Learner(t.Context(), batch, "Good-2")
	require.NoError(t, err)
	assert.True(t, found)
	completed, why := issue.Filter{}.Judge(good)
	assert.Empty(t, why)
	assert.True(t, completed.Equal(time.UnixMilli(1566368430000)))
	_, found, err = client.Learner(t.Context(), batch, "nobody")
	require.NoError(t, err)
	assert.False(t, found)
}

func TestSearchEngineAway(t *testing.T) {
	t.Parallel()
	p := platform(t, simulator.Dataset{})
	client := newClient(t, p.URLs().Elasticsearch)
	require.NoError(t, client.Ping(t.Context()))
	p.SetFault(simulator.Fault{Service: simulator.Elasticsearch, Outage: true})
	require.ErrorIs(t, client.Ping(t.Context()), issue.ErrUnavailable)
	_, _, err := client.Batch(t.Context(), batch)
	require.ErrorIs(t, err, issue.ErrUnavailable)
	p.ClearFaults()
	require.NoError(t, client.Ping(t.Context()))
}
