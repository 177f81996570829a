package ledger

import (
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func workTests() map[string]func(house) {
	return map[string]func(house){
		"a claim tells what is stored":              claimTells,
		"a claim of what is over is void":           claimVoid,
		"a claim of what is not there":              claimNone,
		"a live claim is not taken":                 claimBusy,
		"a claim that lapsed is taken":              claimLapsed,
		"a dead process loses its claims":           deadProcess,
		"a silent process loses its claims":         silentProcess,
		"a process that says goodbye":               goodbye,
		"a claim asked for again":                   sameToken,
		"crashes are set back by a finished step":   crashesSetBack,
		"a write after the claim was lost":          claimLost,
		"a lapsed claim that nobody took goes on":   lapsedGoesOn,
		"a released claim":                          released,
		"the way of one certificate":                wayOfOne,
		"nothing is written of what is not told":    zeroChangesNothing,
		"a failure and its dead letter are one":     failureIsOne,
		"a dead letter written twice is one":        deadLetterTwice,
		"history tells a failure once":              historyOnce,
		"history of a learner without notification": historyWithoutNotification,
		"poison is indexed":                         poisonIndexed,
		"processes long dead are forgotten":         forgotten,
		"another certificate is to be replaced":     replaceAnother,
	}
}

func claimTells(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	c, issuance := h.claim(event, livingOne)
	want := issue.Issuance{
		ID: id("u1"), Batch: batch, Learner: "u1", Course: course, Certificate: merit, Job: "job-1", Revision: 1, Number: 1,
		State: issue.Queued, CompletedOn: time.UnixMilli(1566372109689).UTC(),
		Email: issue.ChannelPending, SMS: issue.ChannelPending,
	}
	require.Positive(h.t, issuance.Row)
	want.Row = issuance.Row
	require.Empty(h.t, cmp.Diff(want, issuance))
	steps := way(c, "cert-1")
	steps[2].FirstFailure = time.UnixMilli(1566372109000).UTC()
	for _, checkpoint := range steps[:3] {
		h.write(checkpoint)
	}
	h.write(issue.Checkpoint{
		Claim: c, Step: issue.StepNotify, Attempts: 1, Rounds: 2, FirstFailure: steps[2].FirstFailure, Release: true,
	})
	_, issuance = h.claim(event, livingTwo)
	want.State, want.Step, want.Attempts, want.Rounds = issue.Notifying, issue.StepNotify, 1, 2
	want.Issued = true
	want.FirstFailure, want.Made, want.Email = steps[2].FirstFailure, certificate("cert-1"), issue.ChannelSending
	require.Empty(h.t, cmp.Diff(want, issuance, cmpopts.IgnoreFields(issue.Issuance{}, "RegisteredAt")))
	require.WithinDuration(h.t, time.Now(), issuance.RegisteredAt, time.Minute)
	require.Empty(h.t, cmp.Diff(`{"recipient":{"name":"Asha  Rao"} }`, string(issuance.Made.JSONData)), "byte for byte")
}

func (h house) result(c issue.Claim) issue.ClaimResult {
	h.t.Helper()
	_, result, err := h.Ledger.Claim(h.t.Context(), c)
	require.NoError(h.t, err)
	return result
}

func claimVoid(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	for _, other := range []int64{event.Number - 1, event.Number + 1} {
		twin := event
		twin.Number = other
		require.Equal(h.t, issue.ClaimVoid, h.result(claimOf(twin, livingOne)), "another number")
	}
	h.issue(event, "cert-1")
	before := h.everything()
	require.Equal(h.t, issue.ClaimVoid, h.result(claimOf(event, livingOne)), "it is in")
	require.Equal(h.t, before, h.everything())
}

func claimNone(h house) {
	require.Equal(h.t, issue.ClaimNone, h.result(claimOf(issue.Event{Issuance: "unheard of", Number: 1}, livingOne)))
}

func claimBusy(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	h.claim(event, livingOne)
	before := h.everything()
	require.Equal(h.t, issue.ClaimBusy, h.result(claimOf(event, livingTwo)))
	require.Equal(h.t, issue.ClaimBusy, h.result(claimOf(event, livingOne)), "live also for the same process")
	require.Equal(h.t, before, h.everything())
}

func claimLapsed(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	c := claimOf(event, livingOne)
	c.Until = time.Now().Add(-time.Millisecond)
	require.Equal(h.t, issue.Claimed, h.result(c))
	taken, issuance := h.claim(event, livingTwo)
	require.Zero(h.t, issuance.Crashes, "its process lives: nobody died of it")
	require.Equal(h.t, []string{taken.Token + "|" + livingTwo}, h.rows(`SELECT claim_token, claim_process FROM issuances`))
}

func deadProcess(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	for crashes := range 4 {
		_, issuance := h.claim(event, fmt.Sprint(theDeparted, crashes)) // it never said that it lives
		require.Equal(h.t, crashes, issuance.Crashes)
	}
}

func silentProcess(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	h.claim(event, livingOne)
	h.change(`UPDATE processes SET seen_at = seen_at - $1 WHERE id = $2`, claimLapse.Milliseconds()-2000, livingOne)
	require.Equal(h.t, issue.ClaimBusy, h.result(claimOf(event, livingTwo)), "silent, but not for long")
	h.change(`UPDATE processes SET seen_at = seen_at - 2001 WHERE id = $1`, livingOne)
	_, issuance := h.claim(event, livingTwo)
	require.Equal(h.t, 1, issuance.Crashes)
}

func goodbye(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	h.claim(event, livingOne)
	require.NoError(h.t, h.Gone(h.t.Context(), livingOne))
	h.claim(event, livingTwo)
}

func sameToken(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	c := claimOf(event, theDeparted)
	require.Equal(h.t, issue.Claimed, h.result(c))
	issuance, result, err := h.Ledger.Claim(h.t.Context(), c) // the answer of the first was lost
	require.NoError(h.t, err)
	require.Equal(h.t, issue.Claimed, result)
	require.Zero(h.t, issuance.Crashes)
}

func crashesSetBack(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	h.claim(event, "dead-1")
	c, issuance := h.claim(event, "dead-2")
	require.Equal(h.t, 1, issuance.Crashes)
	h.write(way(c, "cert-1")[0]) // begins a step, finishes none
	c, issuance = h.claim(event, "dead-3")
	require.Equal(h.t, 2, issuance.Crashes)
	h.write(way(c, "cert-1")[1])
	_, issuance = h.claim(event, livingOne)
	require.Equal(h.t, 1, issuance.Crashes, "of the step at hand alone")
}

func claimLost(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	hung, issuance := h.claim(event, theDeparted)
	taken, _ := h.claim(event, livingOne)
	before := h.everything()
	letter := issue.DeadLetter{ID: string(issuance.ID) + "-1-0", Job: "job-1"}
	late := append(way(hung, "cert-of-the-hung"),
		issue.Checkpoint{Claim: hung, State: issue.Failed, Rest: true, DeadLetter: &letter},
		issue.Checkpoint{Claim: hung, Release: true})
	for i, checkpoint := range late {
		require.ErrorIs(h.t, h.checkpoint(checkpoint), issue.ErrClaimLost, i)
		require.Equal(h.t, before, h.everything(), "write %d has left something", i)
	}
	for _, checkpoint := range way(taken, "cert-1") {
		h.write(checkpoint)
	}
	before = h.everything()
	require.ErrorIs(h.t, h.checkpoint(late[0]), issue.ErrClaimLost, "over is over")
	require.Equal(h.t, before, h.everything())
}

func lapsedGoesOn(h house) {
	h.resolved(aJob("job-1"), "u1")
	c := claimOf(h.takeOne(), livingOne)
	c.Until = time.Now().Add(-time.Minute)
	require.Equal(h.t, issue.Claimed, h.result(c))
	for _, checkpoint := range way(c, "cert-1") {
		h.write(checkpoint)
	}
}

func released(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	c, _ := h.claim(event, livingOne)
	h.write(way(c, "cert-1")[0])
	h.write(issue.Checkpoint{Claim: c, Step: issue.StepGenerate, Attempts: 1, Release: true})
	require.Equal(h.t, []string{"1|NULL|NULL|generating"}, h.rows(`SELECT is_out, claim_token, due_at, state FROM issuances`))
	require.ErrorIs(h.t, h.checkpoint(way(c, "x")[1]), issue.ErrClaimLost)
	_, issuance := h.claim(event, livingTwo)
	require.Zero(h.t, issuance.Crashes)
}

func wayOfOne(h house) {
	h.resolved(aJob("job-1"), "u1")
	c, _ := h.claim(h.takeOne(), livingOne)
	steps := way(c, "cert-1")
	steps[1].Finished[0].Attempts = 3 // generate took three calls, register is at its first
	answers := []string{"NULL", `{"recipient":{"name":"Asha  Rao"} }`, `{"recipient":{"name":"Asha  Rao"} }`, "NULL"}
	for i, checkpoint := range steps {
		h.write(checkpoint)
		got := h.job("job-1")
		require.Equal(h.t, map[issue.State]int{checkpoint.State: 1}, got.Counts)
		require.Equal(h.t, i/2, got.Issued, "issued once registered")
		require.Equal(h.t, []string{answers[i]}, h.rows(`SELECT json_data FROM revisions`), "write %d", i)
		h.recount()
	}
	require.Equal(h.t, []string{
		"queued||0||", "generated|generate|3||", "registered|register|1||", "notified|notify|1||",
	}, h.rows(`SELECT state, step, attempts, reason, message FROM issuance_history ORDER BY at, n`), "one line a step")
	require.Equal(h.t, []string{"cert-1|ABC123|https://files/cert-1.pdf|https://files/cert-1.json|sent|none|1|1"},
		h.rows(`SELECT certificate_id, access_code, pdf_url, json_url, email, sms, register_at IS NOT NULL,
			registered_at IS NOT NULL FROM revisions`), "ids and addresses stay")
	require.True(h.t, h.job("job-1").Done())
}

func zeroChangesNothing(h house) {
	h.resolved(aJob("job-1"), "u1")
	c, _ := h.claim(h.takeOne(), livingOne)
	for _, checkpoint := range way(c, "cert-1")[:3] {
		h.write(checkpoint)
	}
	const revision = `SELECT * FROM revisions`
	const issuance = `SELECT state, step, issued_at, is_out, claim_token, due_at FROM issuances`
	before := append(h.rows(revision), h.rows(issuance)...)
	h.write(issue.Checkpoint{Claim: c, Attempts: 1})
	require.Equal(h.t, before, append(h.rows(revision), h.rows(issuance)...))
}

func failureIsOne(h house) {
	h.resolved(aJob("job-1"), "u1")
	letter := h.fail(h.takeOne())
	require.Equal(h.t, []string{string(id("u1")) + "-1-0|" + string(id("u1")) +
		"|job-1|permanent|generate|template|400|no such font|1|0|1|5|1566372109000|1566372109689|open"},
		h.rows(`SELECT * FROM dead_letters`))
	got := h.job("job-1")
	require.Equal(h.t, map[issue.State]int{issue.Failed: 1}, got.Counts)
	require.Equal(h.t, map[issue.Reason]int{issue.ReasonTemplate: 1}, got.FailedBy)
	require.Equal(h.t, []string{"failed"}, got.Reasons())

	// One transaction: what keeps the index row from being written keeps the
	// failure from it, too.
	h.resolved(aJob("job-2"), "u1", "u2")
	for _, event := range h.take() {
		c, _ := h.claim(event, livingOne)
		before := h.everything()
		letter.ID, letter.Replays = "other", 9
		h.change(`ALTER TABLE dead_letters RENAME TO elsewhere`)
		err := h.checkpoint(issue.Checkpoint{Claim: c, State: issue.Failed, Rest: true, DeadLetter: &letter})
		h.change(`ALTER TABLE elsewhere RENAME TO dead_letters`)
		require.ErrorIs(h.t, err, issue.ErrUnavailable)
		require.Equal(h.t, before, h.everything())
	}
}

func deadLetterTwice(h house) {
	h.resolved(aJob("job-1"), "u1")
	letter := h.fail(h.takeOne())
	require.NoError(h.t, h.IndexPoison(h.t.Context(), letter))
	require.Len(h.t, h.rows(`SELECT id FROM dead_letters`), 1)
}

func historyOnce(h house) {
	h.resolved(aJob("job-1"), "u1")
	c, _ := h.claim(h.takeOne(), livingOne)
	h.write(issue.Checkpoint{
		Claim: c, State: issue.Retrying, Step: issue.StepGenerate, Attempts: 3, Rounds: 1, Reason: issue.ReasonTimeout,
		Message: "no answer", Rest: true, Due: time.Now().Add(-time.Second),
	})
	event := h.takeOne()
	for range 5 { // it is on hold for what it needs is away
		c, _ := h.claim(event, livingOne)
		h.write(issue.Checkpoint{Claim: c, Step: issue.StepGenerate, Attempts: 3, Rounds: 1, Release: true})
	}
	require.Equal(h.t, []string{"queued||0||", "retrying|generate|3|timeout|no answer"},
		h.rows(`SELECT state, step, attempts, reason, message FROM issuance_history ORDER BY at, n`))
}

// The worker writes nothing between register and the end when there is nobody
// to notify; history still tells that the certificate was registered.
func historyWithoutNotification(h house) {
	h.resolved(aJob("job-1"), "u1")
	c, _ := h.claim(h.takeOne(), livingOne)
	for _, checkpoint := range way(c, "cert-1")[:2] {
		h.write(checkpoint)
	}
	h.write(issue.Checkpoint{
		Claim: c, State: issue.Notified, Step: issue.StepNotify, Registered: true, Email: issue.ChannelNone,
		SMS: issue.ChannelNone, Reason: issue.ReasonNoTemplate, Rest: true,
		Finished: []issue.Finished{{State: issue.Registered, Attempts: 2}, {State: issue.Notified}},
	})
	require.Equal(h.t, []string{
		"queued||0||", "generated|generate|1||", "registered|register|2||", "notified|notify|0|no_template|",
	}, h.rows(`SELECT state, step, attempts, reason, message FROM issuance_history ORDER BY at, n`))
	require.Equal(h.t, 1, h.job("job-1").Issued)
	require.Equal(h.t, []string{"NULL"}, h.rows(`SELECT json_data FROM revisions`))
}

func poisonIndexed(h house) {
	letter := issue.DeadLetter{
		ID: "requests-3-17", Class: issue.ClassPoison, Step: issue.StepDecode, Reason: issue.ReasonDecode,
		Message: "no JSON", FirstFailure: time.UnixMilli(5), LastFailure: time.UnixMilli(6),
		Place: issue.Place{Partition: 3, Offset: 2},
	}
	for range 2 {
		require.NoError(h.t, h.IndexPoison(h.t.Context(), letter))
	}
	require.Equal(h.t, []string{"requests-3-17|||poison|decode|decode|0|no JSON|0|0|3|2|5|6|open"},
		h.rows(`SELECT * FROM dead_letters`))
}

func forgotten(h house) {
	require.NoError(h.t, h.Alive(h.t.Context(), issue.Process{ID: theDeparted}))
	h.change(`UPDATE processes SET seen_at = seen_at - 86400001 WHERE id = $1`, theDeparted)
	require.NoError(h.t, h.Alive(h.t.Context(), issue.Process{ID: livingOne, Capacity: 7}))
	require.Equal(h.t, []string{livingOne + "|7", livingTwo + "|256"}, h.rows(`SELECT id, capacity FROM processes ORDER BY 1`))
}

func replaceAnother(h house) {
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	c, _ := h.claim(event, livingOne)
	other := "cert-7"
	h.write(issue.Checkpoint{Claim: c, OldID: &other, Release: true})
	_, issuance := h.claim(event, livingOne)
	require.Equal(h.t, other, issuance.OldID)
}
