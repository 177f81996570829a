package ledger

import (
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
)

func TestOpenRefusals(t *testing.T) {
	t.Parallel()
	inNoFolder := filepath.Join(t.TempDir(), "missing", "ecreds.db")
	tests := map[string]struct {
		url     string
		migrate bool
		prepare string // run on the file after it was migrated
		want    string
	}{
		"empty":       {url: "", want: `the given text is not a ledger: it must be sqlite:<path of a file> or postgres://…`},
		"no path":     {url: "sqlite:", want: `the given text is not a ledger: it must be sqlite:<path of a file> or postgres://…`},
		"other store": {url: "mysql://ecreds:secret@db/ecreds?password=secret", want: `"mysql://…" is not a ledger: it must be sqlite:<path of a file> or postgres://…`},
		"key words":   {url: "host=db password=secret", want: `the given text is not a ledger: it must be sqlite:<path of a file> or postgres://…`},
		"no folder":   {url: "sqlite:" + inNoFolder, migrate: true, want: "open the ledger " + inNoFolder + ": "},
		"no schema":   {want: ` has schema version 0 and 1 is needed: start once with MIGRATE=true`},
		"a newer schema": {
			migrate: true,
			prepare: `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`,
			want:    ` has schema version 99, newer than the 1 this program knows: use a newer program`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ecreds.db")
			config := Config{URL: test.url, Migrate: test.migrate, ClaimLapse: claimLapse, Registry: prometheus.NewRegistry()}
			if name == "no schema" || test.prepare != "" {
				config.URL = "sqlite:" + path
			}
			if test.prepare != "" {
				l, err := Open(t.Context(), config)
				require.NoError(t, err)
				house{Ledger: l, t: t}.change(test.prepare)
				require.NoError(t, l.Close())
			}
			_, err := Open(t.Context(), config)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "\n", "one line")
		})
	}
}

func TestReopeningKeepsEverything(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a file with spaces & 100%?.db")
	config := Config{URL: "sqlite:" + path, Migrate: true, ClaimLapse: claimLapse, Registry: prometheus.NewRegistry()}
	first, err := Open(t.Context(), config)
	require.NoError(t, err)
	h := house{Ledger: first, t: t}
	require.NoError(t, first.Alive(t.Context(), issue.Process{ID: livingOne}))
	job := h.resolved(aJob("job-1"), "u1", "u2", "u3")
	for i, event := range h.take()[:2] {
		h.issue(event, []string{"cert-1", "cert-2"}[i])
	}
	before := h.everything()
	require.NoError(t, first.Close())

	config.Migrate, config.Registry = false, prometheus.NewRegistry()
	again, err := Open(t.Context(), config)
	require.NoError(t, err, "a schema that is up to date needs no Migrate")
	t.Cleanup(func() { require.NoError(t, again.Close()) })
	h = house{Ledger: again, t: t}
	require.Equal(t, before, h.everything())
	require.Equal(t, 2, h.job(job.ID).Issued)
	h.recount()
}

func TestPing(t *testing.T) {
	t.Parallel()
	l, err := Open(t.Context(), Config{
		URL: "sqlite:" + filepath.Join(t.TempDir(), "ecreds.db"), Migrate: true, Registry: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	require.NoError(t, l.Ping(t.Context()))
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Ping(t.Context()), issue.ErrUnavailable)
}

func TestMetricsStartAtZero(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	l, err := Open(t.Context(), Config{
		URL: "sqlite:" + filepath.Join(t.TempDir(), "ecreds.db"), Migrate: true, ClaimLapse: claimLapse, Registry: registry,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	require.Equal(t, 8, testutil.CollectAndCount(registry, "ecreds_ledger_duration_seconds"))
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}
