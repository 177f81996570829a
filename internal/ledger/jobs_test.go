package ledger

import (
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func jobTests() map[string]func(house) {
	return map[string]func(house){
		"a job is kept as it was accepted":           jobIsKept,
		"an idempotency key makes one job":           keyMakesOneJob,
		"an idempotency key of another request":      keyOfAnotherRequest,
		"pages of a fan-out":                         pagesOfAFanOut,
		"unresolved jobs":                            unresolvedJobs,
		"two jobs overlap":                           jobsOverlap,
		"a new job leaves live ones alone":           liveLeftAlone,
		"a new job wants the failed again":           failedWantedAgain,
		"a new job passes over the issued":           issuedPassedOver,
		"an issued one whose message failed":         issuedThoughFailed,
		"a learner of two certificates":              twoCertificates,
		"events made elsewhere join a standing job":  standingJob,
		"an adopted event that comes twice":          adoptedTwice,
		"an adopted learner who was not yet through": adoptedAfterSkip,
	}
}

func jobIsKept(h house) {
	job := aJob("job-1", func(j *issue.Job) {
		j.Certificates = []string{"Merit & <b>", "Completion"}
		j.Filter = issue.Filter{
			Statuses: []int{1, 2}, Learners: []issue.LearnerID{"u1"}, CompletedFrom: time.UnixMilli(1566372109689).UTC(),
		}
		j.ReIssue, j.Eligible = true, 7
		j.Skipped = map[issue.SkipReason]int{issue.SkipInactive: 2, issue.SkipStatus: 9}
	})
	created, err := h.CreateJob(h.t.Context(), job, "", "")
	require.NoError(h.t, err)
	require.Empty(h.t, cmp.Diff(job, created))
	require.Empty(h.t, cmp.Diff(job, h.job("job-1").Job))
	_, found, err := h.Job(h.t.Context(), "job-2")
	require.NoError(h.t, err)
	require.False(h.t, found)
}

func keyMakesOneJob(h house) {
	first := aJob("job-1", func(j *issue.Job) { j.Skipped = map[issue.SkipReason]int{issue.SkipStatus: 4} })
	created, err := h.CreateJob(h.t.Context(), first, "key", "print")
	require.NoError(h.t, err)
	repeated, err := h.CreateJob(h.t.Context(), aJob("job-2"), "key", "print")
	require.NoError(h.t, err)
	require.Empty(h.t, cmp.Diff(created, repeated))
	require.Len(h.t, h.rows(`SELECT id FROM jobs`), 1)
	// Without a key every call is a job of its own.
	for _, id := range []issue.JobID{"job-3", "job-4"} {
		other, err := h.CreateJob(h.t.Context(), aJob(id), "", "print")
		require.NoError(h.t, err)
		require.Equal(h.t, id, other.ID)
	}
}

func keyOfAnotherRequest(h house) {
	_, err := h.CreateJob(h.t.Context(), aJob("job-1"), "key", "print")
	require.NoError(h.t, err)
	_, err = h.CreateJob(h.t.Context(), aJob("job-2"), "key", "other print")
	require.ErrorIs(h.t, err, issue.ErrKeyReused)
	require.NotErrorIs(h.t, err, issue.ErrUnavailable)
	require.Len(h.t, h.rows(`SELECT id FROM jobs`), 1)
}

func pagesOfAFanOut(h house) {
	job := aJob("job-1", func(j *issue.Job) {
		j.Eligible, j.Skipped = 9, map[issue.SkipReason]int{issue.SkipInactive: 1}
	})
	_, err := h.CreateJob(h.t.Context(), job, "", "")
	require.NoError(h.t, err)
	first := pageOf(job, "u1", "u2")
	first.Next, first.Last = "u2", false
	first.Skipped = []issue.Skip{
		{Learner: "u0", Certificate: merit, Reason: issue.SkipBadCompletionDate},
		{Learner: "u1b", Certificate: merit, Reason: issue.SkipInactive}, // counted at acceptance
	}
	require.NoError(h.t, h.AddPage(h.t.Context(), job, first))
	require.False(h.t, h.job("job-1").Resolved)
	require.Equal(h.t, 9, h.job("job-1").Eligible, "not exact before the end")
	require.Equal(h.t, "u2", h.job("job-1").Cursor)

	before := h.everything()
	require.NoError(h.t, h.AddPage(h.t.Context(), job, first), "another replica wrote it")
	require.Equal(h.t, before, h.everything(), "the same page twice writes once")

	job.Cursor = "u2"
	last := pageOf(job, "u3")
	last.Skipped = []issue.Skip{{Learner: "u4", Certificate: merit, Reason: issue.SkipFiltered}}
	require.NoError(h.t, h.AddPage(h.t.Context(), job, last))
	got := h.job("job-1")
	require.True(h.t, got.Resolved)
	require.False(h.t, got.Estimate)
	require.Equal(h.t, 3, got.Eligible, "exact at the end")
	require.Equal(h.t, map[issue.State]int{issue.Queued: 3}, got.Counts)
	require.Equal(h.t, map[issue.SkipReason]int{
		issue.SkipBadCompletionDate: 1, issue.SkipFiltered: 1, issue.SkipInactive: 1,
	}, got.Skipped)

	before = h.everything()
	require.NoError(h.t, h.AddPage(h.t.Context(), job, last))
	require.Equal(h.t, before, h.everything(), "nor is the last page")
	job.Cursor = ""
	require.NoError(h.t, h.AddPage(h.t.Context(), job, first))
	require.Equal(h.t, before, h.everything(), "a page of long ago does not turn the job back")
	require.Equal(h.t, []string{"queued|1", "queued|1", "queued|1"}, h.rows(`SELECT state, revision FROM issuance_history`))
}

func unresolvedJobs(h house) {
	at := time.Now()
	for id, change := range map[issue.JobID]func(*issue.Job){
		"job-2":     func(j *issue.Job) { j.CreatedAt = at.Add(time.Second) },
		"job-1":     func(j *issue.Job) { j.CreatedAt = at },
		"done":      func(j *issue.Job) { j.Resolved = true },
		"cancelled": func(j *issue.Job) { j.State = issue.JobCancelled },
	} {
		_, err := h.CreateJob(h.t.Context(), aJob(id, change), "", "")
		require.NoError(h.t, err)
	}
	jobs, err := h.Unresolved(h.t.Context())
	require.NoError(h.t, err)
	require.Len(h.t, jobs, 2)
	require.Equal(h.t, issue.JobID("job-1"), jobs[0].ID, "the oldest first")
	require.Equal(h.t, issue.JobID("job-2"), jobs[1].ID)
}

func jobsOverlap(h house) {
	h.resolved(aJob("job-1"), "u1", "u2")
	h.resolved(aJob("job-2"), "u2", "u3")
	require.Len(h.t, h.rows(`SELECT id FROM issuances`), 3, "one row for u2")
	require.Equal(h.t, map[issue.State]int{issue.Queued: 2}, h.job("job-1").Counts)
	require.Equal(h.t, map[issue.State]int{issue.Queued: 2}, h.job("job-2").Counts)
	events := h.take()
	require.Len(h.t, events, 3, "one event for u2")
	for _, event := range events {
		h.issue(event, "cert-"+string(event.Learner))
	}
	for _, job := range []issue.JobID{"job-1", "job-2"} {
		got := h.job(job)
		require.Equal(h.t, map[issue.State]int{issue.Notified: 2}, got.Counts, "both see u2")
		require.Equal(h.t, 2, got.Issued)
		require.True(h.t, got.Done())
	}
}

func liveLeftAlone(h house) {
	h.resolved(aJob("job-1"), "queued", "out", "claimed", "retrying")
	for _, event := range h.take() {
		switch event.Learner {
		case "claimed":
			c, _ := h.claim(event, livingOne)
			h.write(issue.Checkpoint{Claim: c, State: issue.Generating, Step: issue.StepGenerate, Attempts: 1})
		case "retrying":
			c, _ := h.claim(event, livingOne)
			h.write(issue.Checkpoint{
				Claim: c, State: issue.Retrying, Step: issue.StepGenerate, Attempts: 3, Rounds: 1, Reason: issue.ReasonTimeout,
				Rest: true, Due: time.Now().Add(time.Hour),
			})
		}
	}
	h.change(`UPDATE issuances SET is_out = 0, due_at = 5, taken_at = NULL WHERE user_id = 'queued'`)
	issuances := `SELECT id, job_id, state, step, attempts, rounds, reason, due_at, is_out, dispatch, claim_token, revision,
		last_revision, replays FROM issuances ORDER BY id`
	before := h.rows(issuances)
	h.resolved(aJob("job-2"), "queued", "out", "claimed", "retrying")
	require.Equal(h.t, before, h.rows(issuances))
	require.Equal(h.t, h.job("job-1").Counts, h.job("job-2").Counts)
}

func failedWantedAgain(h house) {
	h.resolved(aJob("job-1"), "u1")
	letter := h.fail(h.takeOne())
	require.Equal(h.t, map[issue.Reason]int{issue.ReasonTemplate: 1}, h.job("job-1").FailedBy)
	require.Empty(h.t, h.take(), "a failed one moves no more by itself")

	h.resolved(aJob("job-2"), "u1")
	require.Equal(h.t, []string{letter.ID + "|redriven"}, h.rows(`SELECT id, state FROM dead_letters`))
	for _, job := range []issue.JobID{"job-1", "job-2"} {
		require.Equal(h.t, map[issue.State]int{issue.Queued: 1}, h.job(job).Counts)
		require.Empty(h.t, h.job(job).FailedBy)
	}
	event := h.takeOne()
	require.Equal(h.t, issue.JobID("job-2"), event.Job, "it is dispatched for the job that wants it")
	require.EqualValues(h.t, 2, event.Number)
	_, issuance := h.claim(event, livingOne)
	require.Equal(h.t, 1, issuance.Replays)
	require.Equal(h.t, 1, issuance.Revision, "the same revision goes on")
	require.Zero(h.t, issuance.Attempts)
	require.Zero(h.t, issuance.Rounds)
	require.Zero(h.t, issuance.FirstFailure)
}

func issuedPassedOver(h house) {
	h.resolved(aJob("job-1"), "u1")
	h.issue(h.takeOne(), "cert-1")
	h.resolved(aJob("job-2"), "u1", "u2")
	got := h.job("job-2")
	require.Equal(h.t, 1, got.Eligible)
	require.Equal(h.t, map[issue.State]int{issue.Queued: 1}, got.Counts)
	require.Equal(h.t, map[issue.SkipReason]int{issue.SkipAlreadyIssued: 1}, got.Skipped)
	require.Equal(h.t, issue.LearnerID("u2"), h.takeOne().Learner)
}

// Issued is a fact, whatever became of the message about it.
func issuedThoughFailed(h house) {
	h.resolved(aJob("job-1"), "u1")
	c, issuance := h.claim(h.takeOne(), livingOne)
	for _, checkpoint := range way(c, "cert-1")[:3] {
		h.write(checkpoint)
	}
	h.write(issue.Checkpoint{
		Claim: c, State: issue.Failed, Step: issue.StepNotify, Attempts: 12, Reason: issue.ReasonRejected, Rest: true,
		DeadLetter: &issue.DeadLetter{ID: string(issuance.ID) + "-1-0", Class: issue.ClassExhausted, Step: issue.StepNotify},
	})
	require.Equal(h.t, 1, h.job("job-1").Issued)
	h.resolved(aJob("job-2"), "u1")
	require.Equal(h.t, map[issue.SkipReason]int{issue.SkipAlreadyIssued: 1}, h.job("job-2").Skipped)
}

func twoCertificates(h house) {
	job := aJob("job-1", func(j *issue.Job) { j.Certificates = []string{merit, "Completion"} })
	_, err := h.CreateJob(h.t.Context(), job, "", "")
	require.NoError(h.t, err)
	other := wanted("u1")
	other.Certificate, other.ID = "Completion", issue.NewIssuanceID(batch, "u1", "Completion")
	require.NoError(h.t, h.AddPage(h.t.Context(), job, issue.FannedOut{
		Wanted: []issue.Wanted{wanted("u1"), other}, Cause: "job-1", Last: true,
	}))
	got := h.job("job-1")
	require.Equal(h.t, map[issue.State]int{issue.Queued: 2}, got.Counts)
	require.Equal(h.t, 1, got.Eligible, "learners, not certificates")
}

func aStandingJob() issue.Job {
	return aJob("standing", func(j *issue.Job) { j.Resolved, j.Eligible, j.Estimate, j.Skipped = true, 0, false, nil })
}

func standingJob(h house) {
	for _, learner := range []issue.LearnerID{"u1", "u2", "u1"} {
		page := pageOf(aStandingJob(), learner)
		page.Cause = "mid-of-" + string(learner)
		require.NoError(h.t, h.Adopt(h.t.Context(), aStandingJob(), page))
	}
	require.NoError(h.t, h.Adopt(h.t.Context(), aStandingJob(), issue.FannedOut{
		Skipped: []issue.Skip{{Learner: "u3", Certificate: merit, Reason: issue.SkipStatus}},
	}))
	got := h.job("standing")
	require.Equal(h.t, 2, got.Eligible)
	require.True(h.t, got.Resolved)
	require.Equal(h.t, map[issue.State]int{issue.Queued: 2}, got.Counts)
	require.Equal(h.t, map[issue.SkipReason]int{issue.SkipStatus: 1}, got.Skipped, "nobody counted it before")
	require.Len(h.t, h.take(), 2)
}

func adoptedTwice(h house) {
	page := pageOf(aStandingJob(), "u1")
	page.Cause = "mid-1"
	require.NoError(h.t, h.Adopt(h.t.Context(), aStandingJob(), page))
	h.issue(h.takeOne(), "cert-1")
	require.NoError(h.t, h.Adopt(h.t.Context(), aStandingJob(), page))
	got := h.job("standing")
	require.Equal(h.t, map[issue.State]int{issue.Notified: 1}, got.Counts)
	require.Empty(h.t, got.Skipped, "one event that came twice is one learner")
	require.Empty(h.t, h.take())

	again := aStandingJob()
	again.ReIssue = true
	for range 2 { // that re-issue comes twice as well
		page.Cause = "mid-2"
		require.NoError(h.t, h.Adopt(h.t.Context(), again, page))
	}
	require.Equal(h.t, []string{"1|mid-1", "2|mid-2"}, h.rows(`SELECT revision, cause FROM revisions ORDER BY 1`))
}

func adoptedAfterSkip(h house) {
	skip := issue.FannedOut{Skipped: []issue.Skip{{Learner: "u1", Certificate: merit, Reason: issue.SkipStatus}}}
	require.NoError(h.t, h.Adopt(h.t.Context(), aStandingJob(), skip))
	require.NoError(h.t, h.Adopt(h.t.Context(), aStandingJob(), pageOf(aStandingJob(), "u1")))
	got := h.job("standing")
	require.Equal(h.t, map[issue.State]int{issue.Queued: 1}, got.Counts)
	require.Empty(h.t, got.Skipped, "he is not passed over any more")
	learners, err := h.Learners(h.t.Context(), issue.LearnerQuery{Job: "standing", Limit: 10})
	require.NoError(h.t, err)
	require.Len(h.t, learners.Learners, 1)
}

func reIssueTests() map[string]func(house) {
	return map[string]func(house){
		"a re-issue of one at rest starts at once":        reIssueAtRest,
		"a re-issue of one under way waits for its rest":  reIssueUnderWay,
		"a re-issue waits for a failure, too":             reIssueAfterFailure,
		"a re-issue of one who has none":                  reIssueOfNone,
		"a re-issue of a certificate from elsewhere":      reIssueFromElsewhere,
		"a re-issue names the newest registered":          oldIDIsNewest,
		"the old id is fixed once registering was tried":  oldIDIsFixed,
		"a re-issue whose page comes twice is one":        sameCauseOnce,
		"the certificate of before is shown until then":   certificateStays,
		"two re-issues under way run one after the other": reIssuesQueue,
	}
}

func (h house) revisions() []string {
	h.t.Helper()
	return h.rows(`SELECT revision, cause, old_id, certificate_id, registered_at IS NOT NULL FROM revisions ORDER BY revision`)
}

func reIssueAtRest(h house) {
	h.resolved(aJob("job-1"), "u1")
	h.issue(h.takeOne(), "cert-1")
	h.resolved(aJob("job-2", reIssue), "u1")
	require.Equal(h.t, map[issue.State]int{issue.Queued: 1}, h.job("job-2").Counts)
	event := h.takeOne()
	require.Equal(h.t, issue.JobID("job-2"), event.Job)
	require.True(h.t, event.ReIssue)
	require.Equal(h.t, 2, event.Revision)
	_, issuance := h.claim(event, livingOne)
	require.Equal(h.t, 2, issuance.Revision)
	require.Equal(h.t, "cert-1", issuance.OldID)
	require.Nil(h.t, issuance.Made, "of this revision")
	require.Zero(h.t, issuance.RegisteredAt)
	require.Equal(h.t, issue.ChannelPending, issuance.Email, "he is told again")
	require.Zero(h.t, issuance.Replays)
	require.Equal(h.t, 1, h.job("job-1").Issued, "nobody is without a certificate that he had")
}

func reIssueUnderWay(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	c, _ := h.claim(event, livingOne)
	h.resolved(aJob("job-2", reIssue), "u1")
	require.Empty(h.t, h.take(), "it waits")
	require.Equal(h.t, []string{"1|job-1|||0", "2|job-2|||0"}, h.revisions())
	for _, checkpoint := range way(c, "cert-1") {
		h.write(checkpoint)
	}
	require.Equal(h.t, map[issue.State]int{issue.Queued: 1}, h.job("job-2").Counts, "due as soon as the first rests")
	next := h.takeOne()
	require.Equal(h.t, 2, next.Revision)
	_, issuance := h.claim(next, livingOne)
	require.Equal(h.t, "cert-1", issuance.OldID)
	_, result, err := h.Ledger.Claim(h.t.Context(), claimOf(event, livingOne))
	require.NoError(h.t, err)
	require.Equal(h.t, issue.ClaimVoid, result, "the event of the first revision is over")
}

func reIssueAfterFailure(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	h.resolved(aJob("job-2", reIssue), "u1")
	letter := h.fail(event)
	require.Equal(h.t, []string{letter.ID + "|redriven"}, h.rows(`SELECT id, state FROM dead_letters`))
	_, issuance := h.claim(h.takeOne(), livingOne)
	require.Equal(h.t, 2, issuance.Revision)
	require.Equal(h.t, 1, issuance.Replays, "it left failed")
	require.Empty(h.t, issuance.OldID)
}

func reIssueOfNone(h house) {
	h.resolved(aJob("job-1", reIssue), "u1")
	_, issuance := h.claim(h.takeOne(), livingOne)
	require.Equal(h.t, 1, issuance.Revision)
	require.Empty(h.t, issuance.OldID)
}

func reIssueFromElsewhere(h house) {
	job := aJob("job-1", reIssue)
	_, err := h.CreateJob(h.t.Context(), job, "", "")
	require.NoError(h.t, err)
	page := pageOf(job, "u1")
	page.Wanted[0].HeldID = "cert-of-2019"
	require.NoError(h.t, h.AddPage(h.t.Context(), job, page))
	_, issuance := h.claim(h.takeOne(), livingOne)
	require.Equal(h.t, "cert-of-2019", issuance.OldID)
}

func oldIDIsNewest(h house) {
	h.resolved(aJob("job-1"), "u1")
	h.issue(h.takeOne(), "cert-1")
	h.resolved(aJob("job-2", reIssue), "u1")
	h.fail(h.takeOne()) // revision 2 is never registered
	h.resolved(aJob("job-3", reIssue), "u1")
	_, issuance := h.claim(h.takeOne(), livingOne)
	require.Equal(h.t, 3, issuance.Revision)
	require.Equal(h.t, "cert-1", issuance.OldID)
}

func oldIDIsFixed(h house) {
	h.resolved(aJob("job-1"), "u1")
	h.issue(h.takeOne(), "cert-1")
	h.resolved(aJob("job-2", reIssue), "u1")
	event := h.takeOne()
	c, _ := h.claim(event, livingOne)
	for _, checkpoint := range way(c, "cert-2")[:2] {
		h.write(checkpoint)
	}
	h.write(issue.Checkpoint{Claim: c, Release: true})
	h.change(`UPDATE revisions SET certificate_id = 'somebody-changed-it' WHERE revision = 1`)
	_, issuance := h.claim(event, livingTwo)
	require.Equal(h.t, "cert-1", issuance.OldID, "what was sent is sent again")
}

func sameCauseOnce(h house) {
	h.resolved(aJob("job-1"), "u1")
	h.issue(h.takeOne(), "cert-1")
	job := h.resolved(aJob("job-2", reIssue), "u1")
	h.change(`UPDATE jobs SET resolved = 0 WHERE id = 'job-2'`)
	require.NoError(h.t, h.AddPage(h.t.Context(), job, pageOf(job, "u1")))
	require.Len(h.t, h.revisions(), 2)
	h.issue(h.takeOne(), "cert-2")
	require.Empty(h.t, h.take())
}

func certificateStays(h house) {
	h.resolved(aJob("job-1"), "u1")
	h.issue(h.takeOne(), "cert-1")
	h.resolved(aJob("job-2", reIssue), "u1")
	shown := func() string {
		page, err := h.Learners(h.t.Context(), issue.LearnerQuery{Job: "job-2", Limit: 10})
		require.NoError(h.t, err)
		require.Len(h.t, page.Learners, 1)
		return page.Learners[0].CertificateID
	}
	require.Equal(h.t, "cert-1", shown())
	h.issue(h.takeOne(), "cert-2")
	require.Equal(h.t, "cert-2", shown())
}

func reIssuesQueue(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	h.resolved(aJob("job-2", reIssue), "u1")
	h.resolved(aJob("job-3", reIssue), "u1")
	h.issue(event, "cert-1")
	h.issue(h.takeOne(), "cert-2")
	h.issue(h.takeOne(), "cert-3")
	require.Empty(h.t, h.take())
	require.Equal(h.t, []string{"1|job-1||cert-1|1", "2|job-2|cert-1|cert-2|1", "3|job-3|cert-2|cert-3|1"}, h.revisions())
	for _, job := range []issue.JobID{"job-1", "job-2", "job-3"} {
		require.Equal(h.t, 1, h.job(job).Issued, job)
	}
	require.Equal(h.t, "queued generated registered notified queued generated registered notified queued generated registered notified",
		strings.Join(h.rows(`SELECT state FROM issuance_history ORDER BY at, n`), " "))
}
