//go:build realparts

package ledger

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/parts"
)

// A server that dies while it is written to costs nothing that was acknowledged,
// and the ledger goes on by itself once it is back.
func TestPostgreSQLIsKilled(t *testing.T) {
	t.Parallel()
	server := parts.PostgreSQL(t)
	h := house{Ledger: openURL(t, server.Database(t)), t: t}
	var (
		mu           sync.Mutex
		acknowledged []issue.JobID
		refused      []error
	)
	count := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged), len(refused)
	}
	ctx := context.Background() // a write is not given up for the test's sake
	stopped := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stopped:
					return
				default:
				}
				id := issue.JobID(fmt.Sprintf("job-%d-%d", w, n))
				job := aJob(id)
				_, err := h.CreateJob(ctx, job, "", "")
				if err == nil {
					err = h.AddPage(ctx, job, pageOf(job, issue.LearnerID(id)))
				}
				mu.Lock()
				if err == nil {
					acknowledged = append(acknowledged, id)
				} else {
					refused = append(refused, err)
				}
				mu.Unlock()
			}
		})
	}
	for range 3 {
		before, _ := count()
		require.Eventually(t, func() bool { n, _ := count(); return n > before+200 }, time.Minute, time.Millisecond, "it goes on")
		_, errs := count()
		server.Kill(t)
		require.Eventually(t, func() bool { _, n := count(); return n > errs+16 }, time.Minute, time.Millisecond)
		require.ErrorIs(t, h.Ping(t.Context()), issue.ErrUnavailable)
		server.Restart(t)
	}
	before, _ := count()
	require.Eventually(t, func() bool { n, _ := count(); return n > before+200 }, time.Minute, time.Millisecond, "it goes on")
	close(stopped)
	writers.Wait()
	for _, err := range refused {
		require.ErrorIs(t, err, issue.ErrUnavailable)
	}
	kept := map[string]bool{}
	for _, line := range h.rows(`SELECT job_id FROM issuances`) {
		kept[line] = true
	}
	for _, id := range acknowledged {
		require.True(t, kept[string(id)], "%s was acknowledged and is lost", id)
	}
	h.recount()
}

func TestPostgreSQLRefusals(t *testing.T) {
	t.Parallel()
	folder, err := os.MkdirTemp("", "ecreds-hba-") //nolint:usetesting // the server's user must be able to enter it
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	require.NoError(t, os.Chmod(folder, 0o755))
	rules := filepath.Join(folder, "hba")
	require.NoError(t, os.WriteFile(rules, []byte("local all postgres trust\nlocal all all scram-sha-256\n"), 0o644))
	server := parts.PostgreSQL(t, "-c", "hba_file="+rules)
	good := server.Database(t)
	admin, err := pgx.Connect(t.Context(), good)
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), `CREATE ROLE ada LOGIN PASSWORD 'right'`)
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
	as := func(user, password string) string {
		u, err := url.Parse(good)
		require.NoError(t, err)
		u.User = url.UserPassword(user, password)
		return u.String()
	}
	for name, test := range map[string]struct{ url, want string }{
		"wrong password":      {as("ada", "secret"), `password authentication failed for user "ada"`},
		"unknown database":    {strings.Replace(good, "test_1", "nowhere", 1), `database "nowhere" does not exist`},
		"no server":           {"postgres://ada:secret@127.0.0.1:1/x", "the server cannot be reached: connect: connection refused"},
		"no such host":        {"postgres://ada:secret@nowhere.invalid/x", "the server cannot be reached: "},
		"a URL that is none":  {"postgres://ada:secret@host:port/x", "the URL of the ledger cannot be read"},
		"not allowed to make": {as("ada", "right"), "bring the ledger test_1 at "},
		"no schema":           {good, " has schema version 0 and 1 is needed: start once with MIGRATE=true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(t.Context(), Config{
				URL: test.url, Migrate: name == "not allowed to make", ClaimLapse: claimLapse, Registry: prometheus.NewRegistry(),
			})
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "\n", "one line")
		})
	}
}

// A claim lapses by the clock of the server, whatever the claimant's says.
func TestTheServersClockDecides(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postgresStored{})
	before := time.Now().Add(-time.Second)
	h.resolved(aJob("job-1"), "u1")
	require.NoError(t, h.writer.do(t.Context(), func(tx *transaction) error {
		var server time.Time
		_, err := tx.found(serverTime, nil, func(r row) { server = moment(r) })
		require.WithinDuration(t, server, time.UnixMilli(tx.at), 5*time.Second)
		require.True(t, server.After(before))
		return err
	}))
}

// TestAStoppedProcessKeepsNobodyForLong: whoever is stopped in the midst of a
// group keeps its locks until the server ends it, and no longer.
func TestAStoppedProcessKeepsNobodyForLong(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postgresStored{})
	h.resolved(aJob("job-1"), "u1")
	event := h.takeOne()
	stopped, err := h.another().store.connect(t.Context())
	require.NoError(t, err)
	_, err = stopped.begin(t.Context())
	require.NoError(t, err)
	lock := command{text: `SELECT seq FROM issuances WHERE id = $1 FOR UPDATE`, args: []any{event.Issuance}, onlyLocks: true}
	require.NoError(t, stopped.run(t.Context(), []command{lock}))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, result, err := h.Claim(ctx, claimOf(event, livingOne))
	require.NoError(t, err)
	require.Equal(t, issue.Claimed, result)
	require.Error(t, stopped.run(t.Context(), []command{lock}), "what it writes late is refused")
	_ = stopped.close() // the server has ended it
}
