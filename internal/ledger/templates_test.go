package ledger

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func templateTests() map[string]func(house) {
	return map[string]func(house){
		"a new template breaks after a few":             newTemplateBreaks,
		"a proven template breaks after more":           provenTemplateBreaks,
		"a success ends the row of failures":            successEndsRow,
		"nothing of a broken template is due but one":   probesOnly,
		"a broken template holds back nobody else":      othersGoOn,
		"a mended template lets all go on":              mended,
		"a template of one job says nothing of another": perJob,
	}
}

const other = "Other"

var meritOfOne = issue.TemplateUse{Job: "job-1", Certificate: merit}

// doubt counts learners against a template and returns how it stands then.
func (h house) doubt(use issue.TemplateUse, learners ...issue.LearnerID) issue.TemplateStanding {
	h.t.Helper()
	var standing issue.TemplateStanding
	for _, learner := range learners {
		var err error
		standing, err = h.TemplateFailed(h.t.Context(), use, learner)
		require.NoError(h.t, err)
	}
	return standing
}

// prove lets the template make a certificate for an event.
func (h house) prove(event issue.Event) {
	h.t.Helper()
	c, _ := h.claim(event, livingOne)
	checkpoint := way(c, "cert-1")[1]
	checkpoint.Proven = &issue.TemplateUse{Job: event.Job, Certificate: event.Certificate}
	h.write(checkpoint)
}

func (h house) broken(job issue.JobID) bool {
	h.t.Helper()
	got := h.job(job)
	require.Equal(h.t, got.Broken, len(got.Reasons()) == 1 && got.Reasons()[0] == "template")
	return got.Broken
}

func newTemplateBreaks(h house) {
	h.resolved(aJob("job-1"), "u1")
	require.Zero(h.t, h.doubt(meritOfOne, "u1", "u1", "u1", "u2", "u2", "u3", "u4"), "the same learners count once")
	require.False(h.t, h.broken("job-1"))
	standing := h.doubt(meritOfOne, "u5")
	require.WithinDuration(h.t, time.Now(), standing.BrokenAt, time.Minute)
	require.True(h.t, h.broken("job-1"))
	require.Equal(h.t, standing, h.doubt(meritOfOne, "u6"), "it broke when it broke")
}

func provenTemplateBreaks(h house) {
	h.resolved(aJob("job-1"), "u1")
	h.prove(h.takeOne())
	all := many("u", issue.DoubtsInAProven)
	require.Equal(h.t, issue.TemplateStanding{Proven: true}, h.doubt(meritOfOne, all[:len(all)-1]...))
	require.False(h.t, h.doubt(meritOfOne, all...).BrokenAt.IsZero())
	require.True(h.t, h.broken("job-1"))
}

func successEndsRow(h house) {
	h.resolved(aJob("job-1"), "u1")
	h.doubt(meritOfOne, many("u", issue.DoubtsInANew-1)...)
	h.prove(h.takeOne())
	require.Empty(h.t, h.rows(`SELECT user_id FROM template_doubts`))
	require.Equal(h.t, issue.TemplateStanding{Proven: true}, h.doubt(meritOfOne, "x1"))
}

// turnedIn takes an event back in, as a worker does whose template failed.
func (h house) turnedIn(event issue.Event) {
	h.t.Helper()
	c, _ := h.claim(event, livingOne)
	h.write(issue.Checkpoint{
		Claim: c, State: issue.Retrying, Step: issue.StepGenerate, Reason: issue.ReasonTemplate, Rest: true,
		Due: time.Now().Add(-time.Millisecond),
	})
}

// probeNow lets the time of the next probe come.
func (h house) probeNow() {
	h.t.Helper()
	h.change(`UPDATE templates SET probe_at = probe_at - 30001 WHERE probe_at IS NOT NULL`)
}

func probesOnly(h house) {
	h.resolved(aJob("job-1"), many("u", 6)...)
	h.doubt(meritOfOne, many("u", issue.DoubtsInANew)...)
	require.Empty(h.t, h.take())
	seen := map[issue.LearnerID]bool{}
	for range 6 {
		h.probeNow()
		event := h.takeOne()
		require.False(h.t, seen[event.Learner], "another learner each time")
		seen[event.Learner] = true
		require.Empty(h.t, h.take(), "one probe")
		h.turnedIn(event)
	}
	require.False(h.t, h.job("job-1").Done())
}

func othersGoOn(h house) {
	both := aJob("job-1")
	both.Certificates = []string{merit, other}
	_, err := h.CreateJob(h.t.Context(), both, "", "")
	require.NoError(h.t, err)
	page := pageOf(both, "u1", "u2")
	for _, learner := range []issue.LearnerID{"u1", "u2"} {
		page.Wanted = append(page.Wanted, issue.Wanted{
			ID: issue.NewIssuanceID(batch, learner, other), Learner: learner, Certificate: other, CompletedOn: time.UnixMilli(1),
		})
	}
	require.NoError(h.t, h.AddPage(h.t.Context(), both, page))
	h.resolved(aJob("job-2"), "u7")
	first := h.take()
	require.Len(h.t, first, 5)
	for _, event := range first { // one of the broken template has his certificate already
		if event.Certificate == merit && event.Job == "job-1" && event.Learner == "u1" {
			c, _ := h.claim(event, livingOne)
			h.write(way(c, "cert-1")[1])
			h.write(issue.Checkpoint{
				Claim: c, State: issue.Retrying, Step: issue.StepRegister, Rest: true, Due: time.Now().Add(-time.Millisecond),
			})
			continue
		}
		h.turnedIn(event)
	}
	h.doubt(meritOfOne, many("u", issue.DoubtsInANew)...)
	var got []string
	for _, event := range h.take() {
		got = append(got, fmt.Sprint(event.Job, event.Certificate, event.Learner))
	}
	require.ElementsMatch(h.t, []string{"job-1Otheru1", "job-1Otheru2", "job-1Meritu1", "job-2Meritu7"}, got)
}

func mended(h house) {
	h.resolved(aJob("job-1"), many("u", 4)...)
	h.doubt(meritOfOne, many("u", issue.DoubtsInANew)...)
	h.probeNow()
	h.prove(h.takeOne())
	require.False(h.t, h.broken("job-1"))
	require.Len(h.t, h.take(), 3)
}

func perJob(h house) {
	h.resolved(aJob("job-1"), "u1")
	h.resolved(aJob("job-2"), "u2")
	h.doubt(meritOfOne, many("u", issue.DoubtsInANew)...)
	require.Equal(h.t, issue.JobID("job-2"), h.takeOne().Job)
	require.False(h.t, h.broken("job-2"))
	require.Zero(h.t, h.doubt(issue.TemplateUse{Job: "job-2", Certificate: merit}, "u1"))
}
