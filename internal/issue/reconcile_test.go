package issue

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

// audit is what a Reconciler asks, in memory and in pages of two, with defaults
// that find nothing wrong.
type audit struct {
	*desk
	enrolled []Enrolment
	records  []IssuanceRecord
	recount  Recount
	adopted  []adoption
	queued   int
	pageFail func(page int) error // of the enrolments, counted over all reads
	pages    int
	fails    map[string]error // of the store, by operation
	answer   func(Registration) error

	mu    sync.Mutex
	asked []Registration
	fixed bool
}

func newAudit() *audit {
	a := &audit{desk: newDesk(), fails: map[string]error{}}
	a.answer = func(Registration) error { return nil }
	return a
}

func (a *audit) enrol(learner LearnerID, change ...func(*Enrolment)) {
	e := Enrolment{Learner: learner, Active: true, Status: 2, CompletedOn: "1566372109689"}
	for _, c := range change {
		c(&e)
	}
	a.enrolled = append(a.enrolled, e)
}

func holding(certificates ...HeldCertificate) func(*Enrolment) {
	return func(e *Enrolment) { e.Held = certificates }
}

// issued is a learner who has a certificate by the ledger.
func (a *audit) issued(learner LearnerID, change ...func(*IssuanceRecord)) {
	id := "cert-" + string(learner)
	r := IssuanceRecord{
		Learner: learner, Certificate: merit, State: Notified, Issued: true, Newest: Certificate{ID: id, AccessCode: "ABC"},
		Known: []string{id},
	}
	for _, c := range change {
		c(&r)
	}
	a.records = append(a.records, r)
}

func (a *audit) waiting(learner LearnerID, state State) {
	a.records = append(a.records, IssuanceRecord{Learner: learner, Certificate: merit, State: state})
}

func (a *audit) Page(_ context.Context, _ BatchID, filter Filter, cursor string, _ int) (EnrolmentPage, error) {
	a.pages++
	if a.pageFail != nil {
		if err := a.pageFail(a.pages); err != nil {
			return EnrolmentPage{}, err
		}
	}
	var page EnrolmentPage
	for _, e := range a.enrolled {
		named := len(filter.Learners) == 0 || slices.Contains(filter.Learners, e.Learner)
		if !e.Active || e.Status != 2 || !named || string(e.Learner) <= cursor {
			continue
		}
		if len(page.Enrolments) == 2 {
			page.Next = string(page.Enrolments[1].Learner)
			break
		}
		page.Enrolments = append(page.Enrolments, e)
	}
	return page, nil
}

func (a *audit) EachIssuance(_ context.Context, _ BatchID, visit func([]IssuanceRecord) error) error {
	for page := range slices.Chunk(a.records, 2) {
		if err := visit(page); err != nil {
			return err
		}
	}
	return a.fails["walk"]
}

func (a *audit) IssuancesOf(_ context.Context, _ BatchID, learners []LearnerID) ([]IssuanceRecord, error) {
	if err := a.fails["records"]; err != nil {
		return nil, err
	}
	var of []IssuanceRecord
	for _, r := range a.records {
		if slices.Contains(learners, r.Learner) {
			of = append(of, r)
		}
	}
	return of, nil
}

func (a *audit) Recount(_ context.Context, _ BatchID, fix bool) (Recount, error) {
	a.fixed = fix
	return a.recount, a.fails["recount"]
}

func (a *audit) Adopt(_ context.Context, standing Job, page FannedOut) error {
	if err := a.fails["adopt"]; err != nil {
		return err
	}
	a.adopted = append(a.adopted, adoption{standing, page})
	return nil
}

func (a *audit) Validate(_ context.Context, r Registration) error {
	a.mu.Lock()
	a.asked = append(a.asked, r)
	a.mu.Unlock()
	return a.answer(r)
}

func (a *audit) reconciler() *Reconciler {
	return &Reconciler{
		Batches: a, Courses: a, Enrolments: a, Store: a, Validator: a, Queued: func() { a.queued++ },
	}
}

func (a *audit) look(t *testing.T, change ...func(*ReconcileRequest)) Reconciliation {
	t.Helper()
	found, err := a.reconciler().Reconcile(t.Context(), question(change...))
	require.NoError(t, err)
	return found
}

func question(change ...func(*ReconcileRequest)) ReconcileRequest {
	q := ReconcileRequest{Batch: "b", Course: "do_1", Certificate: merit, Validate: true}
	for _, c := range change {
		c(&q)
	}
	return q
}

func toFix(q *ReconcileRequest) { q.Fix = true }

func finding(learners ...LearnerID) Finding { return Finding{Count: len(learners), Samples: learners} }

func TestReconcileFindings(t *testing.T) {
	t.Parallel()
	lost := &Failure{Verdict: Permanent, Reason: ReasonConflict, Err: ErrUnconfirmed}
	tests := map[string]struct {
		prepare func(a *audit)
		want    Reconciliation // what differs from a batch in order: u1, u2 and u3 issued
	}{
		"nothing is wrong": {func(*audit) {}, Reconciliation{Eligible: 3, Issued: 3, Validated: 3}},
		"missing": {
			func(a *audit) { a.enrol("u4"); a.enrol("u5") },
			Reconciliation{Eligible: 5, Issued: 3, Validated: 3, Missing: finding("u4", "u5")},
		},
		"nobody else is missing": {
			func(a *audit) {
				a.enrol("u4", func(e *Enrolment) { e.Active = false })
				a.enrol("u5", func(e *Enrolment) { e.Status = 1 })
				a.enrol("u6", func(e *Enrolment) { e.CompletedOn = "yesterday" })
				a.enrol("u7")
				a.waiting("u7", Queued)
				a.enrol("u8")
				a.waiting("u8", Failed)
			},
			Reconciliation{
				Eligible: 5, Issued: 3, Validated: 3, States: map[State]int{Notified: 3, Queued: 1, Failed: 1},
			},
		},
		"issued elsewhere": {
			func(a *audit) { a.enrol("u4", holding(HeldCertificate{"MERIT", "old"})) },
			Reconciliation{Eligible: 4, Issued: 3, Validated: 3, Elsewhere: finding("u4")},
		},
		"issued elsewhere while it waits here": {
			func(a *audit) {
				a.enrol("u4", holding(HeldCertificate{merit, ""}))
				a.waiting("u4", Retrying)
			},
			Reconciliation{
				Eligible: 4, Issued: 3, Validated: 3, Elsewhere: finding("u4"), States: map[State]int{Notified: 3, Retrying: 1},
			},
		},
		"another certificate is no certificate of that name": {
			func(a *audit) { a.enrol("u4", holding(HeldCertificate{"Other", "x"})) },
			Reconciliation{Eligible: 4, Issued: 3, Validated: 3, Missing: finding("u4")},
		},
		"two in the enrolment": {
			func(a *audit) { a.enrol("u4", holding(HeldCertificate{merit, "x"}, HeldCertificate{merit, "y"})) },
			Reconciliation{Eligible: 4, Issued: 3, Validated: 3, Elsewhere: finding("u4"), Duplicate: finding("u4")},
		},
		"two without ids": {
			func(a *audit) { a.enrol("u4", holding(HeldCertificate{Name: merit}, HeldCertificate{Name: merit})) },
			Reconciliation{Eligible: 4, Issued: 3, Validated: 3, Elsewhere: finding("u4"), Duplicate: finding("u4")},
		},
		"one that is shown twice": {
			func(a *audit) { a.enrol("u4", holding(HeldCertificate{merit, "x"}, HeldCertificate{merit, "x"})) },
			Reconciliation{Eligible: 4, Issued: 3, Validated: 3, Elsewhere: finding("u4")},
		},
		"enrolment and ledger name different ones": {
			func(a *audit) { a.enrolled[1].Held = []HeldCertificate{{merit, "x"}} },
			Reconciliation{Eligible: 3, Issued: 3, Validated: 3, Elsewhere: finding("u2"), Duplicate: finding("u2")},
		},
		"enrolment and ledger name the same one": {
			func(a *audit) { a.enrolled[1].Held = []HeldCertificate{{merit, "cert-u2"}} },
			Reconciliation{Eligible: 3, Issued: 3, Validated: 3},
		},
		"what a re-issue replaced is no duplicate": {
			func(a *audit) {
				a.enrolled[1].Held = []HeldCertificate{{merit, "first"}, {merit, "cert-u2"}}
				a.records[1].Known = []string{"cert-u2", "first"}
			},
			Reconciliation{Eligible: 3, Issued: 3, Validated: 3},
		},
		"one without an id may be the ledger's": {
			func(a *audit) { a.enrolled[1].Held = []HeldCertificate{{Name: merit}} },
			Reconciliation{
				Eligible: 3, Issued: 3, Validated: 3, Unchecked: map[Unchecked]Finding{UncheckedNoCertificateID: finding("u2")},
			},
		},
		"withdrawn": {
			func(a *audit) { a.enrolled[1].Active = false },
			Reconciliation{Eligible: 2, Issued: 3, Validated: 3, Orphaned: finding("u2")},
		},
		"not enrolled any more": {
			func(a *audit) { a.enrolled = a.enrolled[1:] },
			Reconciliation{Eligible: 2, Issued: 3, Validated: 3, Orphaned: finding("u1")},
		},
		"the platform lost it": {
			func(a *audit) {
				a.answer = func(r Registration) error {
					if r.Certificate.ID == "cert-u3" {
						return fmt.Errorf("ask: %w", lost)
					}
					return nil
				}
			},
			Reconciliation{Eligible: 3, Issued: 3, Validated: 2, Lost: finding("u3")},
		},
		"no access code": {
			func(a *audit) { a.records[0].Newest.AccessCode = "" },
			Reconciliation{
				Eligible: 3, Issued: 3, Validated: 2, Unchecked: map[Unchecked]Finding{UncheckedNoAccessCode: finding("u1")},
			},
		},
		"the platform is away": {
			func(a *audit) { a.answer = func(Registration) error { return outage() } },
			Reconciliation{
				Eligible: 3, Issued: 3, Unchecked: map[Unchecked]Finding{"unavailable": finding("u1", "u2", "u3")},
			},
		},
		"the platform fails for one": {
			func(a *audit) {
				a.answer = func(r Registration) error {
					if r.Learner == "u1" {
						return transient(ReasonOther)
					}
					return nil
				}
			},
			Reconciliation{Eligible: 3, Issued: 3, Validated: 2, Unchecked: map[Unchecked]Finding{"other": finding("u1")}},
		},
		"a certificate that was not asked for": {
			func(a *audit) { a.issued("u1", func(r *IssuanceRecord) { r.Certificate = "Other" }) },
			Reconciliation{Eligible: 3, Issued: 3, Validated: 3},
		},
		"sums": {
			func(a *audit) { a.recount = Recount{Jobs: 2, Wrong: []WrongSum{{Job: "j", Kept: 1}}} },
			Reconciliation{
				Eligible: 3, Issued: 3, Validated: 3, Recount: Recount{Jobs: 2, Wrong: []WrongSum{{Job: "j", Kept: 1}}},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAudit()
			for _, learner := range []LearnerID{"u1", "u2", "u3"} {
				a.enrol(learner)
				a.issued(learner)
			}
			test.prepare(a)
			test.want.Certificates = []string{merit}
			if test.want.States == nil {
				test.want.States = map[State]int{Notified: 3}
			}
			if test.want.Unchecked == nil {
				test.want.Unchecked = map[Unchecked]Finding{}
			}
			require.Empty(t, cmp.Diff(test.want, a.look(t)))
			require.Empty(t, a.adopted, "looking writes nothing")
			require.False(t, a.fixed)
		})
	}
}

func TestReconcileAsksForTheNewestCertificate(t *testing.T) {
	t.Parallel()
	a := newAudit()
	a.enrol("u1")
	a.issued("u1")
	a.look(t)
	require.Equal(t, []Registration{{
		Learner: "u1", Course: "do_1", Batch: "b", Certificate: Certificate{ID: "cert-u1", AccessCode: "ABC"},
	}}, a.asked)
}

func TestReconcileEveryCertificateOfTheCourse(t *testing.T) {
	t.Parallel()
	a := newAudit()
	a.enrol("u1")
	a.issued("u1")
	a.enrol("u2", holding(HeldCertificate{"other", "x"}))
	found := a.look(t, func(q *ReconcileRequest) { q.Certificate = "" })
	require.Equal(t, []string{"Other", merit}, found.Certificates)
	require.Equal(t, 4, found.Eligible)
	require.Equal(t, finding("u1", "u2"), found.Missing, "each of one of the two")
	require.Equal(t, finding("u2"), found.Elsewhere)
}

func TestReconcileWithoutValidation(t *testing.T) {
	t.Parallel()
	a := newAudit()
	a.enrol("u1")
	a.issued("u1")
	found := a.look(t, func(q *ReconcileRequest) { q.Validate = false })
	require.Equal(t, map[Unchecked]Finding{UncheckedNotAsked: finding("u1")}, found.Unchecked)
	require.Empty(t, a.asked)

	r := a.reconciler()
	r.Validator = nil
	found, err := r.Reconcile(t.Context(), question())
	require.NoError(t, err)
	require.Equal(t, map[Unchecked]Finding{UncheckedNoService: finding("u1")}, found.Unchecked)
}

func TestReconcileQueuesTheMissing(t *testing.T) {
	t.Parallel()
	a := newAudit()
	a.enrol("u1")
	a.issued("u1", func(r *IssuanceRecord) { r.Newest.ID = "gone" })
	a.answer = func(Registration) error { return ErrUnconfirmed }
	a.enrol("u2", holding(HeldCertificate{merit, "x"}))
	a.enrol("u3")
	a.enrol("u4")
	a.waiting("u4", Failed)
	a.enrol("u5")
	found := a.look(t, toFix)
	require.True(t, a.fixed, "the sums as well")
	require.Equal(t, finding("u3", "u5"), found.Missing)
	require.Equal(t, 2, found.Queued)
	require.Equal(t, finding("u1"), found.Lost, "named, and not issued again behind anybody's back")
	require.Equal(t, map[State]int{Notified: 1, Failed: 1}, found.States, "as they were found")
	require.Equal(t, 2, a.queued, "the dispatcher hears of each page")

	completed := time.UnixMilli(1566372109689).UTC()
	var got []Wanted
	standing := standingJob(Event{Batch: "b", Course: "do_1", Certificate: merit})
	require.Equal(t, []JobID{standing.ID}, found.Jobs)
	for _, adopted := range a.adopted {
		require.Equal(t, standing.ID, adopted.Job.ID, "the job that events made elsewhere join")
		require.False(t, adopted.Job.ReIssue)
		require.Empty(t, adopted.Page.Skipped)
		got = append(got, adopted.Page.Wanted...)
	}
	require.Empty(t, cmp.Diff([]Wanted{
		{ID: NewIssuanceID("b", "u3", merit), Learner: "u3", Certificate: merit, CompletedOn: completed},
		{ID: NewIssuanceID("b", "u5", merit), Learner: "u5", Certificate: merit, CompletedOn: completed},
	}, got))
}

func TestReconcileNamesTheFirst(t *testing.T) {
	t.Parallel()
	a := newAudit()
	for i := range MaxSamples + 50 {
		a.enrol(LearnerID(fmt.Sprintf("u%04d", i)))
	}
	found := a.look(t)
	require.Equal(t, MaxSamples+50, found.Missing.Count)
	require.Len(t, found.Missing.Samples, MaxSamples)
	require.Equal(t, LearnerID("u0099"), found.Missing.Samples[MaxSamples-1])
}

// An error half way is an error: what was read so far is not the batch.
func TestReconcileFails(t *testing.T) {
	t.Parallel()
	away := fmt.Errorf("%w: connection refused", ErrUnavailable)
	atPage := func(n int) func(*audit) {
		return func(a *audit) {
			a.pageFail = func(page int) error {
				if page == n {
					return away
				}
				return nil
			}
		}
	}
	store := func(op string) func(*audit) { return func(a *audit) { a.fails[op] = away } }
	for name, test := range map[string]struct {
		prepare func(*audit)
		want    error
	}{
		"enrolments of the issued":      {atPage(1), ErrUnavailable},
		"second page of the eligible":   {atPage(4), ErrUnavailable},
		"the walk through the ledger":   {store("walk"), ErrUnavailable},
		"the ledger's word on a page":   {store("records"), ErrUnavailable},
		"the recount":                   {store("recount"), ErrUnavailable},
		"queueing":                      {store("adopt"), ErrUnavailable},
		"no such batch":                 {func(a *audit) { a.batch = func() (Batch, bool, error) { return Batch{}, false, nil } }, ErrUnknownBatch},
		"batch of another course":       {func(a *audit) { a.batch = func() (Batch, bool, error) { return Batch{Course: "x"}, true, nil } }, ErrOtherCourse},
		"the source of batches is away": {func(a *audit) { a.batch = func() (Batch, bool, error) { return Batch{}, false, away } }, ErrUnavailable},
		"the course without the template": {
			func(a *audit) {
				a.course = func() (Course, error) { return Course{Templates: []Template{{Name: "x"}}}, nil }
			},
			InvalidValueError{Parameter: "certificate", Value: merit},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAudit()
			for _, learner := range []LearnerID{"u1", "u2", "u3"} {
				a.enrol(learner)
				a.issued(learner)
			}
			a.enrol("u4")
			a.enrol("u5")
			test.prepare(a)
			found, err := a.reconciler().Reconcile(t.Context(), question(toFix))
			require.ErrorIs(t, err, test.want)
			require.Equal(t, Reconciliation{}, found, "an error is no answer")
			require.Empty(t, a.adopted)
		})
	}
}

// A platform that hangs costs its timeout once, not once for each certificate.
func TestReconcileGivesUpAPlatformThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAudit()
		for i := range 100 {
			a.issued(LearnerID(fmt.Sprintf("u%04d", i)))
		}
		a.answer = func(Registration) error {
			time.Sleep(35 * time.Second) //nolint:forbidigo // fake clock
			return &Failure{Verdict: Outage, Reason: ReasonTimeout}
		}
		// One page, so that all are asked for at once.
		r := a.reconciler()
		r.Store = onePage{a}
		start := time.Now()
		found, err := r.Reconcile(t.Context(), question())
		require.NoError(t, err)
		require.Equal(t, 100, found.Unchecked["timeout"].Count)
		require.LessOrEqual(t, time.Since(start), 70*time.Second)
		require.Less(t, len(a.asked), 2*maxOutages)
	})
}

type onePage struct{ *audit }

func (p onePage) EachIssuance(_ context.Context, _ BatchID, visit func([]IssuanceRecord) error) error {
	return visit(p.records)
}

func TestReconcileAsksAgainWhenThePlatformIsBack(t *testing.T) {
	t.Parallel()
	a := newAudit()
	for i := range 4 * maxOutages {
		a.issued(LearnerID(fmt.Sprintf("u%04d", i)))
	}
	n := 0
	a.answer = func(Registration) error { // pages of two: every third call goes well
		a.mu.Lock()
		defer a.mu.Unlock()
		if n++; n%3 == 0 {
			return nil
		}
		return outage()
	}
	found := a.look(t)
	require.Len(t, a.asked, 4*maxOutages)
	require.Equal(t, 4*maxOutages/3, found.Validated)
}

func TestReconcileEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	a := newAudit()
	a.enrol("u1")
	a.issued("u1")
	a.answer = func(Registration) error {
		cancel()
		return ctx.Err()
	}
	_, err := a.reconciler().Reconcile(ctx, question(toFix))
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrUnavailable)
}
