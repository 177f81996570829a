package learner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
	"github.com/ecreds/issuer/internal/sunbird/sunbirdtest"
)

// fakeSearches answers after a while, like a service.
type fakeSearches struct {
	takes  time.Duration
	answer func(ids []issue.LearnerID) ([]user, error)

	mu     sync.Mutex
	groups [][]issue.LearnerID
	most   int
	now    int
}

func (f *fakeSearches) search(ctx context.Context, ids []issue.LearnerID) ([]user, error) {
	f.mu.Lock()
	f.groups = append(f.groups, ids)
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.now--
		f.mu.Unlock()
	}()
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.answer != nil {
		return f.answer(ids)
	}
	return known(ids)
}

func (f *fakeSearches) sizes() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var sizes []int
	for _, g := range f.groups {
		sizes = append(sizes, len(g))
	}
	return sizes
}

// known finds everybody, in the wrong order.
func known(ids []issue.LearnerID) ([]user, error) {
	users := make([]user, len(ids))
	for i, id := range ids {
		users[len(ids)-1-i] = user{Identifier: sunbird.Text(id), FirstName: sunbird.Text("Name of " + id)}
	}
	return users, nil
}

// lookUp starts a lookup for each id and returns the results once all are in.
func lookUp(t *testing.T, r *Recipients, ids ...issue.LearnerID) ([]issue.Recipient, []error) {
	t.Helper()
	recipients, errs := make([]issue.Recipient, len(ids)), make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { recipients[i], errs[i] = r.Recipient(t.Context(), id) })
		synctest.Wait() // one after the other, so that groups are the same each time
	}
	wg.Wait()
	return recipients, errs
}

func numbered(n int) []issue.LearnerID {
	ids := make([]issue.LearnerID, n)
	for i := range ids {
		ids[i] = issue.LearnerID(fmt.Sprintf("u%03d", i))
	}
	return ids
}

func TestGroups(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		takes time.Duration
		ids   []issue.LearnerID
		sizes []int
		most  int
		ends  time.Duration
	}{
		"while it is quick, nobody waits": {10 * time.Millisecond, numbered(4), []int{1, 1, 1, 1}, 4, 10 * time.Millisecond},
		"the others go together when a place is free": {
			10 * time.Millisecond, numbered(50), []int{1, 1, 1, 1, 46}, 4, 20 * time.Millisecond,
		},
		"or after 20 ms": {time.Second, numbered(50), []int{1, 1, 1, 1, 46}, 5, 1020 * time.Millisecond},
		"or when full":   {time.Second, numbered(204), []int{1, 1, 1, 1, 100, 100}, 6, time.Second},
		"twins share": {
			10 * time.Millisecond, []issue.LearnerID{"a", "b", "c", "d", "x", "y", "x", "x"}, []int{1, 1, 1, 1, 2}, 4, 20 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := &fakeSearches{takes: tt.takes}
				r := newRecipients(fake)
				defer r.Close()
				start := time.Now()
				got, errs := lookUp(t, r, tt.ids...)
				assert.Equal(t, tt.ends, time.Since(start))
				assert.Equal(t, tt.sizes, fake.sizes())
				assert.Equal(t, tt.most, fake.most)
				for i, id := range tt.ids {
					require.NoError(t, errs[i])
					assert.Equal(t, id, got[i].ID)
					assert.Equal(t, "Name of "+string(id), got[i].FirstName)
				}
			})
		})
	}
}

// TestAWaiterLeaves: one whose context ends is released at once, and the others
// of its group get what they asked for.
func TestAWaiterLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeSearches{takes: time.Second}
		r := newRecipients(fake)
		defer r.Close()
		var wg sync.WaitGroup
		for range freeSearches {
			wg.Go(func() { _, _ = r.Recipient(t.Context(), "busy") })
		}
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		wg.Go(func() { // first of its group: the search would carry its context
			_, err := r.Recipient(ctx, "leaver")
			if assert.ErrorIs(t, err, context.DeadlineExceeded) {
				assert.Equal(t, 5*time.Millisecond, time.Since(start))
			}
		})
		synctest.Wait()
		for _, id := range []issue.LearnerID{"stayer", "leaver"} {
			wg.Go(func() {
				got, err := r.Recipient(t.Context(), id)
				if assert.NoError(t, err) {
					assert.Equal(t, id, got.ID)
				}
			})
		}
		wg.Wait()
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeSearches{takes: time.Hour}
		r := newRecipients(fake)
		var wg sync.WaitGroup
		for _, id := range numbered(6) { // four under way, two in the forming group
			wg.Go(func() {
				_, err := r.Recipient(t.Context(), id)
				// Not as if the waiter's own context had ended.
				if assert.ErrorIs(t, err, ErrClosed) {
					assert.NotErrorIs(t, err, context.Canceled)
				}
			})
			synctest.Wait()
		}
		start := time.Now()
		r.Close()
		wg.Wait()
		assert.Less(t, time.Since(start), time.Second)
		_, err := r.Recipient(t.Context(), "late")
		require.ErrorIs(t, err, ErrClosed)
		r.Close()
	})
}

// TestGroupAnswers: what becomes of a group whose answer is not that simple.
func TestGroupAnswers(t *testing.T) {
	t.Parallel()
	ids := []issue.LearnerID{"a", "b", "c", "d", "x", "y", "z"} // x, y and z are one group
	bad := &issue.Failure{Verdict: issue.Permanent, Reason: issue.ReasonBadRequest}
	away := &issue.Failure{Verdict: issue.Outage, Reason: issue.ReasonUnavailable}
	for name, tt := range map[string]struct {
		answer func(ids []issue.LearnerID) ([]user, error)
		want   map[issue.LearnerID]issue.Reason // "" = found
		sizes  []int
	}{
		"one is unknown": {
			answer: func(ids []issue.LearnerID) ([]user, error) {
				users, _ := known(ids)
				kept := users[:0]
				for _, u := range users {
					if u.Identifier != "y" {
						kept = append(kept, u)
					}
				}
				return kept, nil
			},
			want:  map[issue.LearnerID]issue.Reason{"y": issue.ReasonUnknownUser},
			sizes: []int{1, 1, 1, 1, 3},
		},
		"rows that do not say whose they are": {
			answer: func(ids []issue.LearnerID) ([]user, error) {
				users, _ := known(ids)
				for i := range users {
					users[i].Identifier = ""
				}
				return users, nil
			},
			sizes: []int{1, 1, 1, 1, 3, 1, 1, 1},
		},
		"one id spoils the group": {
			answer: func(ids []issue.LearnerID) ([]user, error) {
				for _, id := range ids {
					if id == "y" {
						return nil, bad
					}
				}
				return known(ids)
			},
			want:  map[issue.LearnerID]issue.Reason{"y": issue.ReasonBadRequest},
			sizes: []int{1, 1, 1, 1, 3, 1, 1, 1},
		},
		"the service is away": {
			answer: func(ids []issue.LearnerID) ([]user, error) {
				if len(ids) > 1 {
					return nil, away
				}
				return known(ids)
			},
			want: map[issue.LearnerID]issue.Reason{
				"x": issue.ReasonUnavailable, "y": issue.ReasonUnavailable, "z": issue.ReasonUnavailable,
			},
			sizes: []int{1, 1, 1, 1, 3},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := &fakeSearches{takes: time.Millisecond, answer: tt.answer}
				r := newRecipients(fake)
				defer r.Close()
				got, errs := lookUp(t, r, ids...)
				for i, id := range ids {
					if reason := tt.want[id]; reason != "" {
						assert.Equal(t, reason, issue.AsFailure(errs[i]).Reason, id)
						continue
					}
					require.NoError(t, errs[i], id)
					assert.Equal(t, "Name of "+string(id), got[i].FirstName)
				}
				assert.Equal(t, tt.sizes, fake.sizes())
			})
		})
	}
}

// TestManyLookups has many callers at once over HTTP, for the race detector.
func TestManyLookups(t *testing.T) {
	t.Parallel()
	const callers = 300
	server := sunbirdtest.ServeFunc(t, func(r sunbirdtest.Request) sunbirdtest.Reply {
		var body struct {
			Request struct {
				Filters struct {
					Identifier any `json:"identifier"`
				} `json:"filters"`
				Limit int `json:"limit"`
			} `json:"request"`
		}
		if err := sunbird.Decode([]byte(r.Body), &body); err != nil {
			return sunbirdtest.JSON(400, `{}`)
		}
		ids, ok := body.Request.Filters.Identifier.([]any)
		if !ok {
			ids = []any{body.Request.Filters.Identifier}
		}
		if len(ids) > groupSize || body.Request.Limit != len(ids) {
			return sunbirdtest.JSON(400, `{}`)
		}
		var rows []map[string]any
		for _, id := range ids {
			rows = append(rows, map[string]any{"id": id, "firstName": "Name"})
		}
		answer, err := sunbird.JSON(map[string]any{"result": map[string]any{"response": map[string]any{"count": len(rows), "content": rows}}})
		if err != nil {
			return sunbirdtest.JSON(500, `{}`)
		}
		return sunbirdtest.JSON(200, string(answer))
	})
	client, err := New(Config{URL: server.URL, HTTP: sunbirdtest.HTTPClient(t)})
	require.NoError(t, err)
	r := NewRecipients(client)
	t.Cleanup(r.Close)
	var wg sync.WaitGroup
	for _, id := range numbered(callers) {
		wg.Go(func() {
			got, err := r.Recipient(t.Context(), id)
			if assert.NoError(t, err) {
				assert.Equal(t, id, got.ID)
			}
		})
	}
	wg.Wait()
	assert.Less(t, len(server.Requests()), callers, "lookups share calls")
}

func TestSearchBodyOfAGroup(t *testing.T) {
	t.Parallel()
	body, err := searchBody([]issue.LearnerID{"u1", "u<2>"})
	require.NoError(t, err)
	sunbirdtest.Golden(t, "search-group.json", body)
}

var errSome = errors.New("some error")

// TestUnclassifiedErrorsReachEverybody: even an error that no edge classified
// releases the waiters.
func TestUnclassifiedErrorsReachEverybody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecipients(&fakeSearches{takes: 1, answer: func([]issue.LearnerID) ([]user, error) { return nil, errSome }})
		defer r.Close()
		_, errs := lookUp(t, r, numbered(6)...)
		for _, err := range errs {
			require.ErrorIs(t, err, errSome)
		}
	})
}
