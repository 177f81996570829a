package issue

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// TemplateProbeEvery is how often one learner of a broken template is tried.
	TemplateProbeEvery = 30 * time.Second
	// DoubtsInANew is how many different learners in a row must fail before a
	// template counts as broken that never made a certificate in its job.
	DoubtsInANew = 5
	// DoubtsInAProven is the same for one that did: it may meet a few bad
	// learners.
	DoubtsInAProven = 20
	// praiseEvery is how often a process tells the ledger that a template works:
	// its failures are "in a row" only as finely as that.
	praiseEvery = time.Second
)

// TemplateUse is a template as one job uses it.
type TemplateUse struct {
	Job         JobID
	Certificate string
}

// TemplateStanding is how a template fares in a job.
type TemplateStanding struct {
	Proven   bool      // it has made a certificate
	BrokenAt time.Time // zero = it is not broken
}

// TemplateStore is the ledger's record of how templates fare. Nothing of a
// broken one is due but a probe every [TemplateProbeEvery]. A checkpoint that
// names one as proven ends that, and nothing counts against it any more.
type TemplateStore interface {
	// TemplateFailed counts a learner against a template, and answers how it
	// stands then.
	TemplateFailed(ctx context.Context, use TemplateUse, learner LearnerID) (TemplateStanding, error)
}

// templates is what a process knows of the templates it works with.
type templates struct {
	mu    sync.Mutex
	known map[TemplateUse]templateNews
}

type templateNews struct {
	brokenAt  time.Time
	praisedAt time.Time
}

func newTemplates() *templates { return &templates{known: map[TemplateUse]templateNews{}} }

// stands takes note of what the ledger says of a template that failed.
func (t *templates) stands(use TemplateUse, standing TemplateStanding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.known[use]
	news.brokenAt = standing.BrokenAt
	t.known[use] = news
}

// praise says whether the ledger should hear that a template works, and takes it
// for told.
func (t *templates) praise(use TemplateUse) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.known[use]
	if time.Since(news.praisedAt) < praiseEvery && news.brokenAt.IsZero() {
		return false
	}
	t.known[use] = templateNews{praisedAt: time.Now()}
	return true
}

// brokenAt is when a template broke, as far as this process knows; zero = it did
// not.
func (t *templates) brokenAt(use TemplateUse) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known[use].brokenAt
}

// dispatchedAt reads an event's time out of its mid; zero when it has none.
func dispatchedAt(mid string) time.Time {
	parts := strings.SplitN(mid, ".", 3)
	if len(parts) < 3 {
		return time.Time{}
	}
	ms, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// templateUse is the template as the issuance's job uses it.
func (r *run) templateUse() TemplateUse {
	return TemplateUse{Job: r.issuance.Job, Certificate: r.issuance.Certificate}
}

// templateBroke says that the event was dispatched before its template was known
// to be broken: it would only fail like those before it. One dispatched later is
// a probe.
func (r *run) templateBroke() bool {
	broken := r.templates.brokenAt(r.templateUse())
	if broken.IsZero() || r.issuance.Made != nil {
		return false
	}
	// Half the time between probes, for clocks that differ.
	return dispatchedAt(r.event.MID).Before(broken.Add(TemplateProbeEvery / 2))
}

// blamesTemplate says whether a failure may be everybody's: generate failed,
// the service was there, and it did not complain about the recipient.
func (r *run) blamesTemplate(name Step, failure *Failure) bool {
	if name != StepGenerate || !r.called || failure.Verdict == Outage {
		return false
	}
	switch failure.Reason {
	case ReasonBadRequest, ReasonRateLimited, ReasonPanic:
		return false
	default:
		return true
	}
}

// blameTemplate counts a failure against the template and decides what follows.
// Until the template is proven, and while it is broken, the failure is no fault
// of the learner: the event waits and that costs no attempts.
func (r *run) blameTemplate(ctx context.Context, failure *Failure) Outcome {
	standing, err := r.Store.TemplateFailed(ctx, r.templateUse(), r.issuance.Learner)
	if err != nil {
		return r.giveUp(ctx, ledgerAway(err))
	}
	r.templates.stands(r.templateUse(), standing)
	if standing.Proven && standing.BrokenAt.IsZero() {
		return r.settle(ctx, StepGenerate, failure)
	}
	r.issuance.Attempts = r.spentBefore
	return r.retryLater(ctx, StepGenerate, failure, TemplateProbeEvery, 0)
}

// turnIn puts an event back that would meet a broken template.
func (r *run) turnIn(ctx context.Context) Outcome {
	failure := &Failure{
		Verdict: Transient, Reason: ReasonTemplate,
		Message: "the template failed for one learner after another; one is tried every " + TemplateProbeEvery.String(),
	}
	return r.retryLater(ctx, StepGenerate, failure, TemplateProbeEvery, 0)
}

// praiseTemplate puts into the coming write that the template works, when that
// is news. Should that write fail, the next certificate tells it.
func (r *run) praiseTemplate() {
	if use := r.templateUse(); r.templates.praise(use) {
		r.change.Proven = &use
	}
}
