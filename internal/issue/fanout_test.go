package issue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

// batches are the enrolments of some batches, page by page, and the jobs of a
// ledger that are not resolved.
type batches struct {
	mu       sync.Mutex
	learners map[BatchID][]LearnerID
	jobs     []Job
	pages    []string // batch:cursor of each page that was read
	wanted   map[JobID][]LearnerID
	fails    func(op string, n int) error // n-th operation of that name
	n        map[string]int
	written  int
	size     int
}

func newBatches() *batches {
	return &batches{
		learners: map[BatchID][]LearnerID{}, wanted: map[JobID][]LearnerID{}, n: map[string]int{}, size: 3,
		fails: func(string, int) error { return nil },
	}
}

func (b *batches) add(id JobID, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := BatchID("batch-of-" + id)
	for i := range n {
		b.learners[batch] = append(b.learners[batch], LearnerID(fmt.Sprintf("%s-%02d", id, i)))
	}
	b.jobs = append(b.jobs, Job{ID: id, Batch: batch, Certificates: []string{merit}, State: JobRunning})
}

func (b *batches) op(name string) error {
	b.n[name]++
	return b.fails(name, b.n[name])
}

func (b *batches) Page(_ context.Context, batch BatchID, _ Filter, cursor string, size int) (EnrolmentPage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pages = append(b.pages, string(batch)+":"+cursor)
	if err := b.op("page"); err != nil {
		return EnrolmentPage{}, err
	}
	if size != fanOutPage {
		return EnrolmentPage{}, fmt.Errorf("a page of %d", size)
	}
	var page EnrolmentPage
	for _, learner := range b.learners[batch] {
		if string(learner) <= cursor {
			continue
		}
		if len(page.Enrolments) == b.size {
			page.Next = string(page.Enrolments[b.size-1].Learner)
			break
		}
		page.Enrolments = append(page.Enrolments, Enrolment{Learner: learner, Active: true, Status: 2, CompletedOn: "1566372109689"})
	}
	return page, nil
}

func (b *batches) Unresolved(context.Context) ([]Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.op("list"); err != nil {
		return nil, err
	}
	return slices.Clone(b.jobs), nil
}

func (b *batches) AddPage(_ context.Context, job Job, page FannedOut) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.op("write"); err != nil {
		return err
	}
	i := slices.IndexFunc(b.jobs, func(j Job) bool { return j.ID == job.ID })
	if i < 0 || b.jobs[i].Cursor != job.Cursor {
		return nil // another replica was faster
	}
	for _, wanted := range page.Wanted {
		b.wanted[job.ID] = append(b.wanted[job.ID], wanted.Learner)
	}
	b.jobs[i].Cursor = page.Next
	if page.Last {
		b.jobs = slices.Delete(b.jobs, i, i+1)
	}
	return nil
}

// got lists the learners whom a job wants so far.
func (b *batches) got(job JobID) []LearnerID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.wanted[job])
}

// run runs a fan-out over the batches until the bubble is idle.
func (b *batches) run(t *testing.T, test func(f *FanOut)) {
	t.Helper()
	f := NewFanOut(b, b, func() { b.mu.Lock(); defer b.mu.Unlock(); b.written++ }, nopLog())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	synctest.Wait()
	test(f)
	stop()
	require.NoError(t, <-ended)
}

func TestFanOutTakesTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBatches()
		b.add("state", 8)
		b.add("class", 4)
		begun := time.Now()
		b.run(t, func(*FanOut) {
			require.Equal(t, []string{
				"batch-of-state:", "batch-of-class:", "batch-of-state:state-02", "batch-of-class:class-02", "batch-of-state:state-05",
			}, b.pages, "a class does not wait behind a state")
			require.Zero(t, time.Since(begun), "pages follow each other without a pause")
			require.Equal(t, b.learners["batch-of-state"], b.wanted["state"])
			require.Equal(t, b.learners["batch-of-class"], b.wanted["class"])
			require.Equal(t, 5, b.written, "the dispatcher hears of every page")
		})
	})
}

func TestFanOutLosesNobody(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"list", "page", "write"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBatches()
				b.add("job", 10)
				b.fails = func(name string, n int) error {
					if name == op && n%2 == 0 {
						return errors.New("half way")
					}
					return nil
				}
				b.run(t, func(*FanOut) {
					time.Sleep(time.Minute) //nolint:forbidigo // fake clock
					synctest.Wait()
					require.Equal(t, b.learners["batch-of-job"], b.wanted["job"], "everybody, once, in order")
					require.Empty(t, b.jobs)
				})
			})
		})
	}
}

func TestFanOutDoesNotSpin(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"list", "page", "write"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBatches()
				b.add("job", 1)
				b.fails = func(name string, n int) error { return errorOf(name == op && n <= 100) }
				b.run(t, func(*FanOut) {
					time.Sleep(5 * fanOutPause) //nolint:forbidigo // fake clock
					synctest.Wait()
					b.mu.Lock()
					defer b.mu.Unlock()
					require.Equal(t, 6, b.n[op], "once, and once after each pause")
				})
			})
		})
	}
}

func TestFanOutWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBatches()
		b.run(t, func(f *FanOut) {
			b.add("woken", 1)
			f.Wake()
			f.Wake() // one that is pending serves
			synctest.Wait()
			require.Len(t, b.got("woken"), 1, "at once")

			b.add("left behind", 1) // by another replica: nobody wakes us
			synctest.Wait()
			require.Empty(t, b.got("left behind"))
			time.Sleep(fanOutPause) //nolint:forbidigo // fake clock
			synctest.Wait()
			require.Len(t, b.got("left behind"), 1)
		})
	})
}

func TestFan(t *testing.T) {
	t.Parallel()
	job := Job{ID: "job-1", Batch: "b", Certificates: []string{"Merit", "Completion"}}
	holder := Enrolment{
		Learner: "holds", Active: true, Status: 2, CompletedOn: "1566372109689",
		Held: []HeldCertificate{{Name: "MERIT", ID: "cert-1"}},
	}
	idle := Enrolment{Learner: "idle", Active: true, Status: 1}
	page := EnrolmentPage{Enrolments: []Enrolment{holder, idle}, Next: "idle"}
	completed := time.UnixMilli(1566372109689).UTC()
	completion := Wanted{ID: NewIssuanceID("b", "holds", "Completion"), Learner: "holds", Certificate: "Completion", CompletedOn: completed}
	skips := []Skip{
		{Learner: "idle", Certificate: "Merit", Reason: SkipStatus}, {Learner: "idle", Certificate: "Completion", Reason: SkipStatus},
	}
	require.Empty(t, cmp.Diff(FannedOut{
		Cause: "job-1", Next: "idle", Wanted: []Wanted{completion},
		Skipped: append([]Skip{{Learner: "holds", Certificate: "Merit", Reason: SkipAlreadyIssued}}, skips...),
	}, fan(job, page)), "another certificate does not stand in the way")

	job.ReIssue, page.Next = true, ""
	again := Wanted{ID: NewIssuanceID("b", "holds", "Merit"), Learner: "holds", Certificate: "Merit", CompletedOn: completed, HeldID: "cert-1"}
	require.Empty(t, cmp.Diff(FannedOut{
		Cause: "job-1", Last: true, Wanted: []Wanted{again, completion}, Skipped: skips,
	}, fan(job, page)))
}
