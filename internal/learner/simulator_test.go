package learner_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/learner"
	"github.com/ecreds/issuer/internal/simulator"
)

func platform(t *testing.T) *simulator.Platform {
	t.Helper()
	p, err := simulator.Start(simulator.Config{LearnerEra25: true})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	return p
}

func TestRegistrationsAtThePlatform(t *testing.T) {
	t.Parallel()
	p := platform(t)
	require.NoError(t, p.Load(simulator.Dataset{Users: []simulator.User{{ID: "u1", FirstName: "Asha"}}}))
	client := newClient(t, p.URLs().LearnerService)
	r := registration()
	r.Learner = "u1"
	require.NoError(t, client.Register(t.Context(), r))
	require.NoError(t, client.Register(t.Context(), r), "there already, and ours")
	stranger := r
	stranger.Certificate.AccessCode = "X9X9X9"
	require.Equal(t, issue.ReasonConflict, issue.AsFailure(client.Register(t.Context(), stranger)).Reason)
	rows := p.Registered()
	require.Len(t, rows, 1)
	assert.Equal(t, r.Certificate.ID, rows[0].ID)
	assert.True(t, json.Valid(rows[0].JSONData))

	again := r
	again.Certificate.ID, again.OldID = "second", "unknown-id"
	failure := issue.AsFailure(client.Register(t.Context(), again))
	assert.Equal(t, issue.ReasonConflict, failure.Reason)
	require.ErrorIs(t, failure, issue.ErrOldID)
	again.OldID = r.Certificate.ID
	require.NoError(t, client.Register(t.Context(), again))
	third := again
	third.Certificate.ID = "third" // replaces what was replaced already
	assert.Equal(t, issue.ReasonConflict, issue.AsFailure(client.Register(t.Context(), third)).Reason)

	r.Learner, r.Certificate.ID = "nobody", "fourth"
	failure = issue.AsFailure(client.Register(t.Context(), r))
	assert.Equal(t, issue.ReasonUnknownUser, failure.Reason)
	assert.Equal(t, issue.Permanent, failure.Verdict)

	// Stored, but reported as failed: the repetition finds it there.
	r.Learner, r.Certificate.ID = "u1", "fifth"
	p.SetFault(simulator.Fault{Service: simulator.LearnerService, Operation: "certs_add", AfterWork: true, Status: 500, Times: 1})
	require.Error(t, client.Register(t.Context(), r))
	require.NoError(t, client.Register(t.Context(), r))
}

func TestRecipientsAtThePlatform(t *testing.T) {
	t.Parallel()
	const users = 500
	p := platform(t)
	var data simulator.Dataset
	for n := range users {
		data.Users = append(data.Users, simulator.User{
			ID: fmt.Sprintf("u%03d", n), FirstName: fmt.Sprintf("First%d", n), LastName: "null", RootOrgID: "0123", Unindexed: n == 7,
		})
	}
	require.NoError(t, p.Load(data))
	p.SetFault(simulator.Fault{Service: simulator.LearnerService, Operation: "user_search", Latency: 20 * time.Millisecond})
	recipients := learner.NewRecipients(newClient(t, p.URLs().LearnerService))
	t.Cleanup(recipients.Close)
	var wg sync.WaitGroup
	for n, u := range data.Users {
		wg.Go(func() {
			got, err := recipients.Recipient(t.Context(), issue.LearnerID(u.ID))
			if u.Unindexed {
				assert.Equal(t, issue.ReasonUnknownUser, issue.AsFailure(err).Reason)
				return
			}
			if assert.NoError(t, err) {
				assert.Equal(t, fmt.Sprintf("First%d", n), got.FullName())
				assert.Equal(t, "0123", got.RootOrg)
			}
		})
	}
	wg.Wait()
	assert.Less(t, len(p.Calls(simulator.OfOperation("user_search"))), users/5)
}
