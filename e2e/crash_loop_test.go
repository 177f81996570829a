//go:build realparts

package e2e

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/crash"
)

// TestAnEventThatKillsItsProcessIsConvicted: the third death is the last, and
// whoever was in flight beside it has his certificate.
func TestAnEventThatKillsItsProcessIsConvicted(t *testing.T) {
	t.Parallel()
	seed, _ := crashSettings(t)
	h := newCrashHouse(t, rand.New(rand.NewPCG(seed, 2)), nil, 1, 0)
	b := h.newBatch(200)
	culprit := b.learners[h.rng.IntN(len(b.learners))]
	w := h.ward("cert-consumer", "CRASH_LIMIT=3", crash.OnLearner+"="+culprit)
	h.consumers = []*ward{w}
	h.issueBatch(b)
	h.until(func() bool { return h.done(b) }, look, lastPatience, "the batch is not done")
	require.Equal(t, 3, w.deaths)

	finished, learners := h.listed(b)
	require.Equal(t, map[string]int{"crash_loop": 1}, finished.FailedBy)
	require.Equal(t, "crash_loop", learners[culprit].Reason)
	require.Equal(t, "failed", learners[culprit].State)
	require.Equal(t, len(b.learners)-1, finished.Counts["issued"])
	h.requireOneCertificateEach(len(b.learners) - 1)
	letters := h.records(deadLetterTopic, 1)
	require.Equal(t, culprit, string(letters[0].Key))
	require.Equal(t, "crash_loop", header(letters[0], "dlq.reason"))
}
