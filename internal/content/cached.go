package content

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/ecreds/issuer/internal/issue"
)

// CacheFor is how long a course is believed: a batch of any size reads it a few
// times an hour, and a corrected template is in use within ten minutes.
const CacheFor = 10 * time.Minute

// Cached keeps courses for a while. Callers who want the same course at the
// same time share one call; a failure is not kept. The courses it gives are
// shared and must not be changed.
type Cached struct {
	courses issue.Courses
	life    time.Duration
	flight  singleflight.Group

	mu   sync.Mutex
	kept map[issue.CourseID]keptCourse
}

type keptCourse struct {
	course issue.Course
	until  time.Time
}

var _ issue.Courses = (*Cached)(nil)

// NewCached keeps the courses of another source for a time; 0 = [CacheFor].
func NewCached(courses issue.Courses, life time.Duration) *Cached {
	if life == 0 {
		life = CacheFor
	}
	return &Cached{courses: courses, life: life, kept: make(map[issue.CourseID]keptCourse)}
}

// Course gives the course as kept or as read, and returns when ctx ends. The
// call itself goes on for those who still wait, until its own timeout.
func (c *Cached) Course(ctx context.Context, id issue.CourseID) (issue.Course, error) {
	if course, ok := c.recall(id); ok {
		return course, nil
	}
	read := c.flight.DoChan(string(id), func() (any, error) {
		// Who came between the look above and this call finds it kept.
		if course, ok := c.recall(id); ok {
			return course, nil
		}
		course, err := c.courses.Course(context.WithoutCancel(ctx), id)
		if err == nil {
			c.keep(id, course)
		}
		return course, err
	})
	select {
	case result := <-read:
		course, _ := result.Val.(issue.Course)
		return course, result.Err
	case <-ctx.Done():
		return issue.Course{}, fmt.Errorf("read course %s: %w", id, ctx.Err())
	}
}

func (c *Cached) recall(id issue.CourseID) (issue.Course, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept, ok := c.kept[id]
	return kept.course, ok && time.Now().Before(kept.until)
}

// keep also forgets what has lapsed, so that the map holds no more courses than
// were read in the last ten minutes.
func (c *Cached) keep(id issue.CourseID, course issue.Course) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for other, kept := range c.kept {
		if !now.Before(kept.until) {
			delete(c.kept, other)
		}
	}
	c.kept[id] = keptCourse{course: course, until: now.Add(c.life)}
}
