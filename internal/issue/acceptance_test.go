package issue

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
)

// desk is what an Accepter asks, with defaults that accept.
type desk struct {
	asked   []string
	batch   func() (Batch, bool, error)
	course  func() (Course, error)
	count   func(certificates []string) (EligibleCount, error)
	create  func(Job) (Job, error)
	job     *Job
	key     string
	woken   int
	request Request
}

func newDesk() *desk {
	return &desk{
		batch:  func() (Batch, bool, error) { return Batch{ID: "b", Course: "do_1"}, true, nil },
		course: func() (Course, error) { return aCourse(), nil },
		count: func([]string) (EligibleCount, error) {
			return EligibleCount{Eligible: 7, Estimate: true, Skipped: map[SkipReason]int{SkipStatus: 2}}, nil
		},
		create:  func(j Job) (Job, error) { return j, nil },
		request: Request{Batch: "b", Course: "do_1", RequestedBy: "officer", IdempotencyKey: "key", Fingerprint: "print"},
	}
}

func (d *desk) Batch(context.Context, BatchID) (Batch, bool, error) {
	d.asked = append(d.asked, "batch")
	return d.batch()
}

func (d *desk) Course(context.Context, CourseID) (Course, error) {
	d.asked = append(d.asked, "course")
	return d.course()
}

func (d *desk) Count(_ context.Context, _ BatchID, _ Filter, certificates []string) (EligibleCount, error) {
	d.asked = append(d.asked, "count "+strings.Join(certificates, "+"))
	return d.count(certificates)
}

func (d *desk) CreateJob(_ context.Context, job Job, key, fingerprint string) (Job, error) {
	d.asked = append(d.asked, "write")
	d.job, d.key = &job, key+" "+fingerprint
	return d.create(job)
}

func (d *desk) accept(t *testing.T) (Acceptance, error) {
	t.Helper()
	a := &Accepter{
		Batches: d, Courses: d, Counter: d, Jobs: d, Accepted: func() { d.woken++ },
		Now: func() time.Time { return time.UnixMilli(5) },
	}
	return a.Accept(t.Context(), d.request)
}

func TestAccept(t *testing.T) {
	t.Parallel()
	d := newDesk()
	d.request.ReIssue, d.request.TraceParent, d.request.Filter = true, "00-trace", Filter{Statuses: []int{1}}
	got, err := d.accept(t)
	require.NoError(t, err)
	require.Equal(t, []string{"batch", "course", "count Other+Merit", "write"}, d.asked)
	require.Empty(t, cmp.Diff(Acceptance{
		Job: d.job.ID, Certificates: []string{"Other", "Merit"}, Eligible: 7, Estimate: true,
		Skipped: map[SkipReason]int{SkipStatus: 2},
	}, got))
	require.NotEmpty(t, d.job.ID)
	require.Empty(t, cmp.Diff(Job{
		Batch: "b", Course: "do_1", Certificates: []string{"Other", "Merit"}, Filter: d.request.Filter, ReIssue: true,
		State: JobRunning, Eligible: 7, Estimate: true, Skipped: map[SkipReason]int{SkipStatus: 2},
		CreatedBy: "officer", CreatedAt: time.UnixMilli(5), TraceParent: "00-trace",
	}, *d.job, cmpopts.IgnoreFields(Job{}, "ID")))
	require.Equal(t, "key print", d.key)
	require.Equal(t, 1, d.woken, "the fan-out is woken once the job is durable")
}

func TestAcceptAnswersTheJobOfTheKey(t *testing.T) {
	t.Parallel()
	d := newDesk()
	d.create = func(Job) (Job, error) {
		return Job{ID: "of-that-time", Eligible: 3, Skipped: map[SkipReason]int{SkipInactive: 1}}, nil
	}
	got, err := d.accept(t)
	require.NoError(t, err)
	require.Equal(t, JobID("of-that-time"), got.Job)
	require.Equal(t, 3, got.Eligible)
	require.False(t, got.Estimate)
	require.Equal(t, map[SkipReason]int{SkipInactive: 1}, got.Skipped)
}

func TestCertificatesOfARequest(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		asked string
		want  string
		err   error
	}{
		"every template":      {"", "Other+Merit", nil},
		"one":                 {"Merit", "Merit", nil},
		"spelled otherwise":   {"mERIT", "Merit", nil},
		"unheard of":          {"Excellence", "", InvalidValueError{Parameter: "certificate", Value: "Excellence"}},
		"a part of its name":  {"Mer", "", InvalidValueError{Parameter: "certificate", Value: "Mer"}},
		"with a space behind": {"Merit ", "", InvalidValueError{Parameter: "certificate", Value: "Merit "}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk()
			d.request.Certificate = test.asked
			got, err := d.accept(t)
			require.Equal(t, test.err, err)
			require.Equal(t, test.want, strings.Join(got.Certificates, "+"))
			require.Equal(t, err == nil, d.job != nil)
		})
	}
}

func TestAcceptRefuses(t *testing.T) {
	t.Parallel()
	away := fmt.Errorf("%w: connection refused", ErrUnavailable)
	tests := map[string]struct {
		change func(*desk)
		want   error
		not    error
		asked  string
	}{
		"no such batch": {
			func(d *desk) { d.batch = func() (Batch, bool, error) { return Batch{}, false, nil } },
			ErrUnknownBatch, nil, "batch",
		},
		"the source of batches is away": {
			func(d *desk) { d.batch = func() (Batch, bool, error) { return Batch{}, false, away } },
			ErrUnavailable, ErrUnknownBatch, "batch",
		},
		"batch of another course": {
			func(d *desk) { d.batch = func() (Batch, bool, error) { return Batch{Course: "do_2"}, true, nil } },
			ErrOtherCourse, nil, "batch",
		},
		"no such course": {
			func(d *desk) { d.course = func() (Course, error) { return Course{}, permanent(ReasonUnknownCourse) } },
			NoTemplatesError{Batch: "b"},
			ErrUnavailable, "batch course",
		},
		"no templates": {
			func(d *desk) { d.course = func() (Course, error) { return Course{ID: "do_1"}, nil } },
			NoTemplatesError{Batch: "b"},
			nil, "batch course",
		},
		"the content service is away": {
			func(d *desk) { d.course = func() (Course, error) { return Course{}, outage() } },
			ErrUnavailable, nil, "batch course",
		},
		"the count fails": {
			func(d *desk) { d.count = func([]string) (EligibleCount, error) { return EligibleCount{}, away } },
			ErrUnavailable, nil, "batch course count Other+Merit",
		},
		"the ledger is away": {
			func(d *desk) { d.create = func(Job) (Job, error) { return Job{ID: "half done"}, away } },
			ErrUnavailable, nil, "batch course count Other+Merit write",
		},
		"the key of another request": {
			func(d *desk) { d.create = func(Job) (Job, error) { return Job{}, ErrKeyReused } },
			ErrKeyReused, ErrUnavailable, "batch course count Other+Merit write",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk()
			test.change(d)
			got, err := d.accept(t)
			require.ErrorIs(t, err, test.want)
			if test.not != nil {
				require.NotErrorIs(t, err, test.not)
			}
			require.Equal(t, test.asked, strings.Join(d.asked, " "), "the order of checks")
			require.Equal(t, Acceptance{}, got, "an error is no answer")
			require.Zero(t, d.woken)
		})
	}
}

func TestNobodyIsEligible(t *testing.T) {
	t.Parallel()
	d := newDesk()
	d.count = func([]string) (EligibleCount, error) {
		return EligibleCount{Skipped: map[SkipReason]int{SkipStatus: 9}}, nil
	}
	got, err := d.accept(t)
	require.NoError(t, err)
	require.Empty(t, got.Job)
	require.Nil(t, d.job, "no job")
	require.Equal(t, map[SkipReason]int{SkipStatus: 9}, got.Skipped)
	require.Zero(t, d.woken)
}

func TestTextsOfRefusals(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		ErrUnknownBatch:                 "No such batchId exists",
		ErrOtherCourse:                  "batchId is not linked with courseId",
		NoTemplatesError{Batch: "0128"}: "No certificate templates associated with 0128",
		InvalidValueError{Parameter: "certificate", Value: "x"}: "Invalid value x for parameter certificate. Please provide a valid value.",
	} {
		require.EqualError(t, err, want)
	}
}
