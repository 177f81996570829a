package ledger

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

// severalTests are what only several processes show: each of their ledgers is
// one that a process of its own would have opened.
func severalTests() map[string]func(house) {
	return map[string]func(house){
		"two programs share a ledger":             twoPrograms,
		"two programs start at once":              startAtOnce,
		"two claims of one issuance":              twoClaims,
		"two dispatchers":                         twoDispatchers,
		"a write of one who was taken for dead":   takenForDead,
		"taken over in the middle of a write":     takenOver,
		"two replicas write the same page":        samePage,
		"pages that overlap in the other order":   otherOrder,
		"two replicas accept the same key":        sameKey,
		"another installation's ledger":           anothersLedger,
		"sums after groups of several at a time":  sumsOfSeveral,
		"a re-issue while another process issues": reIssueMeanwhile,
	}
}

// another opens the ledger as another process would.
func (h house) another() house {
	h.t.Helper()
	return house{openURL(h.t, h.url), h.t, h.kind, h.url}
}

// atOnce runs something in several goroutines, and returns when all have ended.
func atOnce(n int, run func(i int)) {
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { run(i) })
	}
	wait.Wait()
}

// An API fans out and dispatches while a consumer works.
func twoPrograms(h house) {
	const jobs, learners = 4, 60
	t, api, consumer := h.t, h.another().Ledger, h.Ledger
	events := make(chan issue.Event, jobs*learners)
	var fanOut, work sync.WaitGroup
	errs := make(chan error, jobs+10)
	for j := range jobs {
		fanOut.Go(func() { errs <- fanOutJob(api, j, learners) })
	}
	issued := atomic.Int64{}
	for w := range 8 {
		work.Go(func() { errs <- workOff(consumer, events, w, &issued) })
	}
	dispatched := 0
	for dispatched < jobs*learners {
		taken, err := api.TakeDue(t.Context(), issue.Ahead{PerJob: 20}, 50)
		require.NoError(t, err)
		published := make([]issue.Published, len(taken))
		for i, event := range taken {
			published[i] = receipt(event, issue.PublishOK)[0]
			events <- event
		}
		require.NoError(t, api.Dispatched(t.Context(), published))
		dispatched += len(taken)
		_, _, err = api.Job(t.Context(), "job-0")
		require.NoError(t, err)
	}
	close(events)
	fanOut.Wait()
	work.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.EqualValues(t, jobs*learners, issued.Load())
	for j := range jobs {
		job, found, err := api.Job(t.Context(), issue.JobID(fmt.Sprint("job-", j)))
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, learners, job.Issued)
		require.True(t, job.Done())
	}
	require.Len(t, h.rows(`SELECT id FROM issuances`), jobs*learners)
}

func fanOutJob(l *Ledger, j, learners int) error {
	ctx := context.Background()
	job := aJob(issue.JobID(fmt.Sprint("job-", j)))
	if _, err := l.CreateJob(ctx, job, "", ""); err != nil {
		return err
	}
	all := many(fmt.Sprint("j", j), learners)
	for from := 0; from < learners; from += 20 {
		page := pageOf(job, all[from:from+20]...)
		page.Last = from+20 == learners
		page.Next = string(all[from+19])
		if err := l.AddPage(ctx, job, page); err != nil {
			return err
		}
		job.Cursor = page.Next
	}
	return nil
}

func workOff(l *Ledger, events <-chan issue.Event, w int, issued *atomic.Int64) error {
	ctx := context.Background()
	for event := range events {
		c := claimOf(event, []string{livingOne, livingTwo}[w%2])
		issuance, result, err := l.Claim(ctx, c)
		if err != nil || result != issue.Claimed {
			return fmt.Errorf("claim: %v, %w", result, err)
		}
		c.Row = issuance.Row
		before := issue.Standing{Revision: issuance.Revision, State: issuance.State, Issued: issuance.Issued}
		for _, checkpoint := range way(c, "cert-"+string(event.Learner)) {
			checkpoint.Before = before
			if err := l.Checkpoint(ctx, checkpoint); err != nil {
				return err
			}
			before.State, before.Issued = checkpoint.State, before.Issued || checkpoint.Registered
		}
		issued.Add(1)
	}
	return nil
}

func startAtOnce(h house) {
	for range 5 {
		errs := make([]error, 3)
		url := h.kind.place(h.t)
		atOnce(3, func(i int) {
			l, err := Open(context.Background(), Config{
				URL: url, Migrate: true, Installation: "ours", ClaimLapse: claimLapse, Registry: prometheus.NewRegistry(),
			})
			if err == nil {
				err = l.Close()
			}
			errs[i] = err
		})
		require.Equal(h.t, make([]error, 3), errs)
	}
}

func anothersLedger(h house) {
	config := Config{URL: h.kind.place(h.t), Migrate: true, Installation: "ours", Registry: prometheus.NewRegistry()}
	l, err := Open(h.t.Context(), config)
	require.NoError(h.t, err)
	require.NoError(h.t, l.Close())
	config.Installation = "theirs"
	_, err = Open(h.t.Context(), config)
	require.ErrorContains(h.t, err, ` belongs to the installation "ours" and this one is "theirs": see TOPIC_PREFIX and DATABASE_URL`)
	config.Installation, config.Migrate, config.Registry = "ours", false, prometheus.NewRegistry()
	l, err = Open(h.t.Context(), config)
	require.NoError(h.t, err)
	require.NoError(h.t, l.Close())
}

func twoClaims(h house) {
	h.resolved(aJob("job-1"), many("u", 50)...)
	both := []house{h, h.another()}
	for _, event := range h.take() {
		var results [4]issue.ClaimResult
		var errs [4]error
		atOnce(4, func(i int) {
			_, results[i], errs[i] = both[i%2].Ledger.Claim(context.Background(), claimOf(event, livingOne))
		})
		require.Equal(h.t, [4]error{}, errs)
		slices.Sort(results[:])
		require.Equal(h.t, [4]issue.ClaimResult{issue.Claimed, issue.ClaimBusy, issue.ClaimBusy, issue.ClaimBusy}, results)
	}
}

func twoDispatchers(h house) {
	const learners = 600
	h.resolved(aJob("job-1"), many("u", learners)...)
	both := []house{h, h.another()}
	var taken sync.Map
	var n atomic.Int64
	atOnce(4, func(i int) {
		for n.Load() < learners {
			events, err := both[i%2].TakeDue(context.Background(), issue.Ahead{}, 50)
			if err != nil {
				h.t.Error(err)
				return
			}
			for _, event := range events {
				if _, twice := taken.LoadOrStore(event.Issuance, true); twice {
					h.t.Errorf("%s was taken twice", event.Issuance)
				}
				n.Add(1)
			}
		}
	})
	require.EqualValues(h.t, learners, n.Load())
	require.Equal(h.t, []string{"600|1|1"}, h.rows(`SELECT COUNT(*), MIN(dispatch), MAX(dispatch) FROM issuances`))
}

func takenForDead(h house) {
	other := h.another()
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	hung, _ := h.claim(event, theDeparted)
	other.claim(event, livingOne)
	before := h.everything()
	for _, late := range way(hung, "cert-of-the-hung") {
		require.ErrorIs(h.t, h.checkpoint(late), issue.ErrClaimLost)
		require.Equal(h.t, before, h.everything())
	}
}

// Whatever of the two comes first, a write is either taken before the issuance
// changes hands or refused.
func takenOver(h house) {
	other := h.another()
	h.resolved(aJob("job-1"), many("u", 60)...)
	for _, event := range h.take() {
		hung, issuance := h.claim(event, theDeparted)
		hung.Row = issuance.Row
		var late, err error
		var taken issue.Issuance
		var result issue.ClaimResult
		atOnce(2, func(i int) {
			if i == 0 {
				c := way(hung, "cert-1")[1]
				c.Before = issue.Standing{Revision: 1, State: issue.Queued}
				late = h.Checkpoint(context.Background(), c)
				return
			}
			taken, result, err = other.Ledger.Claim(context.Background(), claimOf(event, livingOne))
		})
		require.NoError(h.t, err)
		require.Equal(h.t, issue.Claimed, result)
		if late == nil {
			require.NotNil(h.t, taken.Made, "what was written is handed over")
			continue
		}
		require.ErrorIs(h.t, late, issue.ErrClaimLost)
		require.Nil(h.t, taken.Made)
	}
}

func samePage(h house) {
	both := []house{h, h.another()}
	job := aJob("job-1")
	_, err := h.CreateJob(h.t.Context(), job, "", "")
	require.NoError(h.t, err)
	for i := range 10 {
		page := pageOf(job, many(fmt.Sprint("p", i), 20)...)
		page.Next, page.Last = fmt.Sprint("page-", i), i == 9
		var errs [4]error
		atOnce(4, func(i int) { errs[i] = both[i%2].AddPage(context.Background(), job, page) })
		require.Equal(h.t, [4]error{}, errs)
		job.Cursor = page.Next
	}
	require.Equal(h.t, map[issue.State]int{issue.Queued: 200}, h.job(job.ID).Counts)
	require.Equal(h.t, 200, h.job(job.ID).Eligible)
}

// Two jobs that want the same learners must not wait for each other in a circle.
func otherOrder(h house) {
	both := []house{h, h.another()}
	learners := many("u", 200)
	for i := range 5 {
		var errs [2]error
		atOnce(2, func(n int) {
			mine := slices.Clone(learners)
			if n == 1 {
				slices.Reverse(mine)
			}
			job := aJob(issue.JobID(fmt.Sprintf("job-%d-%d", i, n)))
			if _, errs[n] = both[n].CreateJob(context.Background(), job, "", ""); errs[n] == nil {
				errs[n] = both[n].AddPage(context.Background(), job, pageOf(job, mine...))
			}
		})
		require.Equal(h.t, [2]error{}, errs)
	}
	require.Len(h.t, h.rows(`SELECT id FROM issuances WHERE wanted_by = 10`), 200)
}

func sameKey(h house) {
	both := []house{h, h.another()}
	var jobs [4]issue.Job
	var errs [4]error
	atOnce(4, func(i int) {
		jobs[i], errs[i] = both[i%2].CreateJob(context.Background(), aJob(issue.JobID(fmt.Sprint("job-", i))), "key", "print")
	})
	require.Equal(h.t, [4]error{}, errs)
	for _, job := range jobs[1:] {
		require.Equal(h.t, jobs[0].ID, job.ID)
	}
	require.Len(h.t, h.rows(`SELECT id FROM jobs`), 1)
}

// The sums are checked against the rows when the test ends.
func sumsOfSeveral(h house) {
	const learners = 200
	both := []house{h, h.another()}
	h.resolved(aJob("job-1"), many("u", learners)...)
	h.resolved(aJob("job-2"), many("u", learners)...)
	events := make(chan issue.Event, learners)
	for _, event := range h.take() {
		events <- event
	}
	close(events)
	var issued atomic.Int64
	var errs [16]error
	atOnce(16, func(i int) { errs[i] = workOff(both[i%2].Ledger, events, i, &issued) })
	require.Equal(h.t, [16]error{}, errs)
	for _, job := range []issue.JobID{"job-1", "job-2"} {
		require.Equal(h.t, map[issue.State]int{issue.Notified: learners}, h.job(job).Counts)
		require.Equal(h.t, learners, h.job(job).Issued)
	}
}

// A re-issue asked for while the first one is being finished elsewhere starts
// once, whichever of the two comes first.
func reIssueMeanwhile(h house) {
	other := h.another()
	learners := many("u", 40)
	h.resolved(aJob("job-1"), learners...)
	again := aJob("job-2", reIssue)
	_, err := h.CreateJob(h.t.Context(), again, "", "")
	require.NoError(h.t, err)
	events := make(chan issue.Event, len(learners))
	for _, event := range h.take() {
		events <- event
	}
	close(events)
	var issued atomic.Int64
	var errs [9]error
	atOnce(9, func(i int) {
		if i == 8 {
			errs[i] = other.AddPage(context.Background(), again, pageOf(again, learners...))
			return
		}
		errs[i] = workOff(h.Ledger, events, i, &issued)
	})
	require.Equal(h.t, [9]error{}, errs)
	require.Len(h.t, h.take(), len(learners))
	require.Equal(h.t, []string{"2|2|40"}, h.rows(`SELECT MIN(revision), MAX(revision), COUNT(*) FROM issuances`))
}
