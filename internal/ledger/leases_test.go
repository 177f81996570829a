package ledger

import (
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func processTests() map[string]func(house) {
	return map[string]func(house){
		"a task is leased to one":                 leasedToOne,
		"the pace is that of those who live":      paceOfTheLiving,
		"a lease that is given back is free":      leaseGivenBack,
		"a lease that was not renewed is another": leaseLapsed,
	}
}

func (h house) lease(task, holder string) bool {
	h.t.Helper()
	ours, err := h.Lease(h.t.Context(), task, holder, time.Minute)
	require.NoError(h.t, err)
	return ours
}

func leasedToOne(h house) {
	require.True(h.t, h.lease("dispatch", "a"))
	require.False(h.t, h.lease("dispatch", "b"))
	require.True(h.t, h.lease("dispatch", "a"), "renewed")
	require.True(h.t, h.lease("reconcile", "b"), "another task")
}

func leaseGivenBack(h house) {
	require.True(h.t, h.lease("dispatch", "a"))
	require.NoError(h.t, h.EndLease(h.t.Context(), "dispatch", "b"))
	require.False(h.t, h.lease("dispatch", "b"), "only its holder gives it back")
	require.NoError(h.t, h.EndLease(h.t.Context(), "dispatch", "a"))
	require.True(h.t, h.lease("dispatch", "b"))
}

func leaseLapsed(h house) {
	require.True(h.t, h.lease("dispatch", "a"))
	h.change(`UPDATE leases SET until = until - 60001`)
	require.True(h.t, h.lease("dispatch", "b"))
	require.False(h.t, h.lease("dispatch", "a"))
}

func paceOfTheLiving(h house) {
	for _, p := range []issue.Process{
		{ID: livingOne, Capacity: 256, Allowed: 40, Finished: 700},
		{ID: livingTwo, Capacity: 256, Allowed: 2, Finished: 5},
		{ID: theDeparted, Capacity: 256, Allowed: 256, Finished: 256},
	} {
		require.NoError(h.t, h.Alive(h.t.Context(), p))
	}
	h.change(`UPDATE processes SET seen_at = seen_at - $1 WHERE id = $2`, claimLapse.Milliseconds()+1000, theDeparted)
	pace, err := h.Pace(h.t.Context())
	require.NoError(h.t, err)
	require.Empty(h.t, cmp.Diff(issue.Pace{Consumers: 2, Allowed: 42, Finished: 705}, pace))
}
