package issue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// ReconcileRequest asks how a batch stands.
type ReconcileRequest struct {
	Batch       BatchID
	Course      CourseID
	Certificate string // empty = every template of the course
	Validate    bool   // ask the platform for every certificate that the ledger issued
	Fix         bool   // queue the missing, correct the sums
}

// Reconciliation is what comparing enrolments, ledger and platform has found.
// What is counted are issuances: a learner of two certificates counts twice.
type Reconciliation struct {
	Certificates []string
	Eligible     int           // enrolments that earn a certificate, as the source has them
	States       map[State]int // the ledger's issuances
	Issued       int           // of those: registered at least once; = Validated + Lost + Unchecked but for no_certificate_id
	Validated    int           // the platform has the newest certificate as the ledger does

	Missing   Finding // eligible, unknown to the ledger, and the enrolment shows none
	Lost      Finding // issued, and the platform does not have it so
	Duplicate Finding // more than one certificate of the name, and none replaces the other
	Orphaned  Finding // issued, and the learner is not eligible any more
	Elsewhere Finding // eligible, and the enrolment shows one that the ledger did not issue
	Unchecked map[Unchecked]Finding

	Queued  int     // of the missing, by Fix
	Jobs    []JobID // the standing jobs that they were queued for
	Recount Recount
}

// Finding counts learners and names the first of them.
type Finding struct {
	Count   int
	Samples []LearnerID // at most [MaxSamples]
}

// MaxSamples is how many learners a finding names.
const MaxSamples = 100

func (f *Finding) add(learner LearnerID) {
	f.Count++
	if len(f.Samples) < MaxSamples {
		f.Samples = append(f.Samples, learner)
	}
}

// Unchecked says why something could not be compared: one of the reasons below,
// or the [Reason] of the call that failed.
type Unchecked string

// The reasons of what was not even asked.
const (
	UncheckedNotAsked        Unchecked = "not_asked"         // the request wants no validation
	UncheckedNoService       Unchecked = "no_service"        // no learner service is set up
	UncheckedNoAccessCode    Unchecked = "no_access_code"    // the ledger has none, and the platform asks for it
	UncheckedNoCertificateID Unchecked = "no_certificate_id" // the enrolment shows a certificate without its id
)

const (
	// validationsAtOnce is half of the connections that the API has to one
	// service, which at 20 ms a call is 800 certificates a second.
	validationsAtOnce = 16
	// maxOutages in a row, and the platform is not asked any more: as many as
	// hang at once, so that a service that hangs costs its timeout once.
	maxOutages = validationsAtOnce
)

// Recount compares the sums of a batch's jobs, which are kept beside the rows,
// with the rows.
type Recount struct {
	Jobs       int
	Unresolved int // jobs whose batch is not read to its end: they will still queue some of the missing
	Wrong      []WrongSum
	Corrected  int // of the wrong
}

// WrongSum is a sum that differs from the rows.
type WrongSum struct {
	Job           JobID
	Kind, Name    string // such as state, queued; issued has no name
	Kept, Counted int
}

// IssuanceRecord is an issuance as far as others know something of it.
type IssuanceRecord struct {
	Learner     LearnerID
	Certificate string // certificate name
	State       State
	Issued      bool        // some revision is registered
	Newest      Certificate // registered last: its id and access code alone
	// Known are the ids of all its certificates, and of those which they replaced.
	Known []string
}

// ErrUnconfirmed is wrapped by the failure of a validation whose certificate the
// platform does not have: not at all, not any more, or with another access code,
// course or batch.
var ErrUnconfirmed = errors.New("the platform does not have this certificate")

type (
	// ReconcileStore is the ledger as the reconciler uses it.
	ReconcileStore interface {
		// EachIssuance visits the issuances of a batch page by page, in the order
		// of their creation, and ends with the first error of visit.
		EachIssuance(ctx context.Context, batch BatchID, visit func([]IssuanceRecord) error) error
		// IssuancesOf reads the issuances that learners have in a batch.
		IssuancesOf(ctx context.Context, batch BatchID, learners []LearnerID) ([]IssuanceRecord, error)
		// Recount recounts the jobs of a batch, and corrects their sums if fix says so.
		Recount(ctx context.Context, batch BatchID, fix bool) (Recount, error)
		// Adopt is that of [WorkStore].
		Adopt(ctx context.Context, standing Job, page FannedOut) error
	}

	// Validator asks the platform for a certificate: nil = it has it, with this
	// access code, course and batch. Otherwise the error wraps [ErrUnconfirmed],
	// or is the [Failure] of the call, or that of ctx.
	Validator interface {
		Validate(ctx context.Context, registration Registration) error
	}
)

// Reconciler compares who is eligible with what the ledger says and with what
// the platform can tell. It holds a page of a batch at a time. Batch and ledger
// may move meanwhile: what it finds of a running job is true of the moment at
// which it looked.
type Reconciler struct {
	Batches    Batches
	Courses    Courses
	Enrolments EnrolmentPager
	Store      ReconcileStore
	Validator  Validator // nil = there is nobody to ask
	Queued     func()    // called after learners were queued, to wake the dispatcher
}

// Reconcile looks at a batch, with the checks of /issue before that. A store or
// source that fails half way is an error; a platform that cannot be asked is a
// finding.
func (r *Reconciler) Reconcile(ctx context.Context, request ReconcileRequest) (Reconciliation, error) {
	checks := Accepter{Batches: r.Batches, Courses: r.Courses}
	certificates, err := checks.certificates(ctx, Request{
		Batch: request.Batch, Course: request.Course, Certificate: request.Certificate,
	})
	if err != nil {
		return Reconciliation{}, err
	}
	look := &inspection{
		Reconciler: r, request: request,
		found: Reconciliation{Certificates: certificates, States: map[State]int{}, Unchecked: map[Unchecked]Finding{}},
	}
	if look.found.Recount, err = r.Store.Recount(ctx, request.Batch, request.Fix); err != nil {
		return Reconciliation{}, fmt.Errorf("recount the jobs of batch %s: %w", request.Batch, err)
	}
	// The ledger first: what is queued below is no finding.
	if err := look.ledger(ctx); err != nil {
		return Reconciliation{}, err
	}
	if err := look.enrolments(ctx); err != nil {
		return Reconciliation{}, err
	}
	return look.found, nil
}

// inspection is one call of Reconcile.
type inspection struct {
	*Reconciler
	request ReconcileRequest
	found   Reconciliation
	service service
}

func (l *inspection) unchecked(why Unchecked, learner LearnerID) {
	finding := l.found.Unchecked[why]
	finding.add(learner)
	l.found.Unchecked[why] = finding
}

// ledger goes through the ledger: who was issued a certificate, does the
// platform have it, is he still eligible.
func (l *inspection) ledger(ctx context.Context) error {
	err := l.Store.EachIssuance(ctx, l.request.Batch, func(page []IssuanceRecord) error {
		var issued []IssuanceRecord
		for _, record := range page {
			if !slices.Contains(l.found.Certificates, record.Certificate) {
				continue
			}
			l.found.States[record.State]++
			if record.Issued {
				issued = append(issued, record)
			}
		}
		l.found.Issued += len(issued)
		if err := l.findOrphans(ctx, issued); err != nil {
			return err
		}
		return l.validate(ctx, issued)
	})
	if err != nil {
		return fmt.Errorf("go through the issuances of batch %s: %w", l.request.Batch, err)
	}
	return nil
}

// findOrphans looks who of those that were issued a certificate would not be
// issued one today.
func (l *inspection) findOrphans(ctx context.Context, issued []IssuanceRecord) error {
	if len(issued) == 0 {
		return nil
	}
	var asked Filter
	for _, record := range issued {
		asked.Learners = append(asked.Learners, record.Learner)
	}
	slices.Sort(asked.Learners)
	asked.Learners = slices.Compact(asked.Learners) // one may have several certificates
	eligible := map[LearnerID]bool{}
	err := l.eachPage(ctx, asked, func(page []Enrolment) error {
		for _, enrolment := range page {
			eligible[enrolment.Learner] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, record := range issued {
		if !eligible[record.Learner] {
			l.found.Orphaned.add(record.Learner)
		}
	}
	return nil
}

// eachPage visits the eligible enrolments of the batch, page by page.
func (l *inspection) eachPage(ctx context.Context, filter Filter, visit func([]Enrolment) error) error {
	for cursor := ""; ; {
		page, err := l.Enrolments.Page(ctx, l.request.Batch, filter, cursor, fanOutPage)
		if err != nil {
			return fmt.Errorf("read the enrolments of batch %s: %w", l.request.Batch, err)
		}
		eligible := slices.DeleteFunc(page.Enrolments, func(e Enrolment) bool {
			_, why := filter.Judge(e)
			return why != ""
		})
		if err := visit(eligible); err != nil || page.Next == "" {
			return err
		}
		cursor = page.Next
	}
}

// enrolments goes through the eligible: what does the ledger say of each, and
// what does his enrolment show.
func (l *inspection) enrolments(ctx context.Context) error {
	return l.eachPage(ctx, Filter{}, func(page []Enrolment) error {
		if len(page) == 0 {
			return nil
		}
		l.found.Eligible += len(page) * len(l.found.Certificates)
		records, err := l.recordsOf(ctx, page)
		if err != nil {
			return err
		}
		for _, certificate := range l.found.Certificates {
			var missing []Enrolment
			for _, enrolment := range page {
				record, known := records[recordKey{enrolment.Learner, certificate}]
				if l.compare(enrolment, certificate, record); !known && !enrolment.holds(certificate) {
					missing = append(missing, enrolment)
				}
			}
			if err := l.miss(ctx, certificate, missing); err != nil {
				return err
			}
		}
		return nil
	})
}

type recordKey struct {
	learner     LearnerID
	certificate string
}

func (l *inspection) recordsOf(ctx context.Context, page []Enrolment) (map[recordKey]IssuanceRecord, error) {
	learners := make([]LearnerID, len(page))
	for i, enrolment := range page {
		learners[i] = enrolment.Learner
	}
	records, err := l.Store.IssuancesOf(ctx, l.request.Batch, learners)
	if err != nil {
		return nil, fmt.Errorf("read the issuances of %d learners: %w", len(learners), err)
	}
	of := make(map[recordKey]IssuanceRecord, len(records))
	for _, record := range records {
		of[recordKey{record.Learner, record.Certificate}] = record
	}
	return of, nil
}

func (e Enrolment) holds(certificate string) bool {
	_, holds := e.held(certificate)
	return holds
}

// compare looks at the certificates of one name that an enrolment shows. Those
// which the ledger made, or replaced on purpose, are accounted for.
func (l *inspection) compare(enrolment Enrolment, certificate string, record IssuanceRecord) {
	foreign, nameless := strangers(enrolment, certificate, record.Known)
	if nameless > 0 && record.Issued {
		l.unchecked(UncheckedNoCertificateID, enrolment.Learner) // each may be the ledger's
		nameless = 0
	}
	others := foreign + nameless
	if others > 0 {
		l.found.Elsewhere.add(enrolment.Learner)
	}
	if record.Issued {
		others++
	}
	if others > 1 {
		l.found.Duplicate.add(enrolment.Learner)
	}
}

// strangers counts the certificates of a name that an enrolment shows: those
// whose ids are not among the known, and those without an id. One that is shown
// twice is one.
func strangers(enrolment Enrolment, certificate string, known []string) (foreign, nameless int) {
	seen := map[string]bool{}
	for _, held := range enrolment.Held {
		switch {
		case !strings.EqualFold(held.Name, certificate):
		case held.ID == "":
			nameless++
		case !seen[held.ID] && !slices.Contains(known, held.ID):
			foreign++
			fallthrough
		default:
			seen[held.ID] = true
		}
	}
	return foreign, nameless
}

// miss takes note of learners who lack a certificate and, if it is to be fixed,
// writes them to the standing job of the batch, as an event made elsewhere would.
func (l *inspection) miss(ctx context.Context, certificate string, missing []Enrolment) error {
	for _, enrolment := range missing {
		l.found.Missing.add(enrolment.Learner)
	}
	if !l.request.Fix || len(missing) == 0 {
		return nil
	}
	standing := standingJob(Event{Batch: l.request.Batch, Course: l.request.Course, Certificate: certificate})
	page := fan(standing, EnrolmentPage{Enrolments: missing})
	if err := l.Store.Adopt(ctx, standing, page); err != nil {
		return fmt.Errorf("queue %d missing learners: %w", len(missing), err)
	}
	l.found.Queued += len(page.Wanted)
	if !slices.Contains(l.found.Jobs, standing.ID) {
		l.found.Jobs = append(l.found.Jobs, standing.ID)
	}
	l.Queued()
	return nil
}

// validate asks the platform for the certificates of a page.
func (l *inspection) validate(ctx context.Context, issued []IssuanceRecord) error {
	results := make([]validation, len(issued))
	var group errgroup.Group
	group.SetLimit(validationsAtOnce)
	for i, record := range issued {
		group.Go(func() error {
			results[i] = l.ask(ctx, record)
			return nil
		})
	}
	_ = group.Wait() // every record has its own result
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("validate certificates: %w", err)
	}
	for i, result := range results {
		switch {
		case result.unchecked != "":
			l.unchecked(result.unchecked, issued[i].Learner)
		case result.lost:
			l.found.Lost.add(issued[i].Learner)
		default:
			l.found.Validated++
		}
	}
	return nil
}

// validation is what came of asking for one certificate; zero = it is there.
type validation struct {
	lost      bool
	unchecked Unchecked
}

func (l *inspection) ask(ctx context.Context, record IssuanceRecord) validation {
	switch {
	case !l.request.Validate:
		return validation{unchecked: UncheckedNotAsked}
	case l.Validator == nil:
		return validation{unchecked: UncheckedNoService}
	case record.Newest.AccessCode == "":
		return validation{unchecked: UncheckedNoAccessCode}
	}
	if why := l.service.away(); why != "" {
		return validation{unchecked: Unchecked(why)}
	}
	err := l.Validator.Validate(ctx, Registration{
		Learner: record.Learner, Course: l.request.Course, Batch: l.request.Batch, Certificate: record.Newest,
	})
	l.service.answered(err)
	switch {
	case err == nil:
		return validation{}
	case errors.Is(err, ErrUnconfirmed):
		return validation{lost: true}
	default:
		return validation{unchecked: Unchecked(AsFailure(err).Reason)}
	}
}

// service remembers whether the platform is away. Otherwise one that hangs would
// cost its timeout for each certificate of the batch.
type service struct {
	mu     sync.Mutex
	inARow int // outages
	why    Reason
}

// away says why the platform is not to be asked any more; "" = it is.
func (s *service) away() Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inARow < maxOutages {
		return ""
	}
	return s.why
}

func (s *service) answered(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || AsFailure(err).Verdict != Outage {
		s.inARow = 0
		return
	}
	s.inARow++
	s.why = AsFailure(err).Reason
}
