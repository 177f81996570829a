//go:build realparts

package e2e

import (
	"database/sql"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// requireAtRest looks into the ledger itself: of a batch that is done, nothing
// is out, claimed or due, and no registered certificate stands there twice.
func (h *crashHouse) requireAtRest(b *crashBatch) {
	h.tb.Helper()
	db := h.openLedger()
	defer db.Close()
	count := func(query string) (n int) {
		require.NoError(h.tb, db.QueryRowContext(h.tb.Context(), query, b.id).Scan(&n))
		return n
	}
	assert.Equal(h.tb, len(b.learners), count(`SELECT COUNT(*) FROM issuances WHERE batch_id = $1`), "issuances")
	assert.Zero(h.tb, count(`SELECT COUNT(*) FROM issuances WHERE batch_id = $1 AND is_out = 1`), "out")
	assert.Zero(h.tb, count(`SELECT COUNT(*) FROM issuances WHERE batch_id = $1 AND claim_token IS NOT NULL`), "claimed")
	assert.Zero(h.tb, count(`SELECT COUNT(*) FROM issuances WHERE batch_id = $1 AND due_at IS NOT NULL`), "due")
}

func (h *crashHouse) openLedger() *sql.DB {
	h.tb.Helper()
	driver, source := "pgx", h.ledgerURL
	if path, ok := strings.CutPrefix(h.ledgerURL, "sqlite:"); ok {
		driver, source = "sqlite", "file:"+path+"?_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, source)
	require.NoError(h.tb, err)
	return db
}
