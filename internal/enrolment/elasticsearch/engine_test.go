//go:build realparts

package elasticsearch_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/enrolment/elasticsearch"
	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/parts"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

// mapping is that of the platform: not dynamic, text analysed as n-grams, each
// with a lower-cased whole value beside it.
const mapping = `{"settings":{"index":{"number_of_shards":5,"number_of_replicas":0,"max_ngram_diff":20},"analysis":{
  "analyzer":{"cs_index_analyzer":{"type":"custom","tokenizer":"standard","filter":["lowercase","mynGram"]},
              "keylower":{"tokenizer":"keyword","filter":"lowercase"}},
  "filter":{"mynGram":{"type":"ngram","min_gram":1,"max_gram":20,"token_chars":["letter","digit","whitespace","punctuation","symbol"]}}}},
 "mappings":{"dynamic":false,"properties":{
  "userId":TEXT,"batchId":TEXT,"completedOn":TEXT,
  "active":{"type":"boolean","fields":{"raw":{"type":"boolean"}}},
  "status":{"type":"long","fields":{"raw":{"type":"long"}}},
  "certificates":{"type":"nested","properties":{"name":TEXT,"token":TEXT}}}}}`

func send(t *testing.T, method, url, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := sunbirdtest.HTTPClient(t).Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Less(t, response.StatusCode, 300, "%s", answer)
	require.NotContains(t, string(answer), `"errors":true`)
}

// TestRealEngine asks a real engine the same questions as the simulated one.
func TestRealEngine(t *testing.T) {
	url := parts.SharedOpenSearch(t).URL()
	const learners = 25_000
	const index = "ecreds-test-user-courses"
	text := `{"type":"text","analyzer":"cs_index_analyzer","search_analyzer":"keylower","fields":{"raw":{"type":"text","analyzer":"keylower","fielddata":true}}}`
	send(t, "PUT", url+"/"+index, strings.ReplaceAll(mapping, "TEXT", text))
	var bulk bytes.Buffer
	add := func(user, members string) {
		fmt.Fprintf(&bulk, "{\"index\":{\"_id\":\"%s_%s\"}}\n{\"batchId\":\"%s\",\"userId\":\"%s\"%s}\n", batch, user, batch, user, members)
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
	send(t, "POST", url+"/"+index+"/_bulk?refresh=true", bulk.String())

	client, err := elasticsearch.New(elasticsearch.Config{URL: url, HTTP: sunbirdtest.HTTPClient(t), UserCourses: index, CourseBatch: index})
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

	gone, err := elasticsearch.New(elasticsearch.Config{URL: url, HTTP: sunbirdtest.HTTPClient(t), UserCourses: "ecreds-test-gone", CourseBatch: "ecreds-test-gone"})
	require.NoError(t, err)
	_, _, err = gone.Batch(t.Context(), batch)
	require.ErrorIs(t, err, issue.ErrUnavailable)
	_, err = gone.Page(t.Context(), batch, issue.Filter{}, "", 10)
	require.ErrorIs(t, err, issue.ErrUnavailable)
}
