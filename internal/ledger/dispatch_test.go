package ledger

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func dispatchTests() map[string]func(house) {
	return map[string]func(house){
		"an event says all of its issuance":               eventSaysAll,
		"numbers rise and old ones are void":              numbersRise,
		"jobs share the limit":                            jobsShare,
		"what some jobs leave goes to others":             leftOver,
		"more jobs than places":                           moreJobsThanPlaces,
		"no more than so many ahead":                      publishAhead,
		"jobs paused or cancelled are not taken":          pausedNotTaken,
		"retrying is not taken before its time":           retryingNotBefore,
		"an acknowledged event stays out":                 dispatchedOK,
		"a failed one comes again":                        dispatchedFailed,
		"one of unknown fate waits":                       dispatchedUnknown,
		"a receipt that comes too late":                   receiptTooLate,
		"recall brings back what was never acknowledged":  recall,
		"recall leaves what is claimed or acknowledged":   recallLeaves,
		"recall brings back what Kafka has lost":          recallLost,
		"recall takes in what a dead process held":        recallDead,
		"what may be ahead in all is shared":              aheadInAll,
		"a small job does not wait behind a large one":    smallBehindLarge,
		"a failed receipt does not take a claimed one in": failedButClaimed,
	}
}

func eventSaysAll(h house) {
	h.resolved(aJob("job-1"), "u1")
	want := issue.Event{
		Issuance: id("u1"), Learner: "u1", Batch: batch, Course: course, Certificate: merit, Job: "job-1",
		CompletedOn: time.UnixMilli(1566372109689).UTC(), Number: 1, Revision: 1, TraceParent: "00-trace",
	}
	require.Empty(h.t, cmp.Diff([]issue.Event{want}, h.take()))
	require.Empty(h.t, h.take(), "taken once")
	require.Equal(h.t, []string{"1|1|NULL|NULL|1"},
		h.rows(`SELECT is_out, dispatch, record_partition, record_offset, taken_at IS NOT NULL FROM issuances`))
}

func receipt(event issue.Event, outcome issue.PublishOutcome) []issue.Published {
	return []issue.Published{{
		Event:   event,
		Receipt: issue.Receipt{Outcome: outcome, Place: issue.Place{Partition: 2, Offset: 1_000_000_007}},
	}}
}

func numbersRise(h house) {
	h.resolved(aJob("job-1"), "u1")
	var events []issue.Event
	for number := range int64(3) {
		event := h.takeOne()
		require.Equal(h.t, number+1, event.Number)
		events = append(events, event)
		if number < 2 {
			require.NoError(h.t, h.Dispatched(h.t.Context(), receipt(event, issue.PublishFailed)))
			h.change(`UPDATE issuances SET due_at = due_at - 1000`)
		}
	}
	for _, old := range events[:2] {
		_, result, err := h.Ledger.Claim(h.t.Context(), claimOf(old, livingOne))
		require.NoError(h.t, err)
		require.Equal(h.t, issue.ClaimVoid, result)
	}
	h.claim(events[2], livingOne)
}

func many(prefix string, n int) []issue.LearnerID {
	learners := make([]issue.LearnerID, n)
	for i := range learners {
		learners[i] = issue.LearnerID(fmt.Sprintf("%s-%03d", prefix, i))
	}
	return learners
}

// share counts the events of each job.
func share(events []issue.Event) map[issue.JobID]int {
	n := map[issue.JobID]int{}
	for _, event := range events {
		n[event.Job]++
	}
	return n
}

func (h house) taken(ahead, limit int) map[issue.JobID]int {
	h.t.Helper()
	events, err := h.TakeDue(h.t.Context(), issue.Ahead{PerJob: ahead}, limit)
	require.NoError(h.t, err)
	return share(events)
}

func jobsShare(h house) {
	at := time.Now()
	h.resolved(aJob("large", func(j *issue.Job) { j.CreatedAt = at }), many("large", 300)...)
	h.resolved(aJob("class", func(j *issue.Job) { j.CreatedAt = at.Add(time.Second) }), many("class", 50)...)
	require.Equal(h.t, map[issue.JobID]int{"large": 30, "class": 30}, h.taken(0, 60))
	require.Equal(h.t, map[issue.JobID]int{"large": 40, "class": 20}, h.taken(0, 60))
	require.Equal(h.t, map[issue.JobID]int{"large": 60}, h.taken(0, 60))
	require.Equal(h.t, map[issue.JobID]int{"large": 170}, h.taken(0, 1000))
	require.Empty(h.t, h.taken(0, 1000))
}

// A job that only waits for its retries must not halve the pace of the others.
func leftOver(h house) {
	at := time.Now()
	h.resolved(aJob("large", func(j *issue.Job) { j.CreatedAt = at }), many("large", 100)...)
	for i := range 4 {
		job := aJob(issue.JobID(fmt.Sprint("waiting-", i)), func(j *issue.Job) { j.CreatedAt = at.Add(time.Second) })
		h.resolved(job, issue.LearnerID(fmt.Sprint("w", i)))
	}
	h.change(`UPDATE issuances SET state = 'retrying', due_at = due_at + 3600000 WHERE job_id <> 'large'`)
	h.change(`UPDATE job_counts SET name = 'retrying' WHERE job_id <> 'large'`)
	require.Equal(h.t, map[issue.JobID]int{"large": 50}, h.taken(0, 50))
}

func moreJobsThanPlaces(h house) {
	at := time.Now()
	for i := range 5 {
		job := aJob(issue.JobID(fmt.Sprint("job-", i)), func(j *issue.Job) { j.CreatedAt = at.Add(time.Duration(i) * time.Second) })
		h.resolved(job, many(fmt.Sprint("j", i), 2)...)
	}
	require.Equal(h.t, map[issue.JobID]int{"job-0": 1, "job-1": 1, "job-2": 1}, h.taken(0, 3), "the oldest come first")
}

func publishAhead(h house) {
	at := time.Now()
	h.resolved(aJob("large", func(j *issue.Job) { j.CreatedAt = at }), many("large", 20)...)
	h.resolved(aJob("class", func(j *issue.Job) { j.CreatedAt = at.Add(time.Second) }), many("class", 5)...)
	events, err := h.TakeDue(h.t.Context(), issue.Ahead{PerJob: 8}, 1000)
	require.NoError(h.t, err)
	require.Equal(h.t, map[issue.JobID]int{"large": 8, "class": 5}, share(events))
	require.Empty(h.t, h.taken(8, 1000), "there are so many ahead")
	i := slices.IndexFunc(events, func(e issue.Event) bool { return e.Job == "large" })
	h.issue(events[i], "cert-1")
	require.Equal(h.t, map[issue.JobID]int{"large": 1}, h.taken(8, 1000), "one has come to rest")
	require.Equal(h.t, map[issue.JobID]int{"large": 11}, h.taken(0, 1000), "0 = no limit")
}

func pausedNotTaken(h house) {
	for _, state := range []issue.JobState{issue.JobRunning, issue.JobPaused, issue.JobCancelled} {
		h.resolved(aJob(issue.JobID(state)), issue.LearnerID(state))
	}
	h.change(`UPDATE jobs SET state = id`)
	require.Equal(h.t, map[issue.JobID]int{"running": 1}, h.taken(0, 1000))
	h.change(`UPDATE jobs SET state = 'running' WHERE id = 'paused'`)
	require.Equal(h.t, map[issue.JobID]int{"paused": 1}, h.taken(0, 1000))
}

func retryingNotBefore(h house) {
	h.resolved(aJob("job-1"), "u1")
	c, _ := h.claim(h.takeOne(), livingOne)
	due := time.Now().Add(time.Hour).Truncate(time.Millisecond).UTC()
	h.write(issue.Checkpoint{
		Claim: c, State: issue.Retrying, Step: issue.StepGenerate, Attempts: 3, Rounds: 1, Reason: issue.ReasonTimeout,
		Message: "no answer", Rest: true, Due: due,
	})
	require.Empty(h.t, h.take())
	page, err := h.Learners(h.t.Context(), issue.LearnerQuery{Job: "job-1", Limit: 1})
	require.NoError(h.t, err)
	require.Equal(h.t, due, page.Learners[0].Due)
	require.Empty(h.t, cmp.Diff(issue.LearnerProgress{
		Learner: "u1", Issuance: id("u1"), State: "retrying", Step: issue.StepGenerate, Attempts: 3,
		Reason: "timeout", Message: "no answer", Revision: 1, Due: due,
	}, page.Learners[0], cmpopts.IgnoreFields(issue.LearnerProgress{}, "UpdatedAt")))

	h.change(`UPDATE issuances SET due_at = due_at - 3600000`)
	_, issuance := h.claim(h.takeOne(), livingTwo)
	require.Equal(h.t, issue.Retrying, issuance.State)
	require.Equal(h.t, issue.StepGenerate, issuance.Step)
	require.Equal(h.t, 3, issuance.Attempts)
	require.Equal(h.t, 1, issuance.Rounds)
}

func (h house) place() []string {
	h.t.Helper()
	return h.rows(`SELECT is_out, dispatch, record_partition, record_offset FROM issuances`)
}

func dispatchedOK(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	require.NoError(h.t, h.Dispatched(h.t.Context(), receipt(event, issue.PublishOK)))
	require.Equal(h.t, []string{"1|1|2|1000000007"}, h.place())
	require.Empty(h.t, h.take())
}

func dispatchedFailed(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	require.NoError(h.t, h.Dispatched(h.t.Context(), receipt(event, issue.PublishFailed)))
	require.Equal(h.t, []string{"0|1|NULL|NULL"}, h.place())
	require.Empty(h.t, h.take(), "not at once: Kafka has just refused it")
	h.change(`UPDATE issuances SET due_at = due_at - 1000`)
	require.EqualValues(h.t, 2, h.takeOne().Number)
}

func dispatchedUnknown(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	require.NoError(h.t, h.Dispatched(h.t.Context(), receipt(event, issue.PublishUnknown)))
	require.Equal(h.t, []string{"1|1|NULL|NULL"}, h.place())
	require.Empty(h.t, h.take())
	h.issue(event, "cert-1") // it was written after all
}

func receiptTooLate(h house) {
	h.resolved(aJob("job-1"), "u1")
	first := h.takeOne()
	n, err := h.Recall(h.t.Context(), time.Now().Add(time.Second), nil)
	require.NoError(h.t, err)
	require.Equal(h.t, 1, n)
	second := h.takeOne()
	for _, outcome := range []issue.PublishOutcome{issue.PublishOK, issue.PublishFailed} {
		require.NoError(h.t, h.Dispatched(h.t.Context(), receipt(first, outcome)))
		require.Equal(h.t, []string{"1|2|NULL|NULL"}, h.place(), "it is about another number")
	}
	h.issue(second, "cert-1")
	before := h.everything()
	require.NoError(h.t, h.Dispatched(h.t.Context(), receipt(second, issue.PublishOK)), "the consumer was faster")
	require.Equal(h.t, before, h.everything())
}

func recall(h house) {
	h.resolved(aJob("job-1"), "u1")
	h.takeOne()
	n, err := h.Recall(h.t.Context(), time.Now().Add(-time.Minute), nil)
	require.NoError(h.t, err)
	require.Zero(h.t, n, "not yet")
	n, err = h.Recall(h.t.Context(), time.Now().Add(time.Second), nil)
	require.NoError(h.t, err)
	require.Equal(h.t, 1, n)
	require.EqualValues(h.t, 2, h.takeOne().Number)
}

func recallLeaves(h house) {
	h.resolved(aJob("job-1"), "acknowledged", "claimed", "unknown")
	for _, event := range h.take() {
		switch event.Learner {
		case "acknowledged":
			require.NoError(h.t, h.Dispatched(h.t.Context(), receipt(event, issue.PublishOK)))
		case "claimed":
			h.claim(event, livingOne)
		}
	}
	n, err := h.Recall(h.t.Context(), time.Now().Add(time.Second), nil)
	require.NoError(h.t, err)
	require.Equal(h.t, 1, n)
	require.Equal(h.t, issue.LearnerID("unknown"), h.takeOne().Learner)
}

func recallLost(h house) {
	h.resolved(aJob("job-1"), "below", "inside", "beyond", "gone")
	at := map[issue.LearnerID]issue.Place{
		"below": {Partition: 1, Offset: 9}, "inside": {Partition: 1, Offset: 10}, "beyond": {Partition: 1, Offset: 20},
		"gone": {Partition: 7, Offset: 10},
	}
	for _, event := range h.take() {
		published := []issue.Published{{Event: event, Receipt: issue.Receipt{Outcome: issue.PublishOK, Place: at[event.Learner]}}}
		require.NoError(h.t, h.Dispatched(h.t.Context(), published))
	}
	reaches := []issue.Reach{{Partition: 0, From: 0, To: 100}, {Partition: 1, From: 10, To: 20}}
	n, err := h.Recall(h.t.Context(), time.Now().Add(-time.Minute), reaches)
	require.NoError(h.t, err)
	require.Zero(h.t, n, "not yet")
	n, err = h.Recall(h.t.Context(), time.Now().Add(time.Second), reaches)
	require.NoError(h.t, err)
	require.Equal(h.t, 3, n)
	again := h.take()
	require.Len(h.t, again, 3)
	for _, event := range again {
		require.NotEqual(h.t, issue.LearnerID("inside"), event.Learner)
		require.EqualValues(h.t, 2, event.Number)
	}
}

func recallDead(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	h.claim(event, theDeparted)
	n, err := h.Recall(h.t.Context(), time.Now().Add(time.Second), nil)
	require.NoError(h.t, err)
	require.Equal(h.t, 1, n)
	_, issuance := h.claim(h.takeOne(), livingOne)
	require.Equal(h.t, 1, issuance.Crashes, "that a process died of it is not forgotten")
}

func (h house) takenWithin(ahead issue.Ahead) map[issue.JobID]int {
	h.t.Helper()
	events, err := h.TakeDue(h.t.Context(), ahead, 1000)
	require.NoError(h.t, err)
	return share(events)
}

func aheadInAll(h house) {
	at := time.Now()
	for i := range 3 {
		job := aJob(issue.JobID(fmt.Sprint("job-", i)), func(j *issue.Job) { j.CreatedAt = at.Add(time.Duration(i) * time.Second) })
		h.resolved(job, many(fmt.Sprint("j", i), 100)...)
	}
	require.Equal(h.t, map[issue.JobID]int{"job-0": 30, "job-1": 30, "job-2": 30}, h.takenWithin(issue.Ahead{InAll: 90}))
	require.Empty(h.t, h.takenWithin(issue.Ahead{InAll: 90}))
	require.Equal(h.t, map[issue.JobID]int{"job-0": 5, "job-1": 5, "job-2": 5}, h.takenWithin(issue.Ahead{InAll: 300, PerJob: 35}))
}

func smallBehindLarge(h house) {
	at := time.Now()
	h.resolved(aJob("large", func(j *issue.Job) { j.CreatedAt = at }), many("large", 300)...)
	require.Equal(h.t, map[issue.JobID]int{"large": 100}, h.takenWithin(issue.Ahead{InAll: 100}))
	h.resolved(aJob("class", func(j *issue.Job) { j.CreatedAt = at.Add(time.Second) }), many("class", 20)...)
	h.resolved(aJob("one", func(j *issue.Job) { j.CreatedAt = at.Add(2 * time.Second) }), many("one", 1)...)
	require.Equal(h.t, map[issue.JobID]int{"class": 20, "one": 1}, h.takenWithin(issue.Ahead{InAll: 100}),
		"whoever has nothing ahead gets his share, however much the others have")
	require.Empty(h.t, h.takenWithin(issue.Ahead{InAll: 100}))
	require.Equal(h.t, map[issue.JobID]int{"large": 3}, h.takenWithin(issue.Ahead{InAll: 124}), "those of others count")
}

func failedButClaimed(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	c, _ := h.claim(event, livingOne)
	require.NoError(h.t, h.Dispatched(h.t.Context(), receipt(event, issue.PublishFailed)))
	require.Equal(h.t, []string{"1|1|NULL|NULL"}, h.place(), "somebody has it: it was written after all")
	for _, checkpoint := range way(c, "cert-1") {
		h.write(checkpoint)
	}
	require.Equal(h.t, 1, h.job("job-1").Issued)
}
