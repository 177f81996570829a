package notify_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/simulator"
)

func TestMessagesAtThePlatform(t *testing.T) {
	t.Parallel()
	p, err := simulator.Start(simulator.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	require.NoError(t, p.Load(simulator.Dataset{Users: []simulator.User{
		{ID: "u1", FirstName: "Asha", Email: "asha@example.in", Phone: "9999991234"},
		{ID: "u2", FirstName: "Ravi"},
	}}))
	client := newClient(t, p.URLs().LearnerService, "@@TRAINING_NAME@@ on @@HELD_DATE@@")
	n := notification()
	n.Course.Name = "Course one"
	require.NoError(t, client.Email(t.Context(), n))
	require.NoError(t, client.SMS(t.Context(), n))
	sent := p.Outbox()
	require.Len(t, sent, 2)
	assert.Equal(t, "email", sent[0].Mode)
	assert.Equal(t, "Course one", sent[0].TrainingName)
	assert.Equal(t, "02-08-2019", sent[0].HeldDate)
	assert.Equal(t, "sms", sent[1].Mode)
	assert.Equal(t, "Course one on 02-08-2019", sent[1].Body)

	n.Learner = "u2"
	assert.Equal(t, issue.ReasonNoAddress, issue.AsFailure(client.Email(t.Context(), n)).Reason)
	n.Learner = "nobody"
	assert.Equal(t, issue.ReasonUnknownUser, issue.AsFailure(client.Email(t.Context(), n)).Reason)
	assert.Len(t, p.Outbox(), 2)
}
