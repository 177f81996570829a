package ledger

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"
)

// kind is a kind of store.
type kind interface {
	// place is the URL of a new, empty one.
	place(tb testing.TB) string
}

type sqliteStored struct{}

func (sqliteStored) place(tb testing.TB) string {
	tb.Helper()
	return "sqlite:" + filepath.Join(tb.TempDir(), "ecreds.db")
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	suite(t, sqliteStored{})
}

// suite is what every store promises. Each test has a ledger of its own.
func suite(t *testing.T, store kind) {
	t.Helper()
	for _, part := range []map[string]func(house){
		jobTests(), reIssueTests(), dispatchTests(), workTests(), templateTests(), progressTests(), processTests(), severalTests(),
		reconcileTests(),
	} {
		for _, name := range slices.Sorted(maps.Keys(part)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				part[name](newHouse(t, store))
			})
		}
	}
}
