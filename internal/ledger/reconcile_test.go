package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func reconcileTests() map[string]func(house) {
	return map[string]func(house){
		"what the ledger says of a batch":              recordsAll,
		"a batch of many pages is walked once":         recordsPages,
		"a walk ends with the first error":             walkEnds,
		"a batch that nobody knows":                    recordsOfNone,
		"what the ledger says of some learners":        recordsOfSome,
		"certificates that were replaced are known":    recordsOfReplaced,
		"sums that are right":                          sumsRight,
		"sums that are wrong":                          sumsWrong,
		"sums that several correct at once":            sumsCorrectedAtOnce,
		"what the source counted is not counted again": sumsOfTheSource,
	}
}

// everyRecord walks the batch.
func (h house) everyRecord(of issue.BatchID) []issue.IssuanceRecord {
	h.t.Helper()
	var all []issue.IssuanceRecord
	require.NoError(h.t, h.EachIssuance(h.t.Context(), of, func(page []issue.IssuanceRecord) error {
		require.LessOrEqual(h.t, len(page), recordsPage)
		all = append(all, page...)
		return nil
	}))
	return all
}

func issuedRecord(learner issue.LearnerID) issue.IssuanceRecord {
	made := "cert-" + string(learner)
	return issue.IssuanceRecord{
		Learner: learner, Certificate: merit, State: issue.Notified, Issued: true,
		Newest: issue.Certificate{ID: made, AccessCode: "ABC123"}, Known: []string{made},
	}
}

// ofBatches is a ledger of two batches, in which one learner of the first is
// issued, one failed, and one is made but not registered.
func ofBatches(h house) {
	elsewhere := aJob("job-2", func(j *issue.Job) { j.Batch = "another" })
	page := pageOf(elsewhere, "b", "x")
	for i, w := range page.Wanted {
		page.Wanted[i].ID = issue.NewIssuanceID("another", w.Learner, merit)
	}
	_, err := h.CreateJob(h.t.Context(), elsewhere, "", "")
	require.NoError(h.t, err)
	require.NoError(h.t, h.AddPage(h.t.Context(), elsewhere, page))
	h.take()
	h.resolved(aJob("job-1"), "a", "b", "c", "d")
	h.resolved(aJob("job-3"), "c", "d") // wants what another job wants
	for _, event := range h.take() {
		switch event.Learner {
		case "b":
			h.issue(event, "cert-b")
		case "c":
			h.fail(event)
		case "d":
			c, _ := h.claim(event, livingOne)
			for _, checkpoint := range way(c, "cert-d")[:2] {
				h.write(checkpoint)
			}
		}
	}
}

func recordsAll(h house) {
	ofBatches(h)
	require.Empty(h.t, cmp.Diff([]issue.IssuanceRecord{
		{Learner: "a", Certificate: merit, State: issue.Queued},
		issuedRecord("b"),
		{Learner: "c", Certificate: merit, State: issue.Failed},
		{Learner: "d", Certificate: merit, State: issue.Registering, Known: []string{"cert-d"}},
	}, h.everyRecord(batch)))
	require.Len(h.t, h.everyRecord("another"), 2)
}

func recordsPages(h house) {
	const n = 2*recordsPage + 1
	learners := many("u", n)
	h.resolved(aJob("job-1"), learners...)
	var got []issue.LearnerID
	for _, record := range h.everyRecord(batch) {
		got = append(got, record.Learner)
	}
	require.ElementsMatch(h.t, learners, got)
}

func walkEnds(h house) {
	h.resolved(aJob("job-1"), many("u", recordsPage+1)...)
	enough, pages := errors.New("enough"), 0
	err := h.EachIssuance(h.t.Context(), batch, func([]issue.IssuanceRecord) error {
		pages++
		return enough
	})
	require.ErrorIs(h.t, err, enough)
	require.NotErrorIs(h.t, err, issue.ErrUnavailable, "it is the visitor's own")
	require.Equal(h.t, 1, pages)
}

func recordsOfNone(h house) {
	ofBatches(h)
	require.Empty(h.t, h.everyRecord("unheard of"))
	records, err := h.IssuancesOf(h.t.Context(), "unheard of", []issue.LearnerID{"a", "b"})
	require.NoError(h.t, err)
	require.Empty(h.t, records)
	recount, err := h.Ledger.Recount(h.t.Context(), "unheard of", true)
	require.NoError(h.t, err)
	require.Equal(h.t, issue.Recount{}, recount)
}

func recordsOfSome(h house) {
	ofBatches(h)
	for name, test := range map[string]struct {
		asked []issue.LearnerID
		want  string
	}{
		"nobody":           {nil, "[]"},
		"some":             {[]issue.LearnerID{"x", "b", "a", "z"}, "[a b]"},
		"a page":           {append(many("u", 499), "b"), "[b]"},
		"spelt otherwise":  {[]issue.LearnerID{"B"}, "[]"},
		"with odd letters": {[]issue.LearnerID{"'); --", "b"}, "[b]"},
	} {
		records, err := h.IssuancesOf(h.t.Context(), batch, test.asked)
		require.NoError(h.t, err)
		var learners []issue.LearnerID
		for _, record := range records {
			learners = append(learners, record.Learner)
		}
		require.Equal(h.t, test.want, fmt.Sprint(learners), name)
	}
	records, err := h.IssuancesOf(h.t.Context(), batch, []issue.LearnerID{"b"})
	require.NoError(h.t, err)
	require.Empty(h.t, cmp.Diff([]issue.IssuanceRecord{issuedRecord("b")}, records))
}

func recordsOfReplaced(h house) {
	job := aJob("job-1", reIssue)
	_, err := h.CreateJob(h.t.Context(), job, "", "")
	require.NoError(h.t, err)
	page := pageOf(job, "u1")
	page.Wanted[0].HeldID = "cert-of-2019"
	require.NoError(h.t, h.AddPage(h.t.Context(), job, page))
	h.issue(h.takeOne(), "cert-1")
	h.resolved(aJob("job-2", reIssue), "u1")
	h.issue(h.takeOne(), "cert-2")
	h.resolved(aJob("job-3", reIssue), "u1") // queued, replaces nothing yet
	records := h.everyRecord(batch)
	require.Len(h.t, records, 1)
	require.True(h.t, records[0].Issued, "issued is a fact, not a state")
	require.Equal(h.t, issue.Queued, records[0].State)
	require.Equal(h.t, "cert-2", records[0].Newest.ID)
	slices.Sort(records[0].Known)
	require.Equal(h.t, []string{"cert-1", "cert-2", "cert-of-2019"}, slices.Compact(records[0].Known))
}

func (h house) recounted(fix bool) issue.Recount {
	h.t.Helper()
	recount, err := h.Ledger.Recount(h.t.Context(), batch, fix)
	require.NoError(h.t, err)
	return recount
}

func sumsRight(h house) {
	ofBatches(h)
	_, err := h.CreateJob(h.t.Context(), aJob("job-4"), "", "") // not read yet
	require.NoError(h.t, err)
	before := h.everything()
	require.Equal(h.t, issue.Recount{Jobs: 3, Unresolved: 1}, h.recounted(true))
	require.Equal(h.t, before, h.everything(), "what is right stays")
}

func sumsWrong(h house) {
	ofBatches(h)
	h.change(`UPDATE job_counts SET n = n + 2 WHERE job_id = 'job-1' AND kind = 'issued'`)
	h.change(`UPDATE job_counts SET n = 7 WHERE job_id = 'job-1' AND name = 'queued'`)
	h.change(`DELETE FROM job_counts WHERE job_id = 'job-3' AND kind = 'failed'`)
	h.change(`INSERT INTO job_counts (job_id, kind, name, shard, n, moved_at) VALUES ('job-3', 'state', 'retrying', 3, -1, 0)`)
	h.change(`INSERT INTO job_counts (job_id, kind, name, shard, n, moved_at) VALUES ('job-3', 'skipped', 'filtered', 3, 4, 0)`)
	want := []issue.WrongSum{
		{Job: "job-1", Kind: "issued", Kept: 3, Counted: 1},
		{Job: "job-1", Kind: "state", Name: "queued", Kept: 7, Counted: 1},
		{Job: "job-3", Kind: "failed", Name: "template", Kept: 0, Counted: 1},
		{Job: "job-3", Kind: "skipped", Name: "filtered", Kept: 4, Counted: 0},
		{Job: "job-3", Kind: "state", Name: "retrying", Kept: -1, Counted: 0},
	}
	for range 2 {
		require.Empty(h.t, cmp.Diff(issue.Recount{Jobs: 2, Wrong: want}, h.recounted(false)), "looking corrects nothing")
	}
	require.Empty(h.t, cmp.Diff(issue.Recount{Jobs: 2, Wrong: want, Corrected: 5}, h.recounted(true)))
	require.Equal(h.t, issue.Recount{Jobs: 2}, h.recounted(true))
	require.Equal(h.t, 1, h.job("job-1").Issued)
	require.Equal(h.t, map[issue.Reason]int{issue.ReasonTemplate: 1}, h.job("job-3").FailedBy)
}

// Two that recount at once must not both correct the same sum, and what the other
// writes of a group come to is no mistake.
func sumsCorrectedAtOnce(h house) {
	ofBatches(h)
	h.change(`UPDATE job_counts SET n = n + 8 WHERE job_id = 'job-1' AND kind = 'issued'`)
	h.change(`UPDATE job_counts SET n = 5 WHERE job_id = 'job-1' AND name = 'queued'`)
	later := aJob("job-5")
	_, err := h.CreateJob(h.t.Context(), later, "", "")
	require.NoError(h.t, err)
	var (
		wait      sync.WaitGroup
		corrected atomic.Int64
		errs      [8]error
	)
	for i := range 4 {
		wait.Go(func() {
			recount, err := h.Ledger.Recount(context.Background(), batch, true)
			corrected.Add(int64(recount.Corrected))
			errs[i] = err
		})
		wait.Go(func() { errs[4+i] = h.AddPage(context.Background(), later, pageOf(later, many("v", 30)...)) })
	}
	wait.Wait()
	require.Equal(h.t, [8]error{}, errs)
	require.EqualValues(h.t, 2, corrected.Load())
	require.Empty(h.t, h.recounted(false).Wrong)
}

func sumsOfTheSource(h house) {
	job := aJob("job-1", func(j *issue.Job) {
		j.Skipped = map[issue.SkipReason]int{issue.SkipInactive: 40, issue.SkipStatus: 2} // nobody has rows of them
	})
	_, err := h.CreateJob(h.t.Context(), job, "", "")
	require.NoError(h.t, err)
	page := pageOf(job, "u1")
	page.Skipped = []issue.Skip{{Learner: "u2", Certificate: merit, Reason: issue.SkipCriteria}}
	require.NoError(h.t, h.AddPage(h.t.Context(), job, page))
	require.Equal(h.t, issue.Recount{Jobs: 1}, h.recounted(true))
}
