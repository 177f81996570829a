//go:build realparts

package ledger

import (
	"testing"

	"github.com/ecreds/issuer/internal/parts"
)

func init() { kinds["PostgreSQL"] = postgresStored{} }

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
