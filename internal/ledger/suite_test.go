package ledger

import (
	"maps"
	"slices"
	"testing"
)

func TestSQLite(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T) *Ledger {
		t.Helper()
		return sqliteFile(t)
	})
}

// suite is what every store promises. Each test has a ledger of its own.
func suite(t *testing.T, open func(t *testing.T) *Ledger) {
	t.Helper()
	for _, part := range []map[string]func(house){
		jobTests(), reIssueTests(), dispatchTests(), workTests(), templateTests(), progressTests(), processTests(),
	} {
		for _, name := range slices.Sorted(maps.Keys(part)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				part[name](newHouse(t, open(t)))
			})
		}
	}
}
