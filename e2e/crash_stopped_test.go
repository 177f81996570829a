//go:build realparts

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/parts"
)

// TestAStoppedConsumerThatComesBack: a consumer that hangs is taken for dead,
// and the others finish what it worked. When it comes back, its late writes are
// refused, and at most it repeats the calls that it was stopped before.
func TestAStoppedConsumerThatComesBack(t *testing.T) {
	t.Parallel()
	const learners = 200
	seed, wanted := crashSettings(t)
	stops := 1 + 2*wanted/longKills
	h := newCrashHouse(t, rand.New(rand.NewPCG(seed, 4)), parts.PostgreSQL(t), 1, 3)
	sum := toll{Rounds: stops}
	for range stops {
		before := strings.Count(h.log.String(), issue.ErrClaimLost.Error())
		b, stopped := h.stopInTheMidst(learners)
		h.until(func() bool { return h.done(b) }, look, lastPatience, "the others do not finish what a stopped one held")
		stopped.signal(syscall.SIGCONT)
		h.until(func() bool { return strings.Count(h.log.String(), issue.ErrClaimLost.Error()) > before }, look, lastPatience,
			"no late write was refused")
		cost, _ := h.settle(roundPatience)
		sum = sum.plus(cost)
	}
	cost, all := h.settle(lastPatience)
	require.True(t, all)
	sum = sum.plus(cost)
	sum.InFlight = stops * crashConcurrency
	report(t, sum)
	require.LessOrEqual(t, sum.Generates, sum.InFlight)
	require.Zero(t, h.kills())
}

// stopInTheMidst stops a consumer that holds claims on learners of a new batch.
// One that has finished its share by then, as on a quick machine it may, goes on,
// and the next batch is tried.
func (h *crashHouse) stopInTheMidst(learners int) (*crashBatch, *ward) {
	h.tb.Helper()
	for range 10 {
		b := h.issueNew(learners)
		reached := h.registered() + h.rng.IntN(learners/2)
		h.until(func() bool { return h.registered() > reached }, glimpse, lastPatience, "the batch stands still")
		stopped := h.consumers[h.rng.IntN(len(h.consumers))]
		stopped.signal(syscall.SIGSTOP)
		if h.claims(stopped) >= crashConcurrency/4 { // of one alone the last write may be under way
			return b, stopped
		}
		stopped.signal(syscall.SIGCONT)
		h.until(func() bool { return h.done(b) }, look, lastPatience, "the batch is not finished")
	}
	require.Fail(h.tb, "no consumer was stopped while it held claims")
	return nil, nil
}

// claims counts what a consumer holds by the ledger.
func (h *crashHouse) claims(w *ward) (n int) {
	h.tb.Helper()
	db := h.openLedger()
	defer db.Close()
	require.NoError(h.tb, db.QueryRowContext(h.tb.Context(), `SELECT COUNT(*) FROM issuances i
		JOIN processes p ON p.id = i.claim_process WHERE p.name LIKE $1`,
		fmt.Sprintf("%%/%d", w.running.cmd.Process.Pid)).Scan(&n))
	return n
}
