//go:build realparts

package e2e

import (
	"math/rand/v2"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", with which tests look into the ledger

	"github.com/ecreds/issuer/internal/parts"
)

// TestCrashOnPostgreSQL does the same to two replicas of the API, three
// consumers, and the database that they share.
func TestCrashOnPostgreSQL(t *testing.T) {
	t.Parallel()
	seed, kills := crashSettings(t)
	h := newCrashHouse(t, rand.New(rand.NewPCG(seed, 1)), parts.PostgreSQL(t), 2, 3)
	report(t, h.crash(kills))
}
