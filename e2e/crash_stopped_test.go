//go:build realparts

package e2e

import (
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
		b := h.issueNew(learners)
		begun := h.registered()
		reached := begun + h.rng.IntN(learners/2)
		h.until(func() bool { return h.registered() > reached }, glimpse, lastPatience, "the batch stands still")
		stopped := h.consumers[h.rng.IntN(len(h.consumers))]
		before := strings.Count(h.log.String(), issue.ErrClaimLost.Error())
		stopped.signal(syscall.SIGSTOP)
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
