package content_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/content"
	"github.com/ecreds/issuer/internal/issue"
)

// courses is a source whose calls take a second.
type courses struct {
	calls atomic.Int32
	fail  error
}

func (c *courses) Course(ctx context.Context, id issue.CourseID) (issue.Course, error) {
	c.calls.Add(1)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return issue.Course{}, ctx.Err()
	}
	return issue.Course{ID: id}, c.fail
}

func TestCached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &courses{}
		cached := content.NewCached(source, 0)
		var wg sync.WaitGroup
		for range 50 {
			for _, id := range []issue.CourseID{"do_1", "do_2"} {
				wg.Go(func() {
					course, err := cached.Course(t.Context(), id)
					if assert.NoError(t, err) {
						assert.Equal(t, id, course.ID)
					}
				})
			}
		}
		wg.Wait()
		assert.EqualValues(t, 2, source.calls.Load(), "one call for each course")

		time.Sleep(content.CacheFor - time.Second) //nolint:forbidigo // fake clock
		_, err := cached.Course(t.Context(), "do_1")
		require.NoError(t, err)
		assert.EqualValues(t, 2, source.calls.Load(), "still kept")

		time.Sleep(time.Second) //nolint:forbidigo // fake clock
		_, err = cached.Course(t.Context(), "do_1")
		require.NoError(t, err)
		assert.EqualValues(t, 3, source.calls.Load(), "read again")
	})
}

func TestCachedKeepsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &courses{fail: errors.New("away")}
		cached := content.NewCached(source, time.Minute)
		for n := range 3 {
			_, err := cached.Course(t.Context(), "do_1")
			require.ErrorIs(t, err, source.fail)
			assert.EqualValues(t, n+1, source.calls.Load())
		}
	})
}

// TestCachedCallerLeaves: whoever asked first may leave; the others still get
// the course from the one call.
func TestCachedCallerLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &courses{}
		cached := content.NewCached(source, time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := cached.Course(ctx, "do_1")
			assert.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		wg.Go(func() {
			_, err := cached.Course(t.Context(), "do_1")
			assert.NoError(t, err)
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		assert.EqualValues(t, 1, source.calls.Load())
	})
}
