//go:build realparts

package e2e

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/crash"
)

const (
	// shortKills are the deaths of `make test`, half of them on each ledger;
	// `make crash` sets KILLS.
	shortKills = 20
	// longKills are so many that every point has its turn.
	longKills = 200
	// momentsOfARound and the points of one are few enough that a failure can be
	// told from what came before it.
	momentsOfARound        = 4
	consumerPointsOfARound = 4
	apiPointsOfARound      = 2
	learnersOfAMoment      = 60 // so that each death has somebody to interrupt
	learnersOfPoints       = 100
)

// number reads a setting of the tests.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "%s", name)
	return n
}

// crashSettings are the seed and the deaths that are wanted.
func crashSettings(t *testing.T) (seed uint64, kills int) {
	t.Helper()
	seed = uint64(number(t, "SEED", int(time.Now().UnixNano()%1_000_000)))
	kills = number(t, "KILLS", shortKills)
	t.Logf("SEED=%d KILLS=%d", seed, kills)
	return seed, kills
}

// TestCrash lets every part die: at every named point, and at moments that
// chance chooses. Whatever dies, every learner ends with one certificate for
// each revision, and no more calls are repeated than events were in flight.
// SEED repeats the choices; not the moments to the microsecond, which are the
// machine's.
func TestCrash(t *testing.T) {
	t.Parallel()
	seed, kills := crashSettings(t)
	h := newCrashHouse(t, rand.New(rand.NewPCG(seed, 0)), nil, 1, 1)
	report(t, h.crash(kills))
}

// crash lets rounds follow one another until half of the kills are done, and
// looks at what must be true after each.
func (h *crashHouse) crash(wanted int) (sum toll) {
	h.tb.Helper()
	var api, consumer []string
	kills := max(wanted/2, 1)
	for h.kills() < kills {
		if sum.Rounds%2 == 0 {
			if len(consumer) == 0 {
				api, consumer = h.pointsOf()
			}
			more := min(consumerPointsOfARound, len(consumer), kills-h.kills())
			some := min(apiPointsOfARound, len(api), kills-h.kills()-more)
			h.points(api[:some], consumer[:more])
			api, consumer = api[some:], consumer[more:]
		} else {
			deaths := min(momentsOfARound, kills-h.kills())
			h.moments(deaths, deaths*learnersOfAMoment)
		}
		t, _ := h.settle(roundPatience)
		sum = sum.plus(t)
		sum.Rounds++
		h.tb.Logf("after round %d: %+v", sum.Rounds, h.sum(sum))
	}
	// All of it is looked at once more: what came to its end early may have been
	// done again since.
	for _, b := range h.batches {
		b.taken = false
	}
	t, all := h.settle(lastPatience)
	require.True(h.tb, all, "not everything came to its end")
	t.Rounds = sum.Rounds
	if wanted >= longKills {
		require.Empty(h.tb, h.untried(), "points where nobody has died")
	}
	return h.sum(t)
}

// untried lists the points where nobody has died yet.
func (h *crashHouse) untried() []string {
	died := map[string]bool{}
	for _, w := range h.wards() {
		for _, armed := range w.diedAt {
			point, _, _ := strings.Cut(armed, ":")
			died[point] = true
		}
	}
	points := slices.Concat(crash.APIPoints(), crash.ConsumerPoints())
	return slices.DeleteFunc(points, func(point string) bool { return died[point] })
}

// sum adds what is counted for the house as a whole.
func (h *crashHouse) sum(t toll) toll {
	h.tb.Helper()
	t.Kills, t.InFlight = h.kills(), h.inFlight()
	require.LessOrEqual(h.tb, t.Generates, t.InFlight, "more calls were repeated than events were in flight")
	return t
}
