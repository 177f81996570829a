package ledger

import (
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func progressTests() map[string]func(house) {
	return map[string]func(house){
		"learners page by page":    learnersPages,
		"learners of one state":    learnersOfState,
		"a cursor that is none":    badCursor,
		"learners of no job":       learnersOfNoJob,
		"a page stays where it is": pageStays,
		"a job that stands still":  stalled,
	}
}

// mixed is a job with 7 issuances and 3 skips, one learner having both.
func mixed(h house) {
	job := aJob("job-1", func(j *issue.Job) { j.Certificates = []string{merit, "Completion"} })
	_, err := h.CreateJob(h.t.Context(), job, "", "")
	require.NoError(h.t, err)
	page := pageOf(job, "a", "b", "c", "d", "e", "g", "é")
	for _, learner := range []issue.LearnerID{"a", "f", "z"} {
		page.Skipped = append(page.Skipped, issue.Skip{Learner: learner, Certificate: "Completion", Reason: issue.SkipCriteria})
	}
	require.NoError(h.t, h.AddPage(h.t.Context(), job, page))
	for _, event := range h.take() {
		switch event.Learner {
		case "b":
			h.issue(event, "cert-b")
		case "d":
			h.fail(event)
		}
	}
}

// walk reads all pages and returns learner:state of each line, pages apart.
func (h house) walk(q issue.LearnerQuery) string {
	h.t.Helper()
	var pages []string
	for {
		page, err := h.Learners(h.t.Context(), q)
		require.NoError(h.t, err)
		require.LessOrEqual(h.t, len(page.Learners), q.Limit)
		var lines []string
		for _, l := range page.Learners {
			lines = append(lines, string(l.Learner)+":"+l.State)
		}
		pages = append(pages, strings.Join(lines, " "))
		if page.Next == "" {
			return strings.Join(pages, " / ")
		}
		require.NotEqual(h.t, q.Cursor, page.Next)
		q.Cursor = page.Next
	}
}

func learnersPages(h house) {
	mixed(h)
	const all = "a:queued a:skipped b:notified c:queued d:failed e:queued f:skipped g:queued z:skipped é:queued"
	// Among the rows of one learner the order is that of their positions.
	first := strings.Split(h.walk(issue.LearnerQuery{Job: "job-1", Limit: 100}), " ")
	if first[0] == "a:skipped" {
		first[0], first[1] = first[1], first[0]
	}
	require.Equal(h.t, all, strings.Join(first, " "))
	whole := h.walk(issue.LearnerQuery{Job: "job-1", Limit: 100})
	for limit := 1; limit <= 11; limit++ {
		got := h.walk(issue.LearnerQuery{Job: "job-1", Limit: limit})
		require.Equal(h.t, whole, strings.ReplaceAll(got, " / ", " "), "pages of %d", limit)
		require.Equal(h.t, (10+limit-1)/limit, strings.Count(got, " / ")+1, "no empty page of %d at the end", limit)
	}
}

func learnersOfState(h house) {
	mixed(h)
	for state, want := range map[string]string{
		"skipped":  "a:skipped f:skipped / z:skipped",
		"failed":   "d:failed",
		"queued":   "a:queued c:queued / e:queued g:queued / é:queued",
		"notified": "b:notified",
		"retrying": "",
	} {
		states := h.rows(`SELECT i.state FROM issuances i WHERE user_id IN ('a', 'c', 'e', 'g', 'é') GROUP BY 1`)
		require.Equal(h.t, []string{"queued"}, states)
		require.Equal(h.t, want, h.walk(issue.LearnerQuery{Job: "job-1", State: state, Limit: 2}), state)
	}
	page, err := h.Learners(h.t.Context(), issue.LearnerQuery{Job: "job-1", State: "skipped", Limit: 1})
	require.NoError(h.t, err)
	require.Equal(h.t, "criteria", page.Learners[0].Reason)
	require.Empty(h.t, page.Learners[0].Issuance)
	page, err = h.Learners(h.t.Context(), issue.LearnerQuery{Job: "job-1", State: "failed", Limit: 1})
	require.NoError(h.t, err)
	require.Equal(h.t, "template no such font", page.Learners[0].Reason+" "+page.Learners[0].Message)
	page, err = h.Learners(h.t.Context(), issue.LearnerQuery{Job: "job-1", State: "notified", Limit: 1})
	require.NoError(h.t, err)
	require.Equal(h.t, "cert-b", page.Learners[0].CertificateID)
}

func badCursor(h house) {
	mixed(h)
	for _, cursor := range []string{"%", "b", "YQ", strings.Repeat("A", 400)} {
		_, err := h.Learners(h.t.Context(), issue.LearnerQuery{Job: "job-1", Cursor: cursor, Limit: 2})
		require.Equal(h.t, issue.InvalidValueError{Parameter: "cursor", Value: cursor}, err)
	}
}

func learnersOfNoJob(h house) {
	page, err := h.Learners(h.t.Context(), issue.LearnerQuery{Job: "unheard of", Limit: 2})
	require.NoError(h.t, err)
	require.Equal(h.t, issue.LearnerPage{}, page)
}

// A cursor names a place, not a number of rows: what is added before it moves
// nothing.
func pageStays(h house) {
	job := h.resolved(aJob("job-1"), "b", "c", "d")
	page, err := h.Learners(h.t.Context(), issue.LearnerQuery{Job: "job-1", Limit: 2})
	require.NoError(h.t, err)
	h.change(`UPDATE jobs SET resolved = 0`)
	require.NoError(h.t, h.AddPage(h.t.Context(), job, pageOf(job, "a")))
	require.Equal(h.t, "d:queued", h.walk(issue.LearnerQuery{Job: "job-1", Cursor: page.Next, Limit: 2}))
}

// standStill makes it so long since anything moved.
func (h house) standStill(d time.Duration) {
	h.t.Helper()
	h.change(`UPDATE jobs SET created_at = created_at - $1`, d.Milliseconds())
	h.change(`UPDATE job_counts SET moved_at = moved_at - $1`, d.Milliseconds())
}

func stalled(h house) {
	h.resolved(aJob("job-1"), "u1")
	require.False(h.t, h.job("job-1").Stalled)
	h.standStill(301 * time.Second)
	require.True(h.t, h.job("job-1").Stalled)
	require.Equal(h.t, []string{"stalled"}, h.job("job-1").Reasons())
	h.change(`UPDATE jobs SET state = 'paused'`)
	require.False(h.t, h.job("job-1").Stalled, "people have stopped it")
	h.change(`UPDATE jobs SET state = 'running'`)
	event := h.takeOne()
	c, _ := h.claim(event, livingOne)
	h.write(way(c, "cert-1")[0])
	require.False(h.t, h.job("job-1").Stalled, "it has moved")
	for _, checkpoint := range way(c, "cert-1")[1:] {
		h.write(checkpoint)
	}
	h.standStill(time.Hour)
	require.False(h.t, h.job("job-1").Stalled, "a job that is done may rest")
}
