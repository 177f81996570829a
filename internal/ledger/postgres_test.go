//go:build realparts

package ledger

import (
	"testing"

	"github.com/ecreds/issuer/internal/parts"
)

// kinds are the stores that can be had.
func kinds() map[string]kind {
	return map[string]kind{"PostgreSQL": postgresStored{}, "SQLite": sqliteStored{}}
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	suite(t, postgresStored{})
}

// postgresStored opens ledgers in databases of the cluster that all tests share.
type postgresStored struct{}

func (postgresStored) place(tb testing.TB) string {
	tb.Helper()
	return parts.SharedPostgreSQL(tb).Database(tb)
}
