package ledger

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

// BenchmarkLarge asks a ledger of LEDGER_ROWS issuances what is asked while it
// works: one operation is a claim, a page of learners and the counts of a job.
// Building it takes minutes, so it is asked for by that variable alone.
func BenchmarkLarge(b *testing.B) {
	rows, err := strconv.Atoi(os.Getenv("LEDGER_ROWS"))
	if err != nil {
		b.Skip("LEDGER_ROWS says how many")
	}
	eachKind(b, func(b *testing.B, store kind) {
		b.Helper()
		h := house{Ledger: openURL(b, store.place(b)), t: b}
		const size = 5000
		for n := 0; n < rows; n += 50 * size {
			job := aJob(issue.JobID(fmt.Sprint("job-", n)))
			_, err := h.CreateJob(context.Background(), job, "", "")
			require.NoError(b, err)
			for from := n; from < min(n+50*size, rows); from += size {
				page := pageOf(job, many(fmt.Sprint("learner-", from), size)...)
				page.Next, page.Last = fmt.Sprint(from), false
				require.NoError(b, h.AddPage(context.Background(), job, page))
				job.Cursor = page.Next
			}
		}
		benchLarge(b, h)
	})
}

func benchLarge(b *testing.B, h house) {
	b.Helper()
	ctx := context.Background()
	events := h.take()
	var claims, pages, counts time.Duration
	timed := func(sum *time.Duration, run func() error) {
		begun := time.Now()
		require.NoError(b, run())
		*sum += time.Since(begun)
	}
	b.ResetTimer()
	for i := range b.N {
		event := events[i%len(events)]
		timed(&claims, func() error {
			_, _, err := h.Ledger.Claim(ctx, claimOf(event, theDeparted))
			return err
		})
		timed(&pages, func() error {
			_, err := h.Learners(ctx, issue.LearnerQuery{
				Job: event.Job, Cursor: cursor{learner: string(event.Learner)}.encode(), Limit: 1,
			})
			return err
		})
		timed(&counts, func() error {
			_, _, err := h.Job(ctx, event.Job)
			return err
		})
	}
	for name, sum := range map[string]time.Duration{"claim": claims, "learner": pages, "counts": counts} {
		b.ReportMetric(float64(sum.Microseconds())/float64(b.N), name+"-µs")
	}
}
