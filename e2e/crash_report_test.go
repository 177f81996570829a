//go:build realparts

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
)

// report prints what deaths have cost.
func report(tb testing.TB, t toll) {
	tb.Helper()
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "rounds\tkills\tlost\tdoubled\trepeated: generate\tcerts/add\tnotification\t(in flight at the kills, at most)\t")
	fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n",
		t.Rounds, t.Kills, t.Lost, t.Doubled, t.Generates, t.Registers, t.Notifications, t.InFlight)
	_ = w.Flush() // a strings.Builder takes everything
	tb.Logf("what the deaths cost:\n%s", &table)
}
