package ledger

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

// hold keeps the writer busy until the returned function is called, so that
// what is written meanwhile forms one group.
func hold(t *testing.T, l *Ledger) (release func()) {
	t.Helper()
	began, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var wait sync.WaitGroup
	wait.Go(func() {
		_ = l.writer.do(context.Background(), func(*transaction) error {
			once.Do(func() { close(began) })
			<-goOn
			return nil
		})
	})
	<-began
	return func() {
		close(goOn)
		wait.Wait()
	}
}

// waiting returns once so many writes wait for their group.
func waiting(t *testing.T, l *Ledger, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(l.writer.queue) == n }, 10*time.Second, time.Millisecond)
}

func TestOneBadWriteFailsAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t, sqliteStored{})
	h.resolved(aJob("job-1"), many("u", 10)...)
	events := h.take()
	release := hold(t, h.Ledger)
	bad := errors.New("bad")
	errs := make([]error, 11)
	var runs atomic.Int64
	var wait sync.WaitGroup
	for i, event := range events {
		wait.Go(func() {
			_, _, errs[i] = h.Ledger.Claim(context.Background(), claimOf(event, livingOne))
		})
	}
	wait.Go(func() {
		errs[10] = h.writer.do(context.Background(), func(t *transaction) error {
			runs.Add(1)
			// It spoils rows and sums before it fails.
			if err := t.exec(`UPDATE issuances SET state = 'notified'`); err != nil {
				return err
			}
			t.counts.add("job-1", standing{state: issue.Queued}, +100)
			return bad
		})
	})
	waiting(t, h.Ledger, 11)
	release()
	wait.Wait()
	require.Equal(t, append(make([]error, 10), bad), errs)
	require.EqualValues(t, 2, runs.Load(), "once among the others and once alone")
	require.Equal(t, []string{"10|queued"}, h.rows(`SELECT COUNT(claim_token), state FROM issuances GROUP BY 2`))
}

func TestConflictingKeysInOneGroup(t *testing.T) {
	t.Parallel()
	h := newHouse(t, sqliteStored{})
	release := hold(t, h.Ledger)
	jobs, errs := make([]issue.Job, 6), make([]error, 6)
	var wait sync.WaitGroup
	for i := range jobs {
		wait.Go(func() {
			fingerprint := []string{"print", "print", "other print"}[i%3]
			jobs[i], errs[i] = h.CreateJob(context.Background(), aJob(issue.JobID(fmt.Sprint("job-", i))), "key", fingerprint)
		})
	}
	waiting(t, h.Ledger, 6)
	release()
	wait.Wait()
	kept := h.rows(`SELECT id, fingerprint FROM jobs`)
	require.Len(t, kept, 1)
	for i := range jobs {
		if errs[i] != nil {
			require.ErrorIs(t, errs[i], issue.ErrKeyReused)
			continue
		}
		require.Contains(t, kept[0], string(jobs[i].ID)+"|")
	}
}

func TestCloseWhileWritesWait(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ecreds.db")
	l, err := Open(t.Context(), Config{
		URL: "sqlite:" + path, Migrate: true, ClaimLapse: claimLapse, Registry: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	release := hold(t, l)
	errs := make([]error, 100)
	var wait sync.WaitGroup
	for i := range errs {
		wait.Go(func() {
			_, errs[i] = l.CreateJob(context.Background(), aJob(issue.JobID(fmt.Sprintf("job-%03d", i))), "", "")
		})
	}
	waiting(t, l, len(errs))
	closed := make(chan error)
	go func() { closed <- l.Close() }()
	<-l.writer.quit
	release()
	require.NoError(t, <-closed)
	wait.Wait()
	_, late := l.CreateJob(t.Context(), aJob("late"), "", "")
	require.ErrorIs(t, late, issue.ErrUnavailable, "a closed ledger is away")

	again := house{Ledger: openURL(t, "sqlite:"+path), t: t}
	for i, err := range errs {
		require.NoError(t, err, "what waited was written")
		again.job(issue.JobID(fmt.Sprintf("job-%03d", i)))
	}
	again.recount()
}

func TestAWriteIsNotGivenUpHalfWay(t *testing.T) {
	t.Parallel()
	h := newHouse(t, sqliteStored{})
	release := hold(t, h.Ledger)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var err error
	wait.Go(func() { _, err = h.CreateJob(ctx, aJob("job-1"), "", "") })
	waiting(t, h.Ledger, 1)
	cancel()
	release()
	wait.Wait()
	require.NoError(t, err)
	h.job("job-1")

	full := hold(t, h.Ledger)
	defer full()
	for range cap(h.writer.queue) {
		h.writer.queue <- &write{run: func(*transaction) error { return nil }, done: make(chan error, 1)}
	}
	_, err = h.CreateJob(ctx, aJob("job-2"), "", "")
	require.ErrorIs(t, err, context.Canceled, "what has not begun is")
}

func TestAnErrorOfTheStoreIsNoAnswer(t *testing.T) {
	t.Parallel()
	l, err := Open(t.Context(), Config{
		URL: "sqlite:" + filepath.Join(t.TempDir(), "ecreds.db"), Migrate: true, Registry: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	for name, call := range map[string]func(context.Context) error{
		"CreateJob":  func(ctx context.Context) error { _, err := l.CreateJob(ctx, aJob("x"), "", ""); return err },
		"Unresolved": func(ctx context.Context) error { _, err := l.Unresolved(ctx); return err },
		"AddPage":    func(ctx context.Context) error { return l.AddPage(ctx, aJob("x"), issue.FannedOut{}) },
		"Adopt":      func(ctx context.Context) error { return l.Adopt(ctx, aJob("x"), issue.FannedOut{}) },
		"TakeDue":    func(ctx context.Context) error { _, err := l.TakeDue(ctx, issue.Ahead{}, 1); return err },
		"Dispatched": func(ctx context.Context) error { return l.Dispatched(ctx, nil) },
		"Recall":     func(ctx context.Context) error { _, err := l.Recall(ctx, time.Now(), nil); return err },
		"Pace":       func(ctx context.Context) error { _, err := l.Pace(ctx); return err },
		"Lease":      func(ctx context.Context) error { _, err := l.Lease(ctx, "task", "x", time.Second); return err },
		"EndLease":   func(ctx context.Context) error { return l.EndLease(ctx, "task", "x") },
		"TemplateFailed": func(ctx context.Context) error {
			_, err := l.TemplateFailed(ctx, issue.TemplateUse{}, "x")
			return err
		},
		"Claim":       func(ctx context.Context) error { _, _, err := l.Claim(ctx, issue.Claim{}); return err },
		"Checkpoint":  func(ctx context.Context) error { return l.Checkpoint(ctx, issue.Checkpoint{}) },
		"IndexPoison": func(ctx context.Context) error { return l.IndexPoison(ctx, issue.DeadLetter{}) },
		"Job":         func(ctx context.Context) error { _, _, err := l.Job(ctx, "x"); return err },
		"Learners":    func(ctx context.Context) error { _, err := l.Learners(ctx, issue.LearnerQuery{}); return err },
		"Alive":       func(ctx context.Context) error { return l.Alive(ctx, issue.Process{}) },
		"Gone":        func(ctx context.Context) error { return l.Gone(ctx, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := call(t.Context())
			require.ErrorIs(t, err, issue.ErrUnavailable)
			require.NotErrorIs(t, err, issue.ErrClaimLost)
		})
	}
}
