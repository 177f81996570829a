//go:build crash

package crash

import (
	"context"
	"time"

	"github.com/ecreds/issuer/internal/issue"
)

// Dispatcher puts the points of a dispatcher around what it works with.
func Dispatcher(c issue.DispatcherConfig) issue.DispatcherConfig {
	c.Store = dispatchStore{c.Store}
	c.Publisher = publisher{c.Publisher}
	return c
}

// FanOut puts the points around the writes of a fan-out.
func FanOut(store issue.FanOutStore) issue.FanOutStore { return fanOutStore{store} }

// Jobs puts the points around the writing of a job.
func Jobs(store issue.JobStore) issue.JobStore { return jobStore{store} }

type dispatchStore struct{ store issue.DispatchStore }

// TakeDue implements [issue.DispatchStore].
func (s dispatchStore) TakeDue(ctx context.Context, ahead issue.Ahead, limit int) ([]issue.Event, error) {
	defer doing(takeDue)()
	return s.store.TakeDue(ctx, ahead, limit)
}

// Dispatched implements [issue.DispatchStore].
func (s dispatchStore) Dispatched(ctx context.Context, published []issue.Published) error {
	defer doing(dispatched)()
	return s.store.Dispatched(ctx, published)
}

// Recall implements [issue.DispatchStore].
func (s dispatchStore) Recall(ctx context.Context, takenBefore time.Time, reaches []issue.Reach) (int, error) {
	defer doing(recall)()
	return s.store.Recall(ctx, takenBefore, reaches)
}

// Pace implements [issue.DispatchStore]. It only reads.
func (s dispatchStore) Pace(ctx context.Context) (issue.Pace, error) { return s.store.Pace(ctx) }

type publisher struct{ publisher issue.Publisher }

// Publish implements [issue.Publisher].
func (p publisher) Publish(ctx context.Context, events []issue.Event) []issue.Receipt {
	defer doing(publish)()
	return p.publisher.Publish(ctx, events)
}

type fanOutStore struct{ store issue.FanOutStore }

// Unresolved implements [issue.FanOutStore]. It only reads.
func (s fanOutStore) Unresolved(ctx context.Context) ([]issue.Job, error) {
	return s.store.Unresolved(ctx)
}

// AddPage implements [issue.FanOutStore].
func (s fanOutStore) AddPage(ctx context.Context, job issue.Job, page issue.FannedOut) error {
	defer doing(addPage)()
	return s.store.AddPage(ctx, job, page)
}

type jobStore struct{ store issue.JobStore }

// CreateJob implements [issue.JobStore].
func (s jobStore) CreateJob(ctx context.Context, job issue.Job, key, fingerprint string) (issue.Job, error) {
	defer doing(createJob)()
	return s.store.CreateJob(ctx, job, key, fingerprint)
}
