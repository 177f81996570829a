//go:build realparts

package e2e

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCrashInTheMidstOfALargeFanOut kills the API again and again while it
// writes down whom a batch is for: 10,000 learners in the short run, 100,000 in
// the long one.
func TestCrashInTheMidstOfALargeFanOut(t *testing.T) {
	t.Parallel()
	const kills = 6
	seed, wanted := crashSettings(t)
	learners := min(wanted*500, 100_000)
	h := newCrashHouse(t, rand.New(rand.NewPCG(seed, 3)), nil, 1, 0)
	b := h.newBatch(learners)
	h.issueBatch(b)
	api := h.apis[0]
	inTheMidst := 0 // a quick machine has written the rest before it is killed
	for kill := range kills {
		written := (kill*learners + h.rng.IntN(learners)) / (kills + 1)
		h.until(func() bool { return h.written(b) >= written }, glimpse, lastPatience, "the fan-out stands still")
		api.strike()
		if h.written(b) < learners {
			inTheMidst++
		}
	}
	require.GreaterOrEqual(t, inTheMidst, 2, "it dies in the midst of it")
	h.until(func() bool { j, ok := h.jobOf(b.jobs[0]); return ok && j.Resolved }, look, lastPatience, "the job was not resolved")
	require.Equal(t, learners, h.written(b))
	finished, listed := h.listed(b)
	require.Len(t, listed, learners, "each learner once")
	require.Equal(t, learners, finished.Eligible)
	require.Equal(t, learners, finished.Counts["queued"])
	require.Equal(t, kills, api.deaths)
}

// written counts the batch's issuances in the ledger.
func (h *crashHouse) written(b *crashBatch) (n int) {
	h.tb.Helper()
	db := h.openLedger()
	defer db.Close()
	require.NoError(h.tb, db.QueryRowContext(h.tb.Context(), `SELECT COUNT(*) FROM issuances WHERE batch_id = $1`, b.id).Scan(&n))
	return n
}
