//go:build crash

package crash

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

// TestEveryPointIsPassed does once whatever can be done outwards, and compares
// the points passed with the lists.
func TestEveryPointIsPassed(t *testing.T) {
	var seen []string
	kill := passed
	passed = func(point string) { seen = append(seen, point) }
	t.Cleanup(func() { passed = kill })
	ctx, f := t.Context(), fake{}

	w := Worker(issue.WorkerConfig{Store: f, Generator: f, Registrar: f, Notifier: f})
	_, _, _ = w.Store.Claim(ctx, issue.Claim{})
	_, _ = w.Generator.Generate(ctx, issue.GenerateRequest{Recipient: issue.Recipient{ID: "u1"}})
	_ = w.Registrar.Register(ctx, issue.Registration{})
	_ = w.Notifier.Email(ctx, issue.Notification{})
	_ = w.Notifier.SMS(ctx, issue.Notification{})
	_, _ = Bury(func(context.Context, issue.DeadLetter) (issue.Place, error) { return issue.Place{}, nil })(ctx, issue.DeadLetter{})
	for _, state := range []issue.State{
		issue.Generating, issue.Registering, issue.Notifying, issue.Notified, issue.Retrying, issue.Failed,
	} {
		_ = w.Store.Checkpoint(ctx, issue.Checkpoint{State: state})
	}
	_ = w.Store.Checkpoint(ctx, issue.Checkpoint{Release: true, State: issue.Generated})
	_, _ = w.Store.TemplateFailed(ctx, issue.TemplateUse{}, "u1")
	_ = w.Store.Adopt(ctx, issue.Job{}, issue.FannedOut{})
	_ = w.Store.IndexPoison(ctx, issue.DeadLetter{})
	require.Equal(t, ConsumerPoints(), seen)

	seen = nil
	d := Dispatcher(issue.DispatcherConfig{Store: fakeDispatch{}, Publisher: fakeDispatch{}})
	_, _ = Jobs(fakeJobs{}).CreateJob(ctx, issue.Job{}, "", "")
	_ = FanOut(fakeJobs{}).AddPage(ctx, issue.Job{}, issue.FannedOut{})
	_, _ = d.Store.TakeDue(ctx, issue.Ahead{}, 1)
	_ = d.Publisher.Publish(ctx, nil)
	_ = d.Store.Dispatched(ctx, nil)
	_, _ = d.Store.Recall(ctx, time.Time{}, nil)
	require.Equal(t, APIPoints(), seen)
}

func TestAPointThatIsNotListedEndsTheProgram(t *testing.T) {
	require.Panics(t, func() { doing("write recording") })
	require.False(t, slices.Contains(ConsumerPoints(), "before write recording"))
}

// The fakes do nothing: what matters is that they were asked.
type (
	fake         struct{ issue.WorkStore }
	fakeDispatch struct{ issue.DispatchStore }
	fakeJobs     struct{ issue.FanOutStore }
)

func (fake) Claim(context.Context, issue.Claim) (issue.Issuance, issue.ClaimResult, error) {
	return issue.Issuance{}, issue.Claimed, nil
}
func (fake) Checkpoint(context.Context, issue.Checkpoint) error            { return nil }
func (fake) Adopt(context.Context, issue.Job, issue.FannedOut) error       { return nil }
func (fake) IndexPoison(context.Context, issue.DeadLetter) error           { return nil }
func (fake) Register(context.Context, issue.Registration) error            { return nil }
func (fake) Email(context.Context, issue.Notification) error               { return nil }
func (fake) SMS(context.Context, issue.Notification) error                 { return nil }
func (fakeJobs) AddPage(context.Context, issue.Job, issue.FannedOut) error { return nil }

func (fake) TemplateFailed(context.Context, issue.TemplateUse, issue.LearnerID) (issue.TemplateStanding, error) {
	return issue.TemplateStanding{}, nil
}

func (fake) Generate(context.Context, issue.GenerateRequest) (issue.Certificate, error) {
	return issue.Certificate{}, nil
}

func (fakeDispatch) TakeDue(context.Context, issue.Ahead, int) ([]issue.Event, error) {
	return nil, nil
}
func (fakeDispatch) Dispatched(context.Context, []issue.Published) error           { return nil }
func (fakeDispatch) Recall(context.Context, time.Time, []issue.Reach) (int, error) { return 0, nil }
func (fakeDispatch) Publish(context.Context, []issue.Event) []issue.Receipt        { return nil }
func (fakeJobs) CreateJob(_ context.Context, job issue.Job, _, _ string) (issue.Job, error) {
	return job, nil
}
