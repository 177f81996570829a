package issue

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// fanOutPage is how many enrolments are read and written at once: small enough
// that the ledger's write lock is held for some 20 ms, large enough that a
// page costs more in rows than in round trips.
const fanOutPage = 500

// Wanted is one issuance that a page of the fan-out asks for.
type Wanted struct {
	ID          IssuanceID
	Learner     LearnerID
	Certificate string
	CompletedOn time.Time
	// HeldID is the certificate of that name which the enrolment shows; it
	// becomes the oldId of a re-issue when the ledger knows no newer one.
	HeldID string
}

// Skip is one learner whom a job passes over.
type Skip struct {
	Learner     LearnerID
	Certificate string
	Reason      SkipReason
}

// FannedOut is what one page of enrolments comes to.
type FannedOut struct {
	Wanted  []Wanted
	Skipped []Skip
	// Cause is what makes a re-issue of this page one revision and not two: the
	// job, or for a standing job the message id of the event.
	Cause string
	Next  string // the cursor to store with it
	Last  bool
}

type (
	// EnrolmentPager reads the enrolments of a batch that pass the filter's
	// status and learner clauses.
	EnrolmentPager interface {
		Page(ctx context.Context, batch BatchID, filter Filter, cursor string, size int) (EnrolmentPage, error)
	}

	// FanOutStore keeps what the fan-out finds.
	FanOutStore interface {
		// Unresolved lists the jobs whose batch is not read to its end.
		Unresolved(ctx context.Context) ([]Job, error)
		// AddPage writes a page and its cursor in one transaction, provided that
		// the job's cursor still is the one that the page was read from; a page
		// that another replica wrote meanwhile is not written again.
		AddPage(ctx context.Context, job Job, page FannedOut) error
	}
)

// FanOut writes one issuance for each eligible learner of every accepted job.
// Jobs take turns page by page. A page that fails is read again: an error is
// never taken for "no users".
type FanOut struct {
	Store      FanOutStore
	Enrolments EnrolmentPager
	Written    func() // called after each page, to wake the dispatcher
	Log        *zap.Logger

	wake  chan struct{}
	rests map[JobID]time.Time // until when a job rests whose page failed
}

// fanOutPause is how long a fan-out rests after a failed page, and how often it
// looks for jobs that another replica left behind.
const fanOutPause = 2 * time.Second

// NewFanOut makes a fan-out; its fields may be set until Run is called.
func NewFanOut(store FanOutStore, enrolments EnrolmentPager, written func(), log *zap.Logger) *FanOut {
	return &FanOut{
		Store: store, Enrolments: enrolments, Written: written, Log: log, wake: make(chan struct{}, 1),
		rests: map[JobID]time.Time{},
	}
}

// Wake makes Run look for new jobs at once.
func (f *FanOut) Wake() { poke(f.wake) }

// Run works until ctx ends; it returns nil then.
func (f *FanOut) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		jobs, err := f.Store.Unresolved(ctx)
		if err != nil && ctx.Err() == nil {
			f.Log.Warn("cannot list the jobs to fan out; trying again", zap.Error(err))
		}
		if !f.pages(ctx, jobs) {
			pause(ctx, f.wake, fanOutPause)
		}
	}
	return nil
}

// pages reads a page of each job, and says whether any came of it. A job whose
// page fails rests for a while and does not keep the others from theirs.
func (f *FanOut) pages(ctx context.Context, jobs []Job) bool {
	moved := false
	for _, job := range jobs {
		if time.Now().Before(f.rests[job.ID]) {
			continue
		}
		delete(f.rests, job.ID)
		err := f.page(ctx, job)
		if err == nil {
			moved = true
			continue
		}
		f.rests[job.ID] = time.Now().Add(fanOutPause)
		if ctx.Err() == nil {
			f.Log.Warn("a page of a job failed; it is read again", zap.String("job", string(job.ID)), zap.Error(err))
		}
	}
	return moved
}

// page reads and writes the next page of one job.
func (f *FanOut) page(ctx context.Context, job Job) error {
	page, err := f.Enrolments.Page(ctx, job.Batch, job.Filter, job.Cursor, fanOutPage)
	if err != nil {
		return fmt.Errorf("read the enrolments of batch %s: %w", job.Batch, err)
	}
	fanned := fan(job, page)
	if err := f.Store.AddPage(ctx, job, fanned); err != nil {
		return fmt.Errorf("write a page of %d learners: %w", len(page.Enrolments), err)
	}
	if fanned.Last {
		f.Log.Info("job resolved", zap.String("job", string(job.ID)), zap.String("batch", string(job.Batch)))
	}
	f.Written()
	return nil
}

// fan judges a page of enrolments for every certificate of the job.
func fan(job Job, page EnrolmentPage) FannedOut {
	out := FannedOut{Cause: string(job.ID), Next: page.Next, Last: page.Next == ""}
	for _, enrolment := range page.Enrolments {
		for _, certificate := range job.Certificates {
			completed, why := job.Filter.Judge(enrolment)
			held, holds := enrolment.held(certificate)
			if why == "" && holds && !job.ReIssue {
				why = SkipAlreadyIssued
			}
			if why != "" {
				out.Skipped = append(out.Skipped, Skip{Learner: enrolment.Learner, Certificate: certificate, Reason: why})
				continue
			}
			out.Wanted = append(out.Wanted, Wanted{
				ID:      NewIssuanceID(job.Batch, enrolment.Learner, certificate),
				Learner: enrolment.Learner, Certificate: certificate, CompletedOn: completed, HeldID: held.ID,
			})
		}
	}
	return out
}

// poke leaves a wake-up call without ever waiting: one that is pending serves.
func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// pause waits for a wake-up call, for d, or for the end of ctx.
func pause(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}
