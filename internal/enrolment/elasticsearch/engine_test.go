//go:build realparts

package elasticsearch_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/enrolment/elasticsearch"
	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/parts"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

// TestRealEngine asks a real engine the same questions as the simulated one.
func TestRealEngine(t *testing.T) {
	const learners = 25_000
	const index = "ecreds-test-user-courses"
	engine := parts.SharedOpenSearch(t)
	engine.CreateIndex(t, index)
	documents := make(map[string]json.RawMessage)
	add := func(user, members string) {
		documents[string(batch)+"_"+user] = fmt.Appendf(nil, `{"batchId":%q,"userId":%q%s}`, batch, user, members)
	}
	want := make(map[issue.LearnerID]bool)
	for n := range learners {
		user := fmt.Sprintf("U%05d", n)
		add(user, `,"active":true,"status":2,"completedOn":"1566368430000"`)
		want[issue.LearnerID(user)] = true
	}
	add("v-inactive", `,"active":false,"status":2,"completedOn":"1566368430000"`)
	add("v-null", `,"active":null,"status":2`)
	add("v-absent", ``)
	add("v-busy", `,"active":true,"status":1`)
	add("v-nostatus", `,"active":true,"status":null`)
	add("v-undated", `,"active":true,"status":2`)
	add("v-datenull", `,"active":true,"status":2,"completedOn":null`)
	add("v-empty", `,"active":true,"status":2,"completedOn":""`)
	add("w-odd", `,"active":true,"status":2,"completedOn":"2019-08-21 06:20:30:000+0000"`)
	add("w-number", `,"active":true,"status":2,"completedOn":1566368430000`)
	add("w-holder", `,"active":true,"status":2,"completedOn":"1566368430000","certificates":[{"name":"c","id":"i"}]`)
	add("w-none", `,"active":true,"status":2,"completedOn":"1566368430000","certificates":[]`)
	engine.Put(t, index, documents)

	client, err := elasticsearch.New(elasticsearch.Config{URL: engine.URL(), HTTP: sunbirdtest.HTTPClient(t), UserCourses: index, CourseBatch: index})
	require.NoError(t, err)
	count, err := client.Count(t.Context(), batch, issue.Filter{}, nil)
	require.NoError(t, err)
	assert.Equal(t, learners+4, count.Eligible)
	assert.True(t, count.Estimate)
	assert.Equal(t, 3, count.Skipped[issue.SkipInactive])
	assert.Equal(t, 2, count.Skipped[issue.SkipStatus])
	assert.Equal(t, 3, count.Skipped[issue.SkipNoCompletionDate])

	for name, tt := range map[string]struct {
		learners []issue.LearnerID
		estimate bool
		absent   int
	}{
		"plain":  {[]issue.LearnerID{"U00001", "u00001", "w-number", "w-none", "x"}, false, 1},
		"odd":    {[]issue.LearnerID{"w-odd"}, true, 0},
		"holder": {[]issue.LearnerID{"w-holder"}, true, 0},
		"many":   {append(numbered(25_000), numbered(25_000)...), false, 0},
	} {
		count, err = client.Count(t.Context(), batch, issue.Filter{Learners: tt.learners}, nil)
		require.NoError(t, err, name)
		assert.Equal(t, tt.estimate, count.Estimate, name)
		assert.Equal(t, tt.absent, count.Skipped[issue.SkipNotEnrolled], name)
	}

	seen := make(map[issue.LearnerID]bool)
	for cursor := ""; ; {
		page, err := client.Page(t.Context(), batch, issue.Filter{}, cursor, 1000)
		require.NoError(t, err)
		for _, e := range page.Enrolments {
			require.False(t, seen[e.Learner])
			seen[e.Learner] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	assert.Len(t, seen, learners+4+3)
	for learner := range want {
		require.True(t, seen[learner])
	}

	holder, found, err := client.Learner(t.Context(), batch, "w-holder")
	require.NoError(t, err)
	assert.True(t, found)
	assert.Equal(t, []issue.HeldCertificate{{Name: "c", ID: "i"}}, holder.Held)
	_, found, err = client.Learner(t.Context(), batch, "w-nobody")
	require.NoError(t, err)
	assert.False(t, found)
	_, found, err = client.Batch(t.Context(), "nobody's")
	require.NoError(t, err)
	assert.False(t, found)
	require.NoError(t, client.Ping(t.Context()))

	gone, err := elasticsearch.New(elasticsearch.Config{URL: engine.URL(), HTTP: sunbirdtest.HTTPClient(t), UserCourses: "ecreds-test-gone", CourseBatch: "ecreds-test-gone"})
	require.NoError(t, err)
	_, _, err = gone.Batch(t.Context(), batch)
	require.ErrorIs(t, err, issue.ErrUnavailable)
	_, err = gone.Page(t.Context(), batch, issue.Filter{}, "", 10)
	require.ErrorIs(t, err, issue.ErrUnavailable)
}
