package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/parts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(parts.StopAfter(m)) }

const (
	batch       = issue.BatchID("0128821148183429120")
	course      = issue.CourseID("do_2128410273679114241112")
	merit       = "Merit"
	claimLapse  = 15 * time.Second
	livingOne   = "living-1"
	livingTwo   = "living-2"
	theDeparted = "dead"
)

// openURL opens a ledger and closes it with the test.
func openURL(tb testing.TB, url string) *Ledger {
	tb.Helper()
	l, err := Open(context.Background(), Config{
		URL: url, Migrate: true, ClaimLapse: claimLapse, Registry: prometheus.NewRegistry(),
	})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, l.Close()) })
	return l
}

// house is a ledger with two living processes, in the hands of a test. When the
// test ends, the sums that people see must equal what the rows say.
type house struct {
	*Ledger
	t    testing.TB
	kind kind
	url  string
}

func newHouse(tb testing.TB, store kind) house {
	tb.Helper()
	url := store.place(tb)
	l := openURL(tb, url)
	h := house{l, tb, store, url}
	for _, id := range []string{livingOne, livingTwo} {
		require.NoError(tb, l.Alive(tb.Context(), issue.Process{ID: id, Name: "host/" + id, Capacity: 256}))
	}
	tb.Cleanup(h.recount)
	return h
}

func aJob(id issue.JobID, change ...func(*issue.Job)) issue.Job {
	job := issue.Job{
		ID: id, Batch: batch, Course: course, Certificates: []string{merit}, State: issue.JobRunning, Eligible: 3,
		Estimate: true, Skipped: map[issue.SkipReason]int{}, CreatedBy: "officer",
		CreatedAt: time.Now().Truncate(time.Millisecond).UTC(), TraceParent: "00-trace",
	}
	for _, c := range change {
		c(&job)
	}
	return job
}

func reIssue(job *issue.Job) { job.ReIssue = true }

func id(learner issue.LearnerID) issue.IssuanceID { return issue.NewIssuanceID(batch, learner, merit) }

func wanted(learner issue.LearnerID) issue.Wanted {
	return issue.Wanted{
		ID: id(learner), Learner: learner, Certificate: merit, CompletedOn: time.UnixMilli(1566372109689).UTC(),
	}
}

// pageOf is the last page of a job.
func pageOf(job issue.Job, learners ...issue.LearnerID) issue.FannedOut {
	page := issue.FannedOut{Cause: string(job.ID), Last: true}
	for _, learner := range learners {
		page.Wanted = append(page.Wanted, wanted(learner))
	}
	return page
}

// resolved creates a job that wants the learners and has read its whole batch.
func (h house) resolved(job issue.Job, learners ...issue.LearnerID) issue.Job {
	h.t.Helper()
	_, err := h.CreateJob(h.t.Context(), job, "", "")
	require.NoError(h.t, err)
	require.NoError(h.t, h.AddPage(h.t.Context(), job, pageOf(job, learners...)))
	return job
}

// take takes everything that is due.
func (h house) take() []issue.Event {
	h.t.Helper()
	events, err := h.TakeDue(h.t.Context(), issue.Ahead{}, 1000)
	require.NoError(h.t, err)
	return events
}

// takeOne takes the one event that is due.
func (h house) takeOne() issue.Event {
	h.t.Helper()
	events := h.take()
	require.Len(h.t, events, 1)
	return events[0]
}

var tokens atomic.Int64

// token is fresh at every call.
func token() string { return fmt.Sprintf("token-%d", tokens.Add(1)) }

func claimOf(event issue.Event, process string) issue.Claim {
	return issue.Claim{
		Issuance: event.Issuance, Number: event.Number, Token: token(), Process: process,
		Until: time.Now().Add(40 * time.Second),
	}
}

// claim claims an event that nobody holds.
func (h house) claim(event issue.Event, process string) (issue.Claim, issue.Issuance) {
	h.t.Helper()
	c := claimOf(event, process)
	issuance, result, err := h.Ledger.Claim(h.t.Context(), c)
	require.NoError(h.t, err)
	require.Equal(h.t, issue.Claimed, result)
	return c, issuance
}

func (h house) write(c issue.Checkpoint) {
	h.t.Helper()
	require.NoError(h.t, h.checkpoint(c))
}

// checkpoint writes what a worker would who knows how the issuance stands.
func (h house) checkpoint(c issue.Checkpoint) error {
	h.t.Helper()
	err := h.store.read(context.Background(), command{
		text: `SELECT seq, state, revision, issued_at FROM issuances WHERE id = $1`, args: []any{c.Claim.Issuance},
		each: func(r row) error {
			c.Claim.Row, c.Before.State = r.number(), word[issue.State](r)
			c.Before.Revision, c.Before.Issued = int(r.number()), r.number() != 0
			return nil
		},
	})
	require.NoError(h.t, err)
	return h.Checkpoint(h.t.Context(), c)
}

// way is what a worker writes on the way of one certificate.
func way(c issue.Claim, made string) []issue.Checkpoint {
	return []issue.Checkpoint{
		{Claim: c, State: issue.Generating, Step: issue.StepGenerate, Attempts: 1},
		{
			Claim: c, State: issue.Registering, Step: issue.StepRegister, Attempts: 1, Made: certificate(made),
			Finished: []issue.Finished{{State: issue.Generated, Attempts: 1}},
		},
		{
			Claim: c, State: issue.Notifying, Step: issue.StepNotify, Attempts: 1, Registered: true,
			Email: issue.ChannelSending, Finished: []issue.Finished{{State: issue.Registered, Attempts: 1}},
		},
		{
			Claim: c, State: issue.Notified, Step: issue.StepNotify, Attempts: 1, Email: issue.ChannelSent,
			SMS: issue.ChannelNone, Rest: true,
			Finished: []issue.Finished{{State: issue.Notifying, Attempts: 1}, {State: issue.Notified, Attempts: 1}},
		},
	}
}

func certificate(id string) *issue.Certificate {
	return &issue.Certificate{
		ID: id, AccessCode: "ABC123", PDFURL: "https://files/" + id + ".pdf", JSONURL: "https://files/" + id + ".json",
		JSONData: json.RawMessage(`{"recipient":{"name":"Asha  Rao"} }`),
	}
}

// issue works an event to its end.
func (h house) issue(event issue.Event, made string) {
	h.t.Helper()
	c, _ := h.claim(event, livingOne)
	for _, checkpoint := range way(c, made) {
		h.write(checkpoint)
	}
}

// fail dead-letters an event at generate, for its template.
func (h house) fail(event issue.Event) issue.DeadLetter {
	h.t.Helper()
	c, issuance := h.claim(event, livingOne)
	letter := issue.DeadLetter{
		ID:    fmt.Sprintf("%s-%d-%d", issuance.ID, issuance.Revision, issuance.Replays),
		Class: issue.ClassPermanent, Step: issue.StepGenerate, Reason: issue.ReasonTemplate, HTTPStatus: 400, Message: "no such font",
		Attempts: 1, Replays: issuance.Replays, Job: issuance.Job, Place: issue.Place{Partition: 1, Offset: 5},
		FirstFailure: time.UnixMilli(1566372109000), LastFailure: time.UnixMilli(1566372109689),
	}
	h.write(issue.Checkpoint{Claim: c, State: issue.Generating, Step: issue.StepGenerate, Attempts: 1})
	h.write(issue.Checkpoint{
		Claim: c, State: issue.Failed, Step: issue.StepGenerate, Attempts: 1, Reason: issue.ReasonTemplate, HTTPStatus: 400,
		Message: "no such font", Rest: true, DeadLetter: &letter,
	})
	return letter
}

func (h house) job(id issue.JobID) issue.JobProgress {
	h.t.Helper()
	job, found, err := h.Job(h.t.Context(), id)
	require.NoError(h.t, err)
	require.True(h.t, found)
	return job
}

// rows reads rows as texts, one a line, columns joined by "|".
func (h house) rows(query string) []string {
	h.t.Helper()
	lines := []string{}
	require.NoError(h.t, h.store.read(context.Background(), command{text: query, each: func(r row) error {
		lines = append(lines, strings.Join(texts(r), "|"))
		return nil
	}}))
	return lines
}

// texts are all columns of a row as text.
func texts(r row) []string {
	var all []string
	switch r := r.(type) {
	case *sqliteRow:
		for i := range r.stmt.ColumnCount() {
			text := r.text()
			if r.stmt.ColumnIsNull(i) {
				text = "NULL"
			}
			all = append(all, text)
		}
	case *postgresRow:
		for i, value := range r.values {
			switch isText := r.rows.FieldDescriptions()[i].DataTypeOID == pgtype.TextOID; {
			case value == nil:
				r.next++
				all = append(all, "NULL")
			case isText:
				all = append(all, r.text())
			default:
				all = append(all, strconv.FormatInt(r.number(), 10))
			}
		}
	}
	return all
}

// everything is the whole ledger but for the processes.
func (h house) everything() map[string][]string {
	h.t.Helper()
	all := map[string][]string{}
	for _, table := range []string{
		"jobs", "issuances", "job_issuances", "job_skips", "job_counts", "revisions", "issuance_history", "dead_letters",
	} {
		all[table] = h.rows("SELECT * FROM " + table + " ORDER BY 1, 2, 3")
	}
	return all
}

// change changes rows behind the ledger's back: it ages or breaks them.
func (h house) change(statement string, args ...any) {
	h.t.Helper()
	require.NoError(h.t, h.writer.do(h.t.Context(), func(t *transaction) error {
		return t.exec(statement, args...)
	}))
}

// recount checks what the ledger keeps beside its rows against the rows: the
// sums, and what every row must be at any time.
func (h house) recount() {
	h.t.Helper()
	require.Equal(h.t,
		h.rows(`SELECT ji.job_id, 'state', i.state, COUNT(*) FROM job_issuances ji JOIN issuances i ON i.seq = ji.issuance
				GROUP BY 1, 3
			UNION ALL
			SELECT ji.job_id, 'failed', i.reason, COUNT(*) FROM job_issuances ji JOIN issuances i ON i.seq = ji.issuance
				WHERE i.state = 'failed' GROUP BY 1, 3
			UNION ALL
			SELECT job_id, 'skipped', reason, COUNT(*) FROM job_skips
				WHERE reason IN ('already_issued', 'bad_completion_date', 'filtered', 'criteria') GROUP BY 1, 3
			ORDER BY 1, 2, 3`),
		h.rows(`SELECT job_id, kind, name, CAST(SUM(n) AS BIGINT) FROM job_counts
			WHERE kind <> 'issued' AND name NOT IN ('inactive', 'status', 'no_completion_date', 'not_enrolled')
			GROUP BY 1, 2, 3 HAVING SUM(n) <> 0 ORDER BY 1, 2, 3`),
		"sums of the jobs")
	require.Equal(h.t,
		h.rows(`SELECT j.id, (SELECT COUNT(*) FROM job_issuances ji JOIN issuances i ON i.seq = ji.issuance
			WHERE ji.job_id = j.id AND EXISTS (SELECT 1 FROM revisions r WHERE r.issuance = i.seq AND r.registered_at IS NOT NULL))
			FROM jobs j ORDER BY 1`),
		h.rows(`SELECT id, COALESCE((SELECT CAST(SUM(n) AS BIGINT) FROM job_counts WHERE job_id = id AND kind = 'issued'), 0)
			FROM jobs ORDER BY 1`), "issued learners of the jobs")
	require.Empty(h.t, h.rows(`SELECT id, state, is_out, due_at FROM issuances
		WHERE (due_at IS NOT NULL) <> (is_out = 0 AND state NOT IN ('notified', 'failed'))`),
		"due exactly while in and unfinished")
	require.Empty(h.t, h.rows(`SELECT id FROM issuances WHERE is_out = 0 AND claim_token IS NOT NULL`), "claimed means out")
	require.Empty(h.t, h.rows(`SELECT id FROM issuances
		WHERE wanted_by <> (SELECT COUNT(*) FROM job_issuances WHERE issuance = seq)`), "wanted by so many jobs")
	require.Empty(h.t, h.rows(`SELECT id FROM issuances i WHERE last_revision <>
		(SELECT COUNT(*) FROM revisions r WHERE r.issuance = i.seq) OR revision > last_revision`), "revisions without a gap")
}
